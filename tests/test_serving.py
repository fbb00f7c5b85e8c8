"""A finished model directory serves: in FastEmbed as in `MiniCOIL`, light, in order, and in full view."""
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from minicoil.corpus import bundled_sentences
from minicoil.export import probe_texts
from minicoil.model import WINDOW, MiniCOIL

HEAVY = ("torch", "umap", "qdrant_client", "qdrant_edge", "papermill", "sentence_transformers", "transformers", "matplotlib")
TRAINING_ONLY = (*HEAVY, "onnx", "safetensors", "pyarrow", "zstandard", "sentencex", "bm25s", "datasets", "scipy", "sklearn", "igraph",
                 "ipykernel", "nbformat", "plotly", "psutil", "threadpoolctl", "fastembed", "ir_measures", "fastcore", "nbdev")


def python(program, *arguments, given=""):
    """What a program prints in a fresh, offline Python process."""
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", program, *map(str, arguments)], input=given, capture_output=True, text=True, env=offline)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def model(model_folder):
    return MiniCOIL.load(model_folder)


@pytest.fixture(scope="module")
def texts():
    """300 texts, short ones first: FastEmbed pads every batch to its longest text."""
    return sorted(probe_texts(), key=len)


@pytest.fixture(scope="module")
def documents(model, texts):
    return list(model.embed(texts))


@pytest.fixture(scope="module")
def queries(model, texts):
    return list(model.query_embed(texts))


def compare(ours, theirs):
    """Both lists hold the same sparse vectors: the same indexes, and values within 1e-5."""
    ours, theirs = list(ours), list(theirs)
    assert len(ours) == len(theirs)
    for i, (a, b) in enumerate(zip(ours, theirs)):
        a, b = (dict(zip(v.indices.tolist(), v.values.tolist())) for v in (a, b))
        assert a.keys() == b.keys(), f"text {i}"
        assert max((abs(a[key] - b[key]) for key in a), default=0) <= 1e-5, f"text {i}"


FASTEMBED = """
import json, sys
from fastembed import SparseTextEmbedding
model, texts = SparseTextEmbedding("Qdrant/minicoil-v1", specific_model_path=sys.argv[1]), json.load(sys.stdin)
for vectors in (model.embed(texts, batch_size=16), model.query_embed(texts)):
    print(json.dumps([[v.indices.tolist(), v.values.tolist()] for v in vectors]))
assert "minicoil" not in sys.modules
"""


class Vector:
    """Indexes and values as lists read from JSON, as arrays."""
    def __init__(self, indices, values):
        self.indices, self.values = np.array(indices, np.int64), np.array(values)


@pytest.fixture(scope="module")
def fastembed(model_folder, texts):
    """(documents, queries): FastEmbed's vectors of the texts, in its own process, offline."""
    pytest.importorskip("fastembed")
    documents, queries = python(FASTEMBED, model_folder, given=json.dumps(texts)).splitlines()
    return [[Vector(*v) for v in json.loads(line)] for line in (documents, queries)]


def test_probe_texts(model, texts, queries):
    """The texts that are compared are at least 300, and many of them have known words, unknown words, both; some have none."""
    known = [bool((v.indices < model.shift).any()) for v in queries]
    unknown = [bool((v.indices >= model.shift).any()) for v in queries]
    assert len(texts) >= 300
    assert sum(known) >= 40 and sum(unknown) >= 200 and sum(a and b for a, b in zip(known, unknown)) >= 40
    assert sum(not a and not b for a, b in zip(known, unknown)) >= 3


def test_fastembed_documents(documents, fastembed):
    """FastEmbed, unmodified and offline, loads the directory and gives documents the same vectors."""
    compare(documents, fastembed[0])


def test_fastembed_queries(queries, fastembed):
    """FastEmbed gives queries the same vectors."""
    compare(queries, fastembed[1])


LOADED = "\nimport json, sys\nprint(json.dumps([m for m in %r if m in sys.modules]))" % (HEAVY,)
EMBED = """
import sys
from minicoil.model import MiniCOIL
model = MiniCOIL.load(sys.argv[1])
assert len(list(model.embed(["a bat in a cave"]))[0].indices)
assert len(list(model.query_embed(["bat"]))[0].indices)
assert model.explain("a bat", "the bats")
"""


