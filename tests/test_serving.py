"""A finished model directory serves: in FastEmbed as in `MiniCOIL`, light, in order, and in full view."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minicoil.runs.files import load_json
from minicoil.runs.run import open_run
from minicoil.serving.batches import forward
from minicoil.serving.blocks import BLOCK
from minicoil.serving.serving import MiniCOIL
from minicoil.serving.sparse import Reading, encode_words, head_arrays
from minicoil.stages.export import probe_texts
from minicoil.text.readers import bundled_sentences

HEAVY = (
    "torch",
    "umap",
    "qdrant_client",
    "qdrant_edge",
    "papermill",
    "sentence_transformers",
    "transformers",
    "matplotlib",
)
TRAINING_ONLY = (
    *HEAVY,
    "onnx",
    "safetensors",
    "pyarrow",
    "sentencex",
    "bm25s",
    "datasets",
    "scipy",
    "sklearn",
    "igraph",
    "ipykernel",
    "nbformat",
    "plotly",
    "psutil",
    "threadpoolctl",
    "fastembed",
    "ir_measures",
    "fastcore",
    "nbdev",
)


def python(program, *arguments, given=""):
    """What a program prints in a fresh, offline Python process."""
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        input=given,
        capture_output=True,
        text=True,
        env=offline,
    )
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
model = SparseTextEmbedding("Qdrant/minicoil-v1", specific_model_path=sys.argv[1])
texts = json.load(sys.stdin)
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
    """The texts that are compared are at least 300, and many of them have known words, unknown words, both.

    Some have none.
    """
    known = [bool((v.indices < model.shift).any()) for v in queries]
    unknown = [bool((v.indices >= model.shift).any()) for v in queries]
    assert len(texts) >= 300
    assert sum(known) >= 40
    assert sum(unknown) >= 200
    assert sum(a and b for a, b in zip(known, unknown)) >= 40
    assert sum(not a and not b for a, b in zip(known, unknown)) >= 3


def test_fastembed_documents(documents, fastembed):
    """FastEmbed, unmodified and offline, loads the directory and gives documents the same vectors."""
    compare(documents, fastembed[0])


def test_fastembed_queries(queries, fastembed):
    """FastEmbed gives queries the same vectors."""
    compare(queries, fastembed[1])


LOADED = f"\nimport json, sys\nprint(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
EMBED = """
import sys
from minicoil.serving.serving import MiniCOIL
model = MiniCOIL.load(sys.argv[1])
assert len(list(model.embed(["a bat in a cave"]))[0].indices)
assert len(list(model.query_embed(["bat"]))[0].indices)
assert model.explain("a bat", "the bats")
"""


@pytest.mark.parametrize(
    "program", ["import minicoil", "from minicoil import MiniCOIL", EMBED], ids=["package", "class", "embed"]
)
def test_light(model_folder, program):
    """Importing the package or the class, and embedding in a fresh process, loads nothing heavy."""
    assert json.loads(python(program + LOADED, model_folder)) == []


def test_light_where_training_is_not_installed(model_folder):
    """Serving works where no package is installed that only training needs."""
    python(f"import sys\nsys.modules.update(dict.fromkeys({TRAINING_ONLY!r}))" + EMBED, model_folder)


def test_same_class():
    """`from minicoil import MiniCOIL` is the class of minicoil.serving.serving, which minicoil.stages.model
    knows too."""
    from minicoil import MiniCOIL as lazy
    from minicoil.stages.model import MiniCOIL as older

    assert lazy is MiniCOIL is older


def test_order_in_parallel(model, texts, documents):
    """With two processes, and more blocks than wait at a time (four), the vectors come in the order of the
    texts."""
    mixed = np.random.default_rng(0).permutation(len(texts))
    assert len(mixed) > 6 * BLOCK
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
    return [
        *zip(known, known[::-1]),
        *zip(known, known),
        ("bats in caves", "the bat's cave, a cave of bats"),
        ("bat", "river"),
        ("", "bat"),
        ("bat", ""),
    ]


def dot(a, b):
    """Dot product of two sparse vectors."""
    b = b.as_dict()
    return sum(value * b.get(index, 0.0) for index, value in a.as_dict().items())


def test_explain_adds_up(model, pairs):
    """The contributions of the shared words add up to the product of the two sparse vectors."""
    several = 0
    for query, text in pairs:
        rows, product = (
            model.explain(query, text),
            dot(next(model.query_embed(query)), next(model.embed(text))),
        )
        assert sum(row["contribution"] for row in rows) == pytest.approx(product, abs=1e-4), (query, text)
        assert all(row["contribution"] == pytest.approx(row["bm25"] * row["similarity"]) for row in rows)
        several += len(rows) > 1
    assert several >= 12


def test_explain_with_idf(model):
    """An IDF multiplies its word's contribution, the others' stay."""
    plain, weighted = (
        {row["word"]: row["contribution"] for row in model.explain("bats in caves", "a bat cave", idf)}
        for idf in (None, {"bat": 3.0})
    )
    assert weighted == pytest.approx(
        {word: value * (3 if word == "bat" else 1) for word, value in plain.items()}
    )
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
            assert np.load(f, allow_pickle=False).dtype in (np.float32, np.int8)
        elif f.suffix in (".md", ".txt"):
            f.read_text(encoding="utf-8")


# One pass, streams


def test_both_in_one_pass(model, texts, documents):
    """`embed_both` gives sentence-transformers' dense embeddings, to 1e-4, and `embed`'s sparse ones."""
    from minicoil.text.transformer import load_transformer

    dense, sparse = model.embed_both(texts[::3])
    assert np.abs(dense - load_transformer(model.info["input_model"]).model.encode(texts[::3])).max() < 1e-4
    compare(sparse, documents[::3])


def test_endless_stream(model, documents, texts):
    """Texts are taken as they are needed.

    The first vectors of an endless stream come, one block is read for them.
    """
    taken = []
    endless = (taken.append(text) or text for text in itertools.cycle(texts[:40]))
    compare(itertools.islice(model.embed(endless, batch_size=2), 3), documents[:3])
    assert len(taken) == 2 * BLOCK


def test_memory_of_words_is_bounded(model):
    """What the reader remembers does not grow with the stream."""
    for n in range(40_000):
        model.read([1000 + n % 20_000, 2000 + n // 20_000, 5])
        model.read([1000 + n % 20_000] if n % 2 else [2000 + n % 20_000])
    known = model.read.remembered.cache_info()
    assert known.currsize <= known.maxsize <= 100_000
    assert len(model.vocabulary.known) < 100


def test_threads(model_folder, texts, documents):
    """Any number of threads gives the same vectors."""
    compare(MiniCOIL.load(model_folder, threads=1).embed(texts[::10]), documents[::10])


# The head as a graph, and int8


@pytest.mark.parametrize(
    "precision, file", [("float32", "minicoil_head.onnx"), ("int8_head", "minicoil_head_int8.onnx")]
)
def test_head_graph(model_folder, texts, precision, file):
    """The head's graph gives the word vectors that `encode_words` gives, to 1e-6, and none for a batch
    without known words."""
    import onnxruntime

    loaded, head = (
        MiniCOIL.load(model_folder, precision=precision),
        onnxruntime.InferenceSession(str(model_folder / file)),
    )
    rows = [e.ids for e in loaded.tokenizer.encode_batch(texts[60:160])]
    tokens, words = forward(loaded, rows)[0], 0
    for known in ([loaded.read(row) for row in rows], [Reading() for _ in rows]):
        ids, positions, sizes = head_arrays(known, tokens.shape[1])
        found = head.run(
            None,
            {
                "token_embeddings": tokens,
                "word_ids": ids,
                "positions": positions,
                "owners": np.repeat(np.arange(len(ids)), sizes),
            },
        )[0]
        expected = encode_words(tokens, known, loaded.weights)
        assert found.shape == expected.shape
        assert np.abs(found - expected).max(initial=0) < 1e-6
        words += len(ids)
    assert words > 20


@pytest.mark.parametrize("file", ["minicoil_head.onnx", "minicoil_head_int8.onnx"])
def test_head_graph_on_several_threads(model_folder, file):
    """A word with hundreds of tokens gets the same vector every time, however many threads add them up.

    ONNX Runtime's ScatterND would lose some.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 4
    head, rng = onnxruntime.InferenceSession(str(model_folder / file), options), np.random.default_rng(0)
    tokens, owners = rng.normal(size=(8, 256, 384)).astype(np.float32), np.repeat(np.arange(4), 500)
    feed = {
        "token_embeddings": tokens,
        "word_ids": np.ones(4, np.int64),
        "positions": np.arange(2000),
        "owners": owners,
    }
    found = [head.run(None, feed)[0] for _ in range(20)]
    assert all((again == found[0]).all() for again in found)
    assert np.isfinite(found[0]).all()


