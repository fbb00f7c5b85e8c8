"""The first page: every command and call in it works as it stands there, and its picture of the house shows
every stage."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from calls import call
from conftest import minicoil
from homes import make_home

from minicoil.runs.run import STAGES

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    """The code blocks of a language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


LINES = [line.split("#")[0].strip() for block in blocks("sh") for line in block.splitlines() if line.strip()]
COMMANDS = [line for line in LINES if line.startswith("minicoil ")]


@pytest.fixture(scope="module")
def home(run_folder, tmp_path_factory):
    """A folder with what the page's commands speak of: outputs/demo, and texts of one's own."""
    return make_home(tmp_path_factory.mktemp("home"), run_folder)


def test_every_line_of_shell_is_known():
    """Lines that are no `minicoil` command are targets of the Makefile, or install the package."""
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    others = [line for line in LINES if line not in COMMANDS]
    made = [line.split()[1] for line in others if line.startswith("make ")]
    assert COMMANDS
    assert made
    assert set(made) <= targets
    assert [line for line in others if not line.startswith("make ")] == ["pip install minicoil"]


TRAINS = re.compile(r"minicoil run\b")


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(line, marks=pytest.mark.slow) if TRAINS.match(line) else line
        for line in COMMANDS
        if " explore " not in line
    ],
)
def test_command(home, line):
    """The command ends well, without a traceback."""
    done = call(home, *shlex.split(line)[1:])
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr


def test_the_first_answer(home):
    """The first command of the page prints the answer below it, to the second decimal."""
    line, answer = COMMANDS[0], re.search(r"```\n\n```\n(.*?)```", README, flags=re.S)[1]
    done = minicoil(*shlex.split(line)[1:], cwd=home, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    number = re.compile(r"[+-]?\d+\.\d\d")
    assert number.sub("#", done.stdout) == number.sub("#", answer)
    printed, shown = ([float(n) for n in number.findall(text)] for text in (done.stdout, answer))
    assert printed == pytest.approx(shown, abs=0.02)


def test_explore(home):
    """`minicoil explore` answers at the address it prints."""
    (line,) = [line for line in COMMANDS if " explore " in line]
    served = subprocess.Popen(
        [str(Path(sys.executable).with_name("minicoil")), *shlex.split(line)[1:], "--port", "0"],
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        address = next(
            m[0] for m in (re.search(r"http://[\w.]+:\d+\S*", line) for line in served.stdout) if m
        )
        assert b"<html" in urllib.request.urlopen(address, timeout=300).read().lower()
    finally:
        served.kill()
        served.wait()


def test_calls(home, monkeypatch):
    """The Python of the page runs, and does what its comments say."""
    monkeypatch.chdir(home)
    names = {}
    for block in blocks("python"):
        if "import" in block:
            exec(block, names)
    assert len(names["vector"].indices) == len(names["vector"].values) > 0 and len(names["query"].indices) > 0


def test_the_house():
    """The figure of the data's way has every stage, and each reads only earlier ones."""
    sys.path.insert(0, str(ROOT / "docs"))
    from gallery import HOUSE

    order = list(STAGES)
    assert list(HOUSE) == order
    assert all(
        order.index(source) < order.index(stage) for stage, (*_, reads) in HOUSE.items() for source in reads
    )


@pytest.mark.parametrize("index", ["", "https://example.org/cpu"])
def test_torch_from_an_index_of_ones_own(tmp_path, index):
    """Before torch is downloaded, make says how large it may be, or from which index it comes."""
    for name in ("Makefile", "settings.ini", "setup.py", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    command = ["make", "-n", "run", *([f"TORCH_INDEX={index}"] if index else [])]
    printed = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    lines = printed.splitlines()
    at = next(i for i, line in enumerate(lines) if line.endswith(" torch"))
    said = lines[at - 1]
    assert said.startswith("echo ")
    assert (f"--no-deps --index-url {index}" in lines[at]) == bool(index)
    assert index in said if index else "gigabytes; make run TORCH_INDEX=URL" in said


def test_it_is_short():
    """The first page has fewer than 150 lines."""
    assert len(README.splitlines()) < 150
