"""The notebooks as one book: how a chapter opens and ends, and how its cells, functions and lines read."""

import ast
import json
import re
import statistics
from pathlib import Path

import pytest
from figures import WIDEST, assertions, checks_several, exported_cells, is_typed, lines_of, public_functions

ROOT = Path(__file__).resolve().parents[1]
NBS = ROOT / "nbs"
CHAPTERS = sorted(NBS.glob("[0-9]*.ipynb"))
MODULES = sorted((ROOT / "minicoil").rglob("[a-z]*.py"))


def cells(path, kind):
    """(place, source) of a notebook's cells of one kind."""
    found = enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"])
    return [(f"{path.name} cell {i}", "".join(c["source"])) for i, c in found if c["cell_type"] == kind]


def dotted(path):
    """`runs.files` of the path of a module."""
    return ".".join(path.relative_to(ROOT / "minicoil").with_suffix("").parts)


def statements(source):
    """All statements of a cell, nested ones too."""
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.stmt)]


RELATIVE = re.compile(r"\]\((?!https?:|#|mailto:)([^)\s#]+)")


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_links_of_a_chapter_lead_to_chapters(path):
    """The site has the chapters side by side and nothing else of the repository: other links were dead."""
    links = {link for _, source in cells(path, "markdown") for link in RELATIVE.findall(source)}
    assert links <= {chapter.name for chapter in NBS.glob("*.ipynb")}


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_a_chapter_opens_with_what_it_is_and_ends_with_what_was_learned(path):
    """A chapter says what it is, what comes in and goes out, and ends with a link to the next."""
    prose = [source for _, source in cells(path, "markdown")]
    assert re.match(r"# .+\n\n> .+\n\n", prose[0])
    if path.name < "50":
        opening = prose[0].lower()
        assert "comes in:" in opening
        assert "goes out" in opening
    following = [*CHAPTERS, NBS / "index.ipynb"][CHAPTERS.index(path) + 1]
    assert "## What was learned" in prose[-1]
    assert re.findall(r"\]\((\w+\.ipynb)\)", prose[-1])[-1] == following.name


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_a_cell_is_one_idea(path):
    """No cell has more than 40 lines of code, and no chapter more than 80 cells."""
    for where, source in cells(path, "code"):
        assert len(lines_of(source)) <= 40, where
    assert len(cells(path, "code")) + len(cells(path, "markdown")) <= 80


@pytest.mark.parametrize("path", [*CHAPTERS, NBS / "index.ipynb"], ids=lambda p: p.stem)
def test_a_line_is_narrow(path):
    """Code is at most 110 characters wide."""
    for where, source in cells(path, "code"):
        for line in source.splitlines():
            assert len(line) <= WIDEST, f"{where}: {line}"


@pytest.mark.parametrize("path", [*CHAPTERS, NBS / "index.ipynb"], ids=lambda p: p.stem)
def test_a_line_is_one_statement(path):
    """No two statements share a line, and no assert checks more than two things."""
    for where, source in cells(path, "code"):
        lines = [node.lineno for node in statements(source)]
        twice = {line for line in lines if lines.count(line) > 1}
        assert not twice, f"{where}: {[source.splitlines()[n - 1] for n in sorted(twice)]}"
        assert not any(map(checks_several, assertions(source))), where


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_no_more_than_two_exported_cells_without_prose(path):
    """Between three exported cells there is a sentence, or a check that shows what they do."""
    row = 0
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        row = row + 1 if source.startswith("#| export") else 0
        assert row <= 2, f"{path.name}: {source[:80]}"


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_a_function_is_short(path):
    """No exported function has more than 40 lines."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 40, f"{path.name}: {node.name}"


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_public_functions_are_typed(path):
    """At least seven of ten public functions of a module have types."""
    functions = public_functions(path)
    untyped = [f.name for f in functions if not is_typed(f)]
    assert len(untyped) <= 0.3 * len(functions), untyped


def test_exported_cells_are_small():
    """Half of the exported cells have at most twelve lines."""
    assert statistics.median(len(cell) for cell in exported_cells()) <= 12


def test_few_modules_lie_outside_a_package():
    """At most six modules lie in minicoil/ itself, and every package says in one paragraph what it holds."""
    assert len(list((ROOT / "minicoil").glob("[a-z]*.py"))) <= 6
    for path in (ROOT / "minicoil").glob("*/__init__.py"):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert text, path
        assert "\n\n" not in text, path
