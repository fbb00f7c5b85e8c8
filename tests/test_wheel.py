"""What is handed out: a source package, and a wheel made of it that works where the repository is not."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def call(*command, **options):
    """Run a command; its output is the message if it fails."""
    done = subprocess.run(
        [str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from the source package of what git knows, as somebody would who has only that."""
    folder = tmp_path_factory.mktemp("dist")
    call("git", "clone", "--quiet", ROOT, folder / "clone")
    call(sys.executable, "setup.py", "--quiet", "sdist", "--dist-dir", folder / "dist", cwd=folder / "clone")
    (source,) = (folder / "dist").glob("*.tar.gz")
    call(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        folder / "dist",
        source,
        cwd=folder,
    )
    return next((folder / "dist").glob("*.whl"))


def test_the_wheel_has_notebooks_and_data(wheel):
    """The stages' notebooks, the bundled sentences and their judgements are in the wheel; no test is."""
    names = zipfile.ZipFile(wheel).namelist()
    assert {
        "minicoil/notebooks/10_corpus.ipynb",
        "minicoil/data/sentences.jsonl",
        "minicoil/data/beir/qrels/test.tsv",
        "minicoil/data/LICENSE",
    } <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "docs/", "results/"))]


def test_the_wheel_holds_every_package(wheel):
    """Every package is in the wheel with all its modules, and so are the mark of types and the data."""
    names = set(zipfile.ZipFile(wheel).namelist())
    known = call("git", "ls-files", "minicoil", cwd=ROOT).split()
    packages = {str(Path(name).parent) for name in known if name.endswith("/__init__.py")}
    assert len(packages) >= 9
    assert {f"{package}/__init__.py" for package in packages} <= names
    assert {name for name in known if name.endswith(".py")} <= names
    assert "minicoil/py.typed" in names
    assert {name for name in known if name.startswith("minicoil/data/")} <= names


def test_the_wheel_holds_every_chapter_of_the_chain(wheel):
    """Every numbered notebook is in the wheel: `minicoil run` executes the stages among them."""
    names = set(zipfile.ZipFile(wheel).namelist())
    chapters = [Path(name).name for name in call("git", "ls-files", "nbs/[0-9]*.ipynb", cwd=ROOT).split()]
    assert len(chapters) > 30
    assert {f"minicoil/notebooks/{name}" for name in chapters} <= names


@pytest.mark.slow
def test_a_run_from_the_wheel(wheel, tmp_path):
    """Installed into an empty environment, far from the repository, `minicoil run` trains on the bundle."""
    venv.create(tmp_path / "env", with_pip=True)
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    python = tmp_path / "env" / "bin" / "python"
    call(python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", "torch", env=env)
    call(
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "-c",
        ROOT / "constraints.txt",
        f"{wheel}[train,demo]",
        env=env,
    )
    (tmp_path / "empty").mkdir()
    done = call(
        python.with_name("minicoil"),
        "run",
        "--words",
        "bat,bank",
        "--pictures",
        1,
        "--out",
        "demo",
        cwd=tmp_path / "empty",
        env=env,
    )
    assert (tmp_path / "empty" / "demo" / "23_model" / "minicoil.json").exists()
    assert "the model" in done
