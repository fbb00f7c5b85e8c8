"""Where the system is not Linux: a model serves without fcntl, resource, pwd and sched_getaffinity."""

import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import numpy as np
import pytest
import yaml

from minicoil import MiniCOIL

ROOT = Path(__file__).resolve().parents[1]
TEXTS = ["A bat left its cave.", "He swung the bat at 757 balls.", ""]
HIDE = """
import os, sys
for name in ("fcntl", "resource", "pwd"):
    sys.modules[name] = None   # an import of it fails
for name in ("sched_getaffinity", "getuid", "sync"):
    if hasattr(os, name):
        delattr(os, name)
opened = os.open
def open_file(path, *rest, **more):
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", str(path))   # Windows opens no folder
    return opened(path, *rest, **more)
os.open = open_file
"""
EMBED = """
import numpy as np
from minicoil import MiniCOIL
model = MiniCOIL.load(sys.argv[1])
texts = sys.argv[3:]
vectors = model.embed(texts, windows=True)
np.savez(sys.argv[2], *[vector.values for vector in vectors])
"""


def hidden(program, *arguments):
    """A program's process, in which what only Linux has is missing."""
    command = [sys.executable, "-c", HIDE + program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_hiding_hides():
    """What is hidden cannot be imported or called: the tests below would notice who needs it."""
    for line in ("import fcntl", "import resource", "import pwd", "os.sched_getaffinity(0)", "os.getuid()"):
        assert hidden(line).returncode == 1, line


def test_every_module_is_imported():
    """Every module of the package that needs none of the hidden ones by its nature is imported."""
    program = """
import importlib, pkgutil, minicoil
for package in ("runs", "text", "serving", "commands"):
    folder = importlib.import_module(f"minicoil.{package}")
    for found in pkgutil.iter_modules(folder.__path__):
        if found.name != "sparse_encoder":   # sentence-transformers', which is loaded when asked for
            importlib.import_module(f"minicoil.{package}.{found.name}")
print("imported")
"""
    done = hidden(program)
    assert done.stdout == "imported\n", done.stderr


def test_a_model_embeds(model_folder, tmp_path):
    """The vectors are the same as on Linux."""
    done = hidden(EMBED, model_folder, tmp_path / "vectors.npz", *TEXTS)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "vectors.npz")
    expected = list(MiniCOIL.load(model_folder).embed(TEXTS, windows=True))
    assert len(found.files) == len(TEXTS)
    for name, vector in zip(found.files, expected):
        assert np.abs(found[name] - vector.values).max(initial=0) < 1e-6


COMMAND = "from minicoil.commands.pipeline import main\nmain(sys.argv[1:])\n"


def test_the_command_embeds(model_folder, tmp_path):
    """`minicoil embed` writes a file."""
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS[:2]) + "\n")
    out = tmp_path / "vectors.jsonl"
    done = hidden(COMMAND, "embed", "--model", model_folder, "--out", out, tmp_path / "texts.txt")
    assert done.returncode == 0, done.stderr
    assert len(out.read_text().splitlines()) == 2


@pytest.mark.parametrize("end", [[], ["--until", "corpus"]])
def test_training_says_that_it_needs_linux(tmp_path, end):
    """`minicoil run` is refused in one line, with exit code 2, and leaves no stage half done."""
    done = hidden(COMMAND, "run", "--words", "bat", "--out", tmp_path / "run", *end)
    assert done.returncode == 2, done.stderr
    assert "train on Linux" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "run").glob("[0-9]*"))


def test_the_python_versions_agree():
    """What the package says it runs on is what CI tests, from the least version on."""
    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    versions = config["DEFAULT"]["python_versions"].split()
    (workflow,) = (ROOT / ".github" / "workflows").glob("*.yml")
    jobs = yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"]
    assert jobs["test"]["strategy"]["matrix"]["python-version"] == versions
    assert versions[0] == config["DEFAULT"]["min_python"]
    command = [sys.executable, "setup.py", "--quiet", "--classifiers"]
    said = subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout.split("\n")
    assert {f"Programming Language :: Python :: {version}" for version in versions} <= set(said)