def test_head_graph_is_small(model_folder):
    """The head's graphs hold no weights: they point into the arrays beside them."""
    assert all(
        (model_folder / file).stat().st_size < 4000
        for file in ("minicoil_head.onnx", "minicoil_head_int8.onnx")
    )


@pytest.mark.parametrize("precision, least", [("int8_head", 0.9999), ("int8", 0.97)])
def test_int8(model, model_folder, texts, precision, least):
    """The int8 forms have the same indexes, and their word vectors point the same way."""
    small = MiniCOIL.load(model_folder, precision=precision)
    cosines = [
        float(a[w] @ b[w]) for a, b in zip(model.embed_words(texts), small.embed_words(texts)) for w in a
    ]
    assert len(cosines) > 40
    assert least < np.mean(cosines) < 1.00001
    assert all(
        np.array_equal(a.indices, b.indices) for a, b in zip(model.embed(texts[::5]), small.embed(texts[::5]))
    )


# sentence-transformers


@pytest.fixture(scope="module")
def encoder(model_folder):
    from minicoil import load_sparse_encoder

    return load_sparse_encoder(model_folder)


def test_sparse_encoder(encoder, model, texts, documents, queries):
    """A SparseEncoder's scores of documents and queries are the products of our sparse vectors."""
    some, asked = range(0, len(texts), 7), range(7, len(texts), 15)
    scores = encoder.similarity(
        encoder.encode_query([texts[i] for i in asked]), encoder.encode_document([texts[i] for i in some])
    ).numpy()
    expected = np.array([[dot(queries[q], documents[d]) for d in some] for q in asked])
    assert np.count_nonzero(expected) > 20
    assert np.abs(scores - expected).max() < 1e-4