@pytest.mark.parametrize("program", ["import minicoil", "from minicoil import MiniCOIL", EMBED], ids=["package", "class", "embed"])
def test_light(model_folder, program):
    """Importing the package or the class, and embedding in a fresh process, loads nothing heavy."""
    assert json.loads(python(program + LOADED, model_folder)) == []


def test_light_where_training_is_not_installed(model_folder):
    """Serving works where no package is installed that only training needs."""
    python(f"import sys\nsys.modules.update(dict.fromkeys({TRAINING_ONLY!r}))" + EMBED, model_folder)


def test_same_class():
    """`from minicoil import MiniCOIL` is the class of minicoil.model."""
    from minicoil import MiniCOIL as lazy
    assert lazy is MiniCOIL


def test_order_in_parallel(model, texts, documents):
    """With two processes, and more windows than wait at a time (four), the vectors come in the order of the texts."""
    mixed = np.random.default_rng(0).permutation(len(texts))
    assert len(mixed) > 6 * WINDOW
    compare(model.embed([texts[i] for i in mixed], batch_size=1, parallel=2), [documents[i] for i in mixed])


@pytest.mark.parametrize("batch_size", [1, 7, 32])
def test_batch_size(model, texts, documents, batch_size):
    """The batch a text stands in does not change its vector."""
    some = range(0, len(texts), 3)
    compare(model.embed([texts[i] for i in some], batch_size=batch_size), [documents[i] for i in some])


def test_one_text(model):
    """A bare text is one text, not a list of letters."""
    compare(model.embed("a bat in a cave"), model.embed(["a bat in a cave"]))


@pytest.fixture(scope="module")
def pairs(model):
    """(query, text) pairs that share a known word of the model, an unknown one, several, or nothing."""
    known = [row["sentence"] for row in bundled_sentences() if row["word"] in model.words][:12]
    return [*zip(known, known[::-1]), *zip(known, known), ("bats in caves", "the bat's cave, a cave of bats"), ("bat", "river"), ("", "bat"), ("bat", "")]


def dot(a, b):
    """Dot product of two sparse vectors."""
    b = b.as_dict()
    return sum(value * b.get(index, 0.0) for index, value in a.as_dict().items())


def test_explain_adds_up(model, pairs):
    """The contributions of the shared words add up to the product of the two sparse vectors."""
    several = 0
    for query, text in pairs:
        rows, product = model.explain(query, text), dot(next(model.query_embed(query)), next(model.embed(text)))
        assert sum(row["contribution"] for row in rows) == pytest.approx(product, abs=1e-4), (query, text)
        assert all(row["contribution"] == pytest.approx(row["bm25"] * row["similarity"]) for row in rows)
        several += len(rows) > 1
    assert several >= 12


def test_explain_with_idf(model):
    """An IDF multiplies its word's contribution, the others' stay."""
    plain, weighted = ({row["word"]: row["contribution"] for row in model.explain("bats in caves", "a bat cave", idf)} for idf in (None, {"bat": 3.0}))
    assert weighted == pytest.approx({word: value * (3 if word == "bat" else 1) for word, value in plain.items()})
    assert {"bat", "cave"} <= set(plain)


def test_explain_nothing(model):
    """Texts that share no word have nothing to explain."""
    assert model.explain("bat", "river") == []


def test_no_pickle(model_folder):
    """The model directory holds JSON, text, npy, ONNX and safetensors only, and no array of objects."""
    files = [f for f in model_folder.rglob("*") if f.is_file()]
    assert {f.suffix for f in files} <= {".json", ".md", ".txt", ".npy", ".onnx", ".vocab", ".safetensors"}
    for f in files:
        head = f.read_bytes()[:4]
        assert not head.startswith((b"\x80", b"PK", b"cos\n")), f"{f} begins like a pickle or a zip"
        if f.suffix in (".json", ".vocab"):
            json.loads(f.read_text(encoding="utf-8"))
        elif f.suffix == ".npy":
            assert np.load(f, allow_pickle=False).dtype == np.float32
        elif f.suffix in (".md", ".txt"):
            f.read_text(encoding="utf-8")
