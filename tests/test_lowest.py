"""Lower bounds are promises: a model is served with the lowest versions that settings.ini allows."""

import configparser
import json
import os
import re
import subprocess
import venv
from pathlib import Path

import numpy as np
import pytest
from conftest import minicoil

from minicoil.serving.graph import packaged_weights

ROOT = Path(__file__).resolve().parents[1]
LOWEST = ROOT / "tests" / "lowest.txt"
TEXTS = "A bat left its cave.\nThe bank raised its rates in 1998.\n\nbats, banks and zzyzx\n"
REFUSED = [
    ["nonsense"],
    ["embed", "--nonsense"],
    ["embed", "--model", "nowhere", "x.txt"],
    ["embed", "x.txt"],
    ["search", "--model", "nowhere"],
    ["run", "--dim", "x"],
]
OFFERED = ["run", "embed", "search", "explore", "add-words", "benchmark", "benchmark senses"]


def bounds():
    """{package: lowest version} of settings.ini's requirements for serving."""
    config = configparser.ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    return dict(part.split(">=") for part in config["DEFAULT"]["requirements"].split())


def pins():
    """{package: version} of lowest.txt."""
    return dict(re.findall(r"(?m)^([\w-]+)==(\S+)$", LOWEST.read_text(encoding="utf-8")))


def test_the_lowest_versions_are_pinned():
    """lowest.txt pins the first version of every lower bound in settings.ini, and nothing else."""
    assert list(pins()) == list(bounds())
    for package, bound in bounds().items():
        assert re.fullmatch(rf"{re.escape(bound)}(\.0)?", pins()[package]), package


@pytest.fixture(scope="module")
def lowest(tmp_path_factory):
    """Run the command of an environment with the lowest versions and nothing to train with."""
    folder = tmp_path_factory.mktemp("lowest")
    venv.create(folder / "env", with_pip=True)
    python = folder / "env" / "bin" / "python"
    done = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "-r", LOWEST], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}

    def run(*arguments, **options):
        command = [python, "-c", "from minicoil.commands.pipeline import main; main()", *map(str, arguments)]
        given = {**env, **options.pop("env", {})}
        return subprocess.run(command, capture_output=True, text=True, env=given, cwd=folder, **options)

    return run


@pytest.mark.slow
@pytest.mark.parametrize("command", OFFERED)
def test_help_with_the_lowest_versions(lowest, command):
    """Every command can say what it does."""
    done = lowest(*command.split(), "--help")
    assert done.returncode == 0, done.stderr[-1000:]
    assert "--help" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("given", REFUSED, ids=" ".join)
def test_refusals_with_the_lowest_versions(lowest, given):
    """What cannot be done is one line and exit code 2."""
    done = lowest(*given)
    assert done.returncode == 2, done.stderr[-1000:]
    assert done.stderr.startswith("minicoil: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "int8_head"])
def test_embed_with_the_lowest_versions(lowest, model_folder, tmp_path, precision):
    """The lowest versions give the vectors that the newest give."""
    file = tmp_path / "texts.txt"
    file.write_text(TEXTS, encoding="utf-8")
    given = ["embed", "--model", model_folder, "--precision", precision, file]
    old, new = lowest(*given), minicoil(*given)
    assert old.returncode == 0, old.stderr[-1000:]
    rows = [[json.loads(line) for line in done.stdout.splitlines()] for done in (old, new)]
    assert len(rows[0]) == len(rows[1]) == TEXTS.count("\n")
    for a, b in zip(*rows):
        assert a["indices"] == b["indices"]
        assert np.allclose(a["values"], b["values"], atol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(packaged_weights() is None, reason="the transformer's package is not installed")
def test_the_shipped_model_with_the_lowest_versions(lowest, tmp_path):
    """`english` embeds and searches: the graph without weights, the small form and the kept index."""
    file, cache = tmp_path / "texts.txt", tmp_path / "cache"
    file.write_text(TEXTS, encoding="utf-8")
    env = {"MINICOIL_TRANSFORMER": str(packaged_weights().parent), "MINICOIL_CACHE": str(cache)}
    old, new = lowest("embed", file, env=env), minicoil("embed", file)
    assert (old.returncode, old.stderr) == (0, "")
    for one, other in zip(old.stdout.splitlines(), new.stdout.splitlines(), strict=True):
        a, b = json.loads(one), json.loads(other)
        assert a["indices"] == b["indices"]
        assert np.allclose(a["values"], b["values"], atol=1e-4)
    asked = ("search", "--documents", file, "a bat in a cave")
    first, second = lowest(*asked, env=env), lowest(*asked, env=env)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr
    assert first.stdout == second.stdout == minicoil(*asked).stdout
