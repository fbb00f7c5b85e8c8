"""What tests, benches and the site's builder import from the package is there, also where it is imported
late."""

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted([*(ROOT / "tests").rglob("*.py"), *(ROOT / "docs").glob("*.py")])


def imported(path):
    """(module, name) of everything that a file imports from the package, wherever in it."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    froms = [
        node
        for node in nodes
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("minicoil")
    ]
    return [(node.module, alias.name) for node in froms for alias in node.names]


def is_there(module, name):
    """Whether a module has a name, or a package a module of that name."""
    found = importlib.import_module(module)
    if hasattr(found, name):
        return True
    try:
        importlib.import_module(f"{module}.{name}")
    except ImportError:
        return False
    return True


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_imported_is_there(path):
    """Every name that a file imports from the package exists: benches run rarely, and would notice late."""
    assert [name for name in imported(path) if not is_there(*name)] == []
