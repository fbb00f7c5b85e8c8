"""One minute after `pip install`: a new environment, outside of the repository, that has the wheel alone."""

import configparser
import re

import numpy as np
import pytest
from fresh import ROOT, WEIGHTS, Fresh, build, needed_by, write_notes

from minicoil import MiniCOIL

TEXTS = ["A bat left its cave at dusk.", "He swung the bat.", "The bank raised its rates.", "zzyzx", ""]
MEANT = {
    "numpy",
    "onnxruntime",
    "tokenizers",
    "py-rust-stemmers",
    "mmh3",
    "typer",
    "tqdm",
    "platformdirs",
    "safetensors",
    "huggingface-hub",
}
HEAVY = {"torch", "sentence-transformers", "transformers", "pyarrow", "qdrant-client", "psutil", "jinja2"}
VECTORS = f"""
import numpy as np
from minicoil import MiniCOIL
model = MiniCOIL.load()
model.save("full", form="full")
vectors = list(model.embed({TEXTS!r}))
np.savez("vectors.npz", **{{f"{{name}}{{i}}": getattr(v, name) for i, v in enumerate(vectors)
                           for name in ("indices", "values")}})
"""


def test_the_light_install_is_what_was_meant():
    """settings.ini asks for these ten packages to serve, and for no other."""
    config = configparser.ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    asked = re.findall(r"(\S+?)>=", config["DEFAULT"]["requirements"])
    assert {name.lower().replace("_", "-") for name in asked} == MEANT


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """(environment, files that are handed out, the two installs)."""
    folder = tmp_path_factory.mktemp("fresh")
    built, found = build(folder), Fresh(folder / "machine")
    assert not folder.is_relative_to(ROOT)
    write_notes(found.home / "notes", 1000)
    installs = found.install(built.wheel)
    assert [done.returncode for done in installs] == [0, 0], installs[0].stderr + installs[1].stderr
    print(f"install {[done.cost for done in installs]}")
    return found, built


@pytest.mark.slow
def test_what_is_installed(fresh):
    """The light dependencies and what they need themselves, and nothing that trains or stores."""
    there = fresh[0].packages()
    assert not there & HEAVY
    assert there - {"pip", "setuptools", "wheel", WEIGHTS} == needed_by(fresh[0], "minicoil")


@pytest.mark.slow
def test_sizes(fresh):
    """The wheel has 25 MB at most, and the source package is not larger than twice that."""
    sizes = {file.name: file.stat().st_size / 1e6 for file in (fresh[1].wheel, fresh[1].source)}
    print(sizes)
    assert sizes[fresh[1].wheel.name] <= 25
    assert sizes[fresh[1].source.name] <= 50


@pytest.mark.slow
def test_first_and_second_search(fresh):
    """The first answer over 1,000 files, and the same again from the kept index, within 600 · 2²⁰ bytes."""
    asked = ("minicoil", "search", "bats in a cave", "--documents", "notes/", "--limit", "3")
    first, second = fresh[0].run(*asked), fresh[0].run(*asked)
    print(first.cost, second.cost, first.stdout)
    assert (first.returncode, second.returncode, second.stderr) == (0, 0, ""), first.stderr + second.stderr
    assert first.stdout == second.stdout
    assert re.match(r"1\. \d", first.stdout)
    assert "meaning" in first.stdout
    assert first.cpu <= 60
    assert second.cpu <= 2
    assert max(first.memory, second.memory) <= 600
    kept = [file for file in fresh[0].home.rglob("*") if file.name == "inverted.json"]
    assert len(kept) == 1


@pytest.mark.slow
def test_python_and_fastembed(fresh):
    """`MiniCOIL.load()` embeds, and FastEmbed, in another environment, opens what it saved."""
    from fastembed import SparseTextEmbedding

    done = fresh[0].run("python", "-c", VECTORS)
    assert (done.returncode, done.stderr) == (0, "")
    theirs = SparseTextEmbedding("Qdrant/minicoil-v1", specific_model_path=str(fresh[0].home / "full"))
    ours = MiniCOIL.load(fresh[0].home / "full")
    with np.load(fresh[0].home / "vectors.npz") as light:
        for i, (one, other) in enumerate(zip(theirs.embed(TEXTS), ours.embed(TEXTS), strict=True)):
            assert np.array_equal(np.sort(light[f"indices{i}"]), np.sort(one.indices))
            assert np.allclose(np.sort(light[f"values{i}"]), np.sort(one.values), atol=1e-4)
            assert np.allclose(light[f"values{i}"], other.values, atol=1e-5)


@pytest.mark.slow
def test_nothing_is_written_beside_the_cache(fresh):
    """A search leaves files in the user's cache alone, and the package as it was."""
    files = {str(file.relative_to(fresh[0].home)) for file in fresh[0].home.rglob("*") if file.is_file()}
    ours = (".cache/", "notes/", "full/", "vectors.npz", ".rustup/")  # pip asks rustc for its version
    assert not {name for name in files if not name.startswith(ours)}
