"""A model goes to a hub and comes back, through the hub's own library, against a hub of this machine."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from hub_stub import hub
from qdrant_fake import nobody

from minicoil import MiniCOIL
from minicoil.serving.factors import SMALL_FILE

LOAD = """
import sys
from minicoil import MiniCOIL
model = MiniCOIL.load("someone/model", revision=sys.argv[1] or None, token="secret-of-ours")
print(model.revision, next(model.embed("A bat left its cave.")).values.tolist())
"""


@pytest.fixture
def there(tmp_path, monkeypatch):
    """A hub, and an environment in which the library talks to it."""
    with hub(tmp_path / "hub") as server:
        for name, value in {"HF_ENDPOINT": server.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1",
                            "HF_HUB_DOWNLOAD_TIMEOUT": "300", "HF_HOME": str(tmp_path / "home"),
                            "HF_TOKEN": "secret-of-ours",
                            "MINICOIL_CACHE": str(tmp_path / "cache"), "NO_PROXY": "127.0.0.1"}.items():
            monkeypatch.setenv(name, value)
        yield server


def push(model_folder, *options):
    """`minicoil push` of the run's model."""
    command = [str(Path(sys.executable).with_name("minicoil")), "push", "someone/model", "--reduce"]
    command += ["--model", str(model_folder), *options]
    return subprocess.run(command, capture_output=True, text=True)


def load(revision=""):
    """Load the model from the hub in a new process."""
    return subprocess.run([sys.executable, "-c", LOAD, revision], capture_output=True, text=True)


def test_there_and_back(there, model_folder, tmp_path):
    """What comes back gives the vectors of the small form, by its branch and by its commit."""
    done = push(model_folder, "--private", "--dataset", "wikimedia/wikipedia")
    assert done.returncode == 0, done.stderr
    commit = there.newest["someone/model"]
    assert commit in done.stdout
    asked = there.created[0]
    assert asked.get("private") or asked.get("visibility") == "private"
    assert set(there.tokens) == {"Bearer secret-of-ours"}
    MiniCOIL.load(model_folder).save(tmp_path / "small", form="small", reduce=True)
    expected = next(MiniCOIL.load(tmp_path / "small").embed("A bat left its cave.")).values
    for revision in ("", "main", commit):
        back = load(revision)
        assert back.returncode == 0, back.stderr
        said, values = back.stdout.split(maxsplit=1)
        assert said == commit
        assert np.allclose(eval(values), expected, atol=1e-5)


def test_what_is_sent(there, model_folder):
    """Data alone: no code and no pickle; and the head of the card is what the hub reads."""
    assert push(model_folder, "--dataset", "wikimedia/wikipedia").returncode == 0
    folder = there.root / "someone/model" / there.newest["someone/model"]
    files = {file.name for file in folder.rglob("*") if file.is_file()}
    assert SMALL_FILE in files
    assert {Path(name).suffix for name in files} <= {".json", ".md", ".txt", ".vocab", ".safetensors"}
    head = yaml.safe_load((folder / "README.md").read_text().split("---")[1])
    assert head["license"] == "apache-2.0"
    assert head["datasets"] == ["wikimedia/wikipedia"]
    assert head["library_name"] == "minicoil"
    assert head["base_model"]


def test_a_hub_that_refuses(there, model_folder):
    """One line, exit code 2, for a hub that refuses, that has no such revision, or that is down."""
    there.refuses = True
    done = push(model_folder)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
    command = [str(Path(sys.executable).with_name("minicoil")), "embed", "--model", "someone/model"]
    done = subprocess.run(command, input="bat\n", capture_output=True, text=True)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
    assert "someone/model" in done.stderr
    with nobody() as dead:
        env = {**os.environ, "HF_ENDPOINT": dead}
        done = subprocess.run(command, input="bat\n", capture_output=True, text=True, env=env)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
    assert not list((there.root).glob("*/*/*"))


def test_a_branch_of_its_own(there, model_folder):
    """A branch is made if it is not there, so that a new repository is not left empty."""
    done = push(model_folder, "--revision", "try/of-ours")
    assert done.returncode == 0, done.stderr
    assert there.branches == ["try/of-ours"]


@pytest.mark.parametrize("options", [("--revision", ""), ("--revision", "a b"), ("--revision", "-"),
                                     ("--revision", "0" * 40), ("--dataset", ""), ("--dataset", "a/b/c")])
def test_a_name_that_the_hub_cannot_have(there, model_folder, options):
    """A branch or data set with an impossible name is refused before a repository is made."""
    done = push(model_folder, *options)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
    assert options[0].strip("-") in done.stderr
    assert there.created == []
