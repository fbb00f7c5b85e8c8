"""The notebooks as one book: how a chapter opens and ends, and how large its cells and functions are."""
import ast
import json
import re
from pathlib import Path

import pytest

NBS = Path(__file__).resolve().parents[1] / "nbs"
CHAPTERS = sorted(NBS.glob("[0-9]*.ipynb"))


def cells(path, kind):
    """(place, source) of a notebook's cells of one kind."""
    return [(f"{path.name} cell {i}", "".join(c["source"])) for i, c in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]) if c["cell_type"] == kind]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_a_chapter_opens_with_what_it_is_and_ends_with_what_was_learned(path):
    """A chapter opens with title and summary, a stage's also with what comes in and goes out; it ends with what was learned and a link to the next in number order."""
    prose = [source for _, source in cells(path, "markdown")]
    assert re.match(r"# .+\n\n> .+\n\n", prose[0])
    if path.name < "50":
        opening = prose[0].lower()
        assert "comes in:" in opening and "goes out" in opening
    following = [*CHAPTERS, NBS / "index.ipynb"][CHAPTERS.index(path) + 1]
    assert "## What was learned" in prose[-1] and re.findall(r"\]\((\w+\.ipynb)\)", prose[-1])[-1] == following.name


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_a_cell_is_one_idea(path):
    """No cell has more than 40 lines of code, and no chapter more than 50 cells."""
    for where, source in cells(path, "code"):
        assert len([line for line in source.splitlines() if not line.startswith("#|")]) <= 40, where
    assert len(cells(path, "code")) + len(cells(path, "markdown")) <= 50


@pytest.mark.parametrize("path", sorted((NBS.parent / "minicoil").rglob("[a-z]*.py")), ids=lambda p: p.stem)
def test_a_function_is_short(path):
    """No exported function has more than 40 lines."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 40, f"{path.name}: {node.name}"
