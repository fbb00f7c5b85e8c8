"""The packages as floors: who may import whom, and what the lower ones must not load."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "minicoil"
FLOORS = [
    "runs",
    "text",
    "serving",
    "learning",
    "stages",
    "retrieval",
    "pictures",
    "commands",
]  # lowest first
LIGHT = ("runs", "text", "serving")
HEAVY = ("torch", "umap", "qdrant_client", "qdrant_edge", "papermill", "sentence_transformers", "matplotlib")
ASKED_FOR = "serving.sparse_encoder"  # a class of sentence-transformers: only load_sparse_encoder loads it
REGISTRIES = ("runs.run", "learning.objectives")  # name functions by text, to load them late
TARGET = re.compile(r"minicoil\.(\w+)\.(\w+):\w+")  # a function named by text, as `map_shards` takes it


def name_of(path):
    """`runs.files` for minicoil/runs/files.py, `runs` for minicoil/runs/__init__.py."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def modules():
    """{name: its syntax tree} of every module in a package."""
    return {name_of(p): ast.parse(p.read_text(encoding="utf-8")) for p in sorted(PACKAGE.glob("*/*.py"))}


MODULES = modules()


def is_for_types(node):
    """Whether a statement is `if TYPE_CHECKING:`, which never runs."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def absolute(module, node):
    """The full names that an import statement in a module may mean."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        above = ["minicoil", *module.split(".")][: -node.level]
        base = ".".join([*above, base]).rstrip(".")
    return [base, *(f"{base}.{alias.name}" for alias in node.names)]


def imported(module):
    """Names of our modules that a module imports, wherever in it, or names by text."""
    found = set()
    for node in ast.walk(MODULES[module]):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = {name.removeprefix("minicoil.") for name in absolute(module, node)}
            found |= names & set(MODULES)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and module not in REGISTRIES:
            found |= {f"{package}.{name}" for package, name in TARGET.findall(node.value)}
    return found - {module}


def at_import(tree):
    """The import statements that run when a module is loaded."""
    waiting, found = list(tree.body), []
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found.append(node)
        elif not is_for_types(node) and not isinstance(
            node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
        ):
            waiting += ast.iter_child_nodes(node)
    return found


def floor(module):
    """The number of a module's floor, counted from below."""
    return FLOORS.index(module.split(".")[0])


def test_every_package_is_a_floor():
    """The floors listed here are the packages there are, apart from bundled data."""
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} - {"data"} == set(FLOORS)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module):
    """A module imports from its own floor and from lower ones, inside functions too.

    A function named by text counts.
    """
    above = [name for name in imported(module) if floor(name) > floor(module)]
    assert above == []


def test_no_module_imports_itself_in_a_circle():
    """Within a floor too the arrows point one way: whoever follows them never comes back."""
    arrows, done = {module: imported(module) for module in MODULES}, set()
    while len(done) < len(arrows):
        free = {module for module, needed in arrows.items() if module not in done and needed <= done}
        assert free, f"in a circle: {sorted(set(arrows) - done)}"
        done |= free


@pytest.mark.parametrize(
    "module", [name for name in MODULES if name.split(".")[0] in LIGHT and name != ASKED_FOR]
)
def test_a_light_module_loads_nothing_heavy(module):
    """Nothing of runs, text and serving imports torch, UMAP, Qdrant or papermill when it is loaded."""
    names = {name for node in at_import(MODULES[module]) for name in absolute(module, node)}
    assert {name.split(".")[0] for name in names}.isdisjoint(HEAVY)
    assert f"minicoil.{ASKED_FOR}" not in names


def test_serving_loads_nothing_heavy():
    """`from minicoil import MiniCOIL` loads no heavy package, not even through another one."""
    code = f"import sys; from minicoil import MiniCOIL; print([n for n in {HEAVY} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


WRONG = """
try:
    import torch
except ImportError:
    pass

def f():
    from ..stages import model
    g("minicoil.text.readers:documents")
"""


def test_the_rule_can_be_broken():
    """The proof that these tests can fail.

    An import in a function, a name as text, an import in a `try` are found.
    """
    MODULES["runs.wrong"] = ast.parse(WRONG)
    try:
        assert imported("runs.wrong") == {"stages", "stages.model", "text.readers"}
        assert [node.names[0].name for node in at_import(MODULES["runs.wrong"])] == ["torch"]
    finally:
        del MODULES["runs.wrong"]
