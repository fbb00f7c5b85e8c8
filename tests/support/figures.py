"""How the code reads, in figures:  python tests/support/figures.py [ROOT]

Lines over 110 and 120 characters, the size of exported cells and of functions, how many functions have types,
asserts that check several things at once, and how many modules lie outside a package."""

import ast
import json
import re
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WIDEST = 110


def modules(root=ROOT):
    """The modules of the package that notebooks export, in order."""
    return sorted((root / "minicoil").rglob("[a-z]*.py"))


def written(path):
    """The lines of a module without its `__all__`, which nbdev writes in lines of its own width."""
    source = path.read_text(encoding="utf-8")
    return re.sub(r"^__all__ = \[.*?\]\n", "", source, flags=re.M | re.S).splitlines()


def code_cells(notebook):
    """The code cells of a notebook as text."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def lines_of(cell):
    """The lines of a cell that are code, without nbdev's directives."""
    return [line for line in cell.splitlines() if not line.startswith("#|")]


def exported_cells(root=ROOT):
    """All exported cells of the book, each as a list of lines."""
    cells = [cell for path in sorted((root / "nbs").glob("[0-9]*.ipynb")) for cell in code_cells(path)]
    return [lines_of(cell) for cell in cells if cell.startswith("#| export")]


def functions(path):
    """Every function of a module, methods included."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def public_functions(path):
    """The functions and methods of a module whose names do not begin with an underscore."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bodies = [tree.body, *(node.body for node in tree.body if isinstance(node, ast.ClassDef))]
    found = [node for body in bodies for node in body if isinstance(node, ast.FunctionDef)]
    return [node for node in found if not node.name.startswith("_")]


def is_typed(function):
    """True when every parameter and the returned value have a type; `self` and `cls` need none."""
    given = function.args
    parameters = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    parameters += [p for p in (given.vararg, given.kwarg) if p]
    needed = [p for p in parameters if p.arg not in ("self", "cls")]
    return function.returns is not None and all(p.annotation is not None for p in needed)


def checks_several(assertion):
    """True for an assert with two or more `and`."""
    joined = [node for node in ast.walk(assertion) if isinstance(node, ast.BoolOp)]
    return sum(len(node.values) - 1 for node in joined if isinstance(node.op, ast.And)) >= 2


def assertions(source):
    """The assert statements of a piece of code; what is no Python, such as a magic, counts as none."""
    try:
        return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assert)]
    except SyntaxError:
        return []


def percent(part, whole):
    """A share as text."""
    return f"{100 * part / max(whole, 1):.1f} %"


def figures(root=ROOT):
    """{what: figure} of a checkout."""
    paths = modules(root)
    lines = [line for path in paths for line in written(path)]
    sizes = sorted(f.end_lineno - f.lineno + 1 for path in paths for f in functions(path))
    public = [f for path in paths for f in public_functions(path)]
    cells = [len(cell) for cell in exported_cells(root)]
    notebooks = sorted((root / "nbs").glob("*.ipynb"))
    checks = [a for path in notebooks for cell in code_cells(path) for a in assertions(cell)]
    flat = [path for path in paths if path.parent.name == "minicoil"]
    return {
        "modules outside a package": len(flat),
        "lines over 110 characters": percent(sum(len(line) > WIDEST for line in lines), len(lines)),
        "lines over 120 characters": percent(sum(len(line) > 120 for line in lines), len(lines)),
        "lines of a function, median": statistics.median(sizes),
        "lines of a function, 90 of 100 below": sizes[int(0.9 * len(sizes))],
        "public functions with types": percent(sum(map(is_typed, public)), len(public)),
        "exported cells": len(cells),
        "lines of an exported cell, median": statistics.median(cells),
        "asserts in notebooks": len(checks),
        "… with two or more `and`": sum(map(checks_several, checks)),
    }


def main():
    """Print the figures of a checkout."""
    for what, figure in figures(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT).items():
        print(f"{what:40} {figure}")


if __name__ == "__main__":
    main()