def test_sparse_encoder_is_a_directory(model_folder, texts, encoder):
    """sentence-transformers itself opens the model directory."""
    from sentence_transformers import SparseEncoder

    opened = SparseEncoder(str(model_folder), trust_remote_code=True)
    assert (
        opened.encode_document(texts[50:60])
        .to_dense()
        .equal(encoder.encode_document(texts[50:60]).to_dense())
    )
    assert opened.similarity_fn_name == "dot"


def test_saved_models_find_their_class(model_folder):
    """A model directory names the class by the address that all saved models know, and that address leads to
    the class."""
    from sentence_transformers.util import import_from_string

    from minicoil.serving.sparse_encoder import MiniCOILModule

    named = load_json(model_folder / "modules.json")[0]["type"]
    assert named == "minicoil.sparse_encoder.MiniCOILModule"
    assert import_from_string(named) is MiniCOILModule


def test_sparse_encoder_saved(model_folder, tmp_path, texts):
    """A saved SparseEncoder opens as it was, IDF included, and its folder serves as a model directory."""
    from minicoil import load_sparse_encoder

    weighted = load_sparse_encoder(model_folder, documents=texts)
    weighted.save_pretrained(str(tmp_path / "saved"))
    again = load_sparse_encoder(tmp_path / "saved")
    for call in ("encode_document", "encode_query"):
        assert (
            getattr(again, call)(texts[50:80])
            .to_dense()
            .equal(getattr(weighted, call)(texts[50:80]).to_dense())
        )
    assert not weighted.encode_query(texts[50:80]).to_dense().equal(weighted.encode(texts[50:80]).to_dense())
    compare(
        MiniCOIL.load(tmp_path / "saved").embed(texts[50:60]), MiniCOIL.load(model_folder).embed(texts[50:60])
    )


def test_sparse_encoder_evaluator(encoder):
    """The information retrieval evaluator of sentence-transformers runs and finds the texts that share a
    word."""
    from sentence_transformers.sparse_encoder.evaluation import SparseInformationRetrievalEvaluator

    corpus, asked = (
        {"a": "At dusk the bats left their cave.", "b": "Trains stop at the station."},
        {"1": "a bat cave", "2": "train station"},
    )
    evaluator = SparseInformationRetrievalEvaluator(
        asked,
        corpus,
        {"1": {"a"}, "2": {"b"}},
        mrr_at_k=[1],
        ndcg_at_k=[1],
        accuracy_at_k=[1],
        precision_recall_at_k=[1],
        map_at_k=[1],
    )
    assert evaluator(encoder)["dot_mrr@1"] == 1.0


# As published


def card(folder):
    """The model card: (its head as a dict of lines, its text)."""
    _, head, text = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return dict(line.split(": ", 1) for line in head.splitlines()), text


def test_card_head(model_folder, run_folder):
    """The card has the metadata that the hub reads, and no path of this machine."""
    head, text = card(model_folder)
    assert head["license"] == "apache-2.0"
    assert head["language"] == "en"
    assert head["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert "sparse-encoder" in head["tags"]
    assert "| int8_head |" in text
    assert "sha256" in text
    assert Path.home() == Path("/") or f"{Path.home()}/" not in text
    assert str(run_folder) not in text


def test_card_snippets(model_folder):
    """Each snippet of the card, one for each library, runs as printed, and all give the same document."""
    blocks, made = re.findall(r"```python\n(.*?)```", card(model_folder)[1], re.S), []
    assert len(blocks) == 3
    assert "fastembed" in blocks[1]
    for block in blocks:
        names = {}
        exec(block.replace("path/of/this/directory", str(model_folder)), names)
        made.append(names)
    compare([made[0]["document"], made[0]["query"]], [made[1]["document"], made[1]["query"]])
    assert made[2]["scores"].shape == (1, 2)
    assert float(made[2]["scores"][0, 0]) == pytest.approx(
        dot(made[0]["query"], made[0]["document"]), abs=1e-4
    )


HUB = """
import sys
from minicoil import MiniCOIL
print(next(MiniCOIL.load("someone/some-model").embed("a bat in a cave")).values.tolist())
"""


def test_hub_name(model_folder, model, tmp_path):
    """A model in the hub's local cache opens by its name, offline."""
    repository = tmp_path / "hub" / "models--someone--some-model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    shutil.copytree(
        model_folder, repository / "snapshots" / ("0" * 40), ignore=shutil.ignore_patterns("model_int8.onnx")
    )
    done = subprocess.run(
        [sys.executable, "-c", HUB],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "hub")},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == next(model.embed("a bat in a cave")).values.tolist()


def test_fifteen_lines(run_folder):
    """The notebook's search service has at most fifteen lines, imports nothing of ours, and finds a bat."""
    pytest.importorskip("fastembed")
    notebook = Path(__file__).parents[1] / "nbs" / "32_search.ipynb"
    code = next(
        "".join(c["source"])
        for c in load_json(notebook)["cells"]
        if c["cell_type"] == "code" and "SparseTextEmbedding" in "".join(c["source"])
    )
    from minicoil.retrieval.judged import read_collection

    names = {
        "run": open_run(run_folder),
        "demo": read_collection("demo"),
        "examples": load_json(run_folder / "32_search" / "examples.json"),
    }
    exec(code, names)
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 15
    assert "minicoil." not in code
    assert len(names["served"]) == 3
    assert all(re.search(r"\b(bats?|caves?)\b", hit.payload["text"].lower()) for hit in names["served"])
