"""Search:

Qdrant ranks as the benchmark's numpy does, a collection is resumed, mixes are what they say, and a model can
be started from.

What a collection is asked holds in a folder and on a stand-in for a server, and with QDRANT_URL set on that
server too, see support/real_server.py.
"""

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
from calls import call
from chains import TO_MODEL, copy_before, digests, small_corpus, with_notebooks, work
from conftest import minicoil
from qdrant_client import QdrantClient, models
from qdrant_fake import nobody
from real_server import PLACES, some_server
from test_serving import compare

import minicoil.runs.server as talk
from minicoil import MiniCOIL
from minicoil.commands.chain import from_model, summary
from minicoil.learning.algebra import apply, mean_cosine
from minicoil.retrieval.benchmark import objective_row
from minicoil.retrieval.collect_server import Server
from minicoil.retrieval.comparison import benchmark_collections
from minicoil.retrieval.retrieval import build_index, fuse, mix, score_all
from minicoil.retrieval.search import (
    add_documents,
    build_collection,
    dense_width,
    explain_hits,
    inverse_document_frequencies,
    open_collection,
    search,
)
from minicoil.runs.files import UserError, load_json
from minicoil.runs.run import open_run
from minicoil.serving.batches import window_rows
from minicoil.serving.directory import ENCODERS_FILE
from minicoil.serving.windows import read_forms
from minicoil.stages.model import ADAPT_LEAST, adapted, combine_models
from minicoil.stages.tokens import word_tokens

CLOSE = 2e-2  # the table of forms is float16


@pytest.fixture(scope="module")
def model(tiny_run):
    return MiniCOIL.load(tiny_run / "23_model", threads=1)


@pytest.fixture(scope="module")
def documents(tiny_run):
    """A generated collection.

    Sentences of the run's corpus joined at random, some longer than the transformer reads.
    """
    lines = [
        line
        for f in load_json(tiny_run / "run.json")["parameters"]["corpus"]
        for line in Path(f).read_text(encoding="utf-8").splitlines()
        if line
    ]
    draw = random.Random(3)
    return [
        (f"d{i}", " ".join(draw.choices(lines, k=40 if i % 25 == 0 else draw.randint(1, 3))))
        for i in range(250)
    ]


@pytest.fixture(scope="module")
def queries(documents):
    """200 queries of one to four words of a document, most with a word that the model knows."""
    draw = random.Random(4)
    return [
        " ".join(
            draw.sample(text.split(), k=min(len(text.split()), draw.randint(1, 3)))
            + ([draw.choice(["bat", "bank"])] if i % 3 else [])
        )
        for i, (_, text) in enumerate(draw.choices(documents, k=200))
    ]


@pytest.fixture(scope="module", params=PLACES)
def place(request, tmp_path_factory):
    """Where collections can be made: a folder, a stand-in for a server, the tester's server."""
    if request.param == "folder":
        yield tmp_path_factory.mktemp("collections")
        return
    with some_server(request.param) as url:
        yield url


@pytest.fixture(scope="module")
def stored(place, documents):
    """The documents of the collection: a server is given fewer, for the stand-in counts in Python."""
    return documents if isinstance(place, Path) else documents[:60]


@pytest.fixture(scope="module")
def asked(place, queries):
    """The queries that are compared."""
    return queries if isinstance(place, Path) else queries[:40]


@pytest.fixture(scope="module")
def collection(place, model, stored):
    """What is said of the collection `contract` of the documents, when it was made."""
    return build_collection(place, model, stored, name="contract")


@pytest.fixture(scope="module")
def index(model, stored):
    """The documents as the benchmark's numpy ranks them."""
    return build_index(read_forms(model, [text for _, text in stored], normalize=True), model.vocabulary)


def agrees(hits, scores, depth):
    """Whether [(document number, score)] are a best `depth` of `scores` (-inf: no match), in falling order.

    Ties may come in any order.
    """
    finite = np.flatnonzero(np.isfinite(scores))
    mine = np.array([scores[i] for i, _ in hits])
    rest = np.setdiff1d(finite, [i for i, _ in hits])
    return (
        len(hits) == min(depth, len(finite))
        and all(abs(scores[i] - s) < CLOSE for i, s in hits)
        and (np.diff(mine) < CLOSE).all()
        and (not len(rest) or scores[rest].max() <= mine.min() + CLOSE)
    )


def test_how_to_page(model_folder, tmp_path, capsys):
    """The page on searching runs as printed.

    The bat in a cave comes first, and FastEmbed with the measured length gives our values.
    """
    page, names = (
        (Path(__file__).parent.parent / "docs" / "howto" / "search.md").read_text(encoding="utf-8"),
        {},
    )
    for block in re.findall(r"```python\n(.*?)```", page, re.S):
        exec(
            block.replace("outputs/demo/23_model", str(model_folder)).replace(
                "outputs/index", str(tmp_path / "index")
            ),
            names,
        )
    assert capsys.readouterr().out.split()[0] == "caves"
    assert names["length"] == names["model"].avg_len
    compare(names["model"].embed([text for _, text in names["documents"]]), names["vectors"])


def test_qdrant_ranks_as_numpy(model, place, stored, asked, collection, index):
    """The engine's best ten, by sparse vectors and IDF, are numpy's best ten with the same scores; ties as
    sets."""
    assert sum(len(w) > 1 for w in window_rows(model, [t for _, t in stored])) >= len(stored) // 50
    forms = read_forms(model, asked, normalize=True)
    expected = score_all(model, index, forms, ("minicoil", "bm25"), avg_len=collection["avg_len"])
    number, differ = {n: i for i, (n, _) in enumerate(stored)}, 0
    with open_collection(place, name="contract") as home:
        for q, query in enumerate(asked):
            hits = [(number[h.id], h.score) for h in search(home, model, query, 10)]
            assert agrees(hits, expected["minicoil"][q], 10), (query, hits)
            differ += not agrees(hits, expected["bm25"][q], 10)
    assert differ > len(asked) // 10  # the test would notice a ranking by BM25


def test_average_length_is_measured(model, collection, index):
    """`avg_len` auto is the mean number of words that are no stop words, over documents of any length."""
    assert collection["avg_len"] == pytest.approx(index.lengths.mean(), abs=0.01)
    assert model.avg_len == collection["avg_len"]


def test_resume(model, place, stored):
    """A half-made collection is completed, what changed is embedded again, what is gone goes."""
    some, half = stored[:50], 20
    with open_collection(place, dense_width(model), "resumed") as home:
        assert add_documents(home, model, some[:half]) == half
    with open_collection(place, name="resumed") as home:
        assert add_documents(home, model, some) == len(some) - half
        changed = [("d0", "A bat."), *some[1:40]]
        assert add_documents(home, model, changed) == 1
        assert len(home.digests()) == 40
        assert add_documents(home, model, changed[::-1]) == 0


def test_hybrid_and_mix(model, place, asked, collection):
    """`hybrid` is the reciprocal rank fusion of the dense and the sparse list, `mix` half of each score, as a
    share of the list's best."""
    with open_collection(place, name="contract") as home:
        for query in asked[:20]:
            lists = [
                {h.id: h.score for h in search(home, model, query, 100, using)}
                for using in ("dense", "minicoil")
            ]
            for using, expected in (("hybrid", fuse(lists)), ("mix", mix(lists))):
                hits, best = search(home, model, query, 5, using), sorted(expected.values(), reverse=True)[:5]
                assert [h.score for h in hits] == pytest.approx(best, abs=1e-4), (query, using)


def test_explanations_add_up(model, place, stored, asked, collection):
    """The words of a hit, long documents included, add up to the engine's score, from stored vectors and from
    texts."""
    idf = inverse_document_frequencies(model, [t for _, t in stored])
    with open_collection(place, name="contract") as home:
        for query in asked[:15] if isinstance(place, Path) else asked[:5]:
            for hit, rows in explain_hits(home, model, query, search(home, model, query, 3)):
                again = model.explain(query, hit.text, idf, normalize=True, windows=True)
                for words in (rows, again):
                    assert sum(row["contribution"] for row in words) == pytest.approx(hit.score, abs=1e-2)


def write_beir(folder, documents, queries, judged):
    """A BEIR folder. Returns it."""
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text(
        "".join(json.dumps({"_id": i, "title": "", "text": t}) + "\n" for i, t in documents)
    )
    (folder / "queries.jsonl").write_text(
        "".join(json.dumps({"_id": i, "text": t}) + "\n" for i, t in queries)
    )
    (folder / "qrels" / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(f"{q}\t{d}\t1\n" for q, d in judged)
    )
    return folder


def test_several_collections(model, documents, queries, tmp_path):
    """Several collections give a macro gain, and with `out` a table, every query's gain as a picture, and the
    extreme queries explained."""
    asked = [(f"q{i}", text) for i, text in enumerate(queries[:12])]
    data = [
        write_beir(
            tmp_path / name,
            documents,
            asked,
            [(q, d) for k, (q, _) in enumerate(asked) for d, _ in documents[k :: 12 + shift]],
        )
        for shift, name in enumerate("ab")
    ]
    found = benchmark_collections(
        model,
        data,
        tmp_path / "out",
        systems=("bm25", "minicoil", "dense", "hybrid_minicoil"),
        cache=tmp_path / "cache",
    )
    assert list(found["collections"]) == ["a", "b"]
    each = [found["collections"][n]["gain"]["minicoil"][0] for n in "ab"]
    assert found["macro"]["minicoil"][0] == pytest.approx(np.mean(each))
    assert found["macro"]["bm25"] == [0, 0, 0]
    full, text = load_json(tmp_path / "out" / "results.json"), (tmp_path / "out" / "results.md").read_text()
    assert len(full["collections"]["a"]["per_query"]["minicoil"]) == 12
    assert full["collections"]["a"]["explained"]
    assert "from rank" in text
    assert "All collections" in text
    assert (tmp_path / "out" / "gain.png").read_bytes().startswith(b"\x89PNG")
    again = benchmark_collections(model, data, systems=("bm25", "minicoil"), cache=tmp_path / "cache")
    assert again["macro"]["minicoil"] == found["macro"]["minicoil"]


def test_two_collections_of_one_name(model, documents, queries, tmp_path):
    """Two collections whose folders are called alike both have their results.

    One that is named twice is refused.
    """
    asked = [(f"q{i}", text) for i, text in enumerate(queries[:4])]
    data = [
        write_beir(
            tmp_path / where / "same", documents[:40], asked[:n], [(q, documents[0][0]) for q, _ in asked[:n]]
        )
        for where, n in (("a", 2), ("b", 3))
    ]
    found = benchmark_collections(model, data, tmp_path / "out", systems=("bm25", "minicoil"))
    assert {name: f["queries"] for name, f in found["collections"].items()} == {"a/same": 2, "b/same": 3}
    assert set(load_json(tmp_path / "out" / "results.json")["collections"]) == {"a/same", "b/same"}
    with pytest.raises(UserError, match="named twice"):
        benchmark_collections(
            model, [data[0], tmp_path / "b" / ".." / "a" / "same"], systems=("bm25", "minicoil")
        )


def test_control_row(model, documents, queries):
    """The control takes a query word's numbers from another text that has the word.

    Cosines of the collection's own occurrences, not of the query's.
    """
    forms = read_forms(model, [t for _, t in documents], normalize=True)
    index = build_index(forms, model.vocabulary)
    scores = score_all(
        model, index, read_forms(model, ["the bat"] * 4, normalize=True), ("minicoil", "minicoil_shuffled")
    )
    shared = np.isfinite(scores["minicoil"][0])
    assert np.ptp(scores["minicoil"][:, shared], axis=0).max() < 1e-5
    assert np.ptp(scores["minicoil_shuffled"][:, shared], axis=0).max() > 1e-3


@pytest.fixture(scope="module")
def started(tiny_run, tmp_path_factory):
    """(old model folder, new one): trained again on a corpus that has bats enough and too few banks."""
    folder, draw = tmp_path_factory.mktemp("started"), random.Random(5)
    lines = small_corpus(folder / "all.txt", ("bat", "bank"), each=60).read_text().splitlines()
    banks = [line for line in lines if "bank" in line.lower()]
    bats = [line for line in lines if "bat" in line.lower() and line not in banks]
    (folder / "own.txt").write_text("\n".join(draw.sample(bats, len(bats)) + banks[: ADAPT_LEAST - 1]))
    given = from_model(
        {
            "start_from": str(tiny_run / "23_model"),
            "corpus": [str(folder / "own.txt")],
            "samples": 40,
            "pictures": 0,
        }
    )
    work(open_run(folder / "run", **given), *TO_MODEL)
    return tiny_run / "23_model", folder / "run" / "23_model"


def test_start_from(started):
    """A run that starts from a model trains the words with enough sentences again.

    The other words, vocabulary and ids stay to the byte.
    """
    old, new = (np.load(folder / ENCODERS_FILE) for folder in started)
    words = MiniCOIL.load(started[1]).words
    assert words == MiniCOIL.load(started[0]).words == ["bat", "bank"]
    assert old.shape == new.shape
    assert old[2].tobytes() == new[2].tobytes()
    assert np.abs(old[1] - new[1]).max() > 1e-3
    assert load_json(started[1] / "minicoil.json")["adapted"]["words"] == ["bat"]
    assert (
        digests(started[0])["minicoil.triplet.model.vocab"]
        == digests(started[1])["minicoil.triplet.model.vocab"]
    )
    assert "## Started from another model" in (started[1] / "README.md").read_text()


def test_a_word_trained_again_counts_as_much_as_before(started):
    """On the sentences it was trained on again, a word's vectors are no further apart on average than its old
    encoder would put them."""
    run = open_run(started[1].parent)
    word, _, x = next(word_tokens(run))
    old, new = (mean_cosine(apply(x, np.load(folder / ENCODERS_FILE)[1])) for folder in started)
    assert word == "bat"
    assert new > old - 0.01


def test_start_from_by_notebook(started, tmp_path):
    """The notebook of stage `model` runs to its end in a run that starts from a model, and leaves the same
    encoders."""
    run = with_notebooks(copy_before(started[1].parent, "model", tmp_path / "run"))
    done = minicoil("run", "--out", run, "--until", "model")
    assert done.returncode == 0, done.stderr
    assert np.array_equal(*(np.load(folder / ENCODERS_FILE) for folder in (started[1], run / "23_model")))


def test_start_from_tells_what_was_adapted(started, tmp_path, monkeypatch):
    """A run says how many words were trained again, and warns where there were none."""
    run = open_run(copy_before(started[1].parent, "model", tmp_path / "run"))
    monkeypatch.setattr("minicoil.stages.model.ADAPT_LEAST", 1000)
    combine_models(run)
    assert "1 adapted" in summary(open_run(started[1].parent), "model", 1.0)
    assert "warning" not in summary(open_run(started[1].parent), "model", 1.0)
    assert "warning: the corpus has no word of the model often enough" in summary(run, "model", 1.0)
    assert np.array_equal(
        *(np.load(folder / ENCODERS_FILE) for folder in (started[0], run.stage("model").path))
    )


def test_start_from_another_shape(tiny_run, started):
    """Stage `model` alone refuses, in one line, to start from a model with other numbers a word."""
    base = MiniCOIL.load(tiny_run / "23_model")
    with pytest.raises(UserError, match="64 × 3 numbers a word, this run of 64 × 4"):
        adapted(base, ["bat"], np.zeros((2, 64, 4), np.float32), {"bat": {"sentences": 100}})


def test_start_from_refuses(tiny_run):
    """What contradicts the model is refused in one line.

    Another dim, top words, words it does not have, fewer samples than a word needs to be trained again.
    """
    start = {"start_from": str(tiny_run / "23_model")}
    assert from_model(start)["dim"] == 3
    for wrong in ({"dim": 4}, {"top_words": 10}, {"words": ["zyzzyva"]}, {"samples": ADAPT_LEAST - 1}):
        with pytest.raises(UserError):
            from_model(start | wrong)


def test_make_collection(tmp_path):
    """`minicoil benchmark make-collection` writes a BEIR folder that the benchmark reads, of the words with
    several senses; a folder in use is refused."""
    from minicoil.retrieval.judged import read_judged
    from minicoil.text.readers import DATA

    done = minicoil(
        "benchmark", "make-collection", "--data", DATA / "sentences.jsonl", "--out", tmp_path / "senses"
    )
    assert done.returncode == 0, done.stderr
    documents, queries, judged = read_judged(tmp_path / "senses")
    facts = json.loads(done.stdout.splitlines()[-1])
    assert facts == {"words": 23, "senses": 56, "documents": len(documents), "queries": len(queries)}
    assert len(judged) == len(queries)
    asked = ("benchmark", "make-collection", "--data", DATA / "sentences.jsonl", "--out", "senses")
    again = call(tmp_path, *asked)
    assert again.returncode == 2
    assert len(again.stderr.splitlines()) == 1


def test_search_command(tiny_run, documents, tmp_path):
    """`minicoil search` on a folder of text files keeps a collection where it is told to, and searches it in
    four ways."""
    (tmp_path / "texts").mkdir()
    for name, text in documents[:30]:
        (tmp_path / "texts" / f"{name}.txt").write_text(text)
    kept = ("--model", tiny_run / "23_model", "--documents", "texts", "--collection", "kept", "--limit", 2)
    for using in ("minicoil", "hybrid", "mix", "dense"):
        asked = ("search", *kept, "--using", using, "bat")
        done = minicoil(*asked, cwd=tmp_path) if using == "minicoil" else call(tmp_path, *asked)
        assert done.returncode == 0, done.stderr
        assert "d" in done.stdout, done.stderr
        assert len(done.stdout.splitlines()) == 4, done.stderr
    lean = call(tmp_path, "search", *kept, "--no-explain", "bat")
    assert len(lean.stdout.splitlines()) == 2
    assert (tmp_path / "kept").is_dir()


def test_what_search_prints_is_harmless(tiny_run, tmp_path):
    """`minicoil search` prints no control character of a text or of a document's name."""
    evil = "\x1b[2J\x07evil\r\n\u202e\x9b"
    write_beir(
        tmp_path / "beir", [(f"{evil}{i}", f"the bat {evil} flew") for i in range(3)], [("q", "bat")], []
    )
    done = minicoil(
        "search", "--model", tiny_run / "23_model", "--documents", "beir", "--limit", 3, "bat", cwd=tmp_path
    )
    assert done.returncode == 0, done
    assert done.stdout.count("evil") == 6, done
    assert len(done.stdout.splitlines()) == 6, done
    assert all(c.isprintable() or c == "\n" for c in done.stdout), done.stdout


def test_help_names_every_precision():
    """The help of `embed --precision` names what it can be."""
    import inspect

    from minicoil.commands.commands import command_embed
    from minicoil.serving.directory import MODEL_FILES

    assert set(MODEL_FILES) <= set(
        inspect.signature(command_embed).parameters["precision"].default.help.replace(",", " ").split()
    )


def test_a_row_of_another_objective_says_what_it_reads():
    """In the benchmark of a run the row of an objective is marked where it reads other layers than it would
    alone."""
    assert objective_row("fit", "graph") == "fit objective, of the mean of 4 layers"
    assert objective_row("umap", "fit") == "umap objective, of the last layer"
    assert objective_row("umap", "graph") == "umap objective"


def test_a_collection_of_another_width_is_refused(tmp_path):
    """A collection made for dense vectors of another length is named and left alone, in a folder as on a
    server."""
    client = QdrantClient(":memory:")
    Server(":memory:", 8, client=client)
    with open_collection(tmp_path / "c", 8):
        pass
    for again in (
        lambda: Server(":memory:", 16, client=client),
        lambda: open_collection(tmp_path / "c", 16).__enter__(),
    ):
        with pytest.raises(UserError, match="dense of 16 numbers, and has .*minicoil.* 8"):
            again()
    Server(":memory:", None, client=client)
    client.create_collection(
        "other", vectors_config=models.VectorParams(size=8, distance=models.Distance.COSINE)
    )
    with pytest.raises(UserError, match="not a collection of this model"):
        Server(":memory:", 8, name="other", client=client)


def test_a_search_server_that_does_not_answer(monkeypatch):
    """At a dead address a collection is given up after a few tries, in one line that names its option."""
    monkeypatch.setattr(talk.time, "sleep", lambda seconds: None)
    said = "no Qdrant server answers at http://127.0.0.1.*check --collection"
    with nobody() as dead, pytest.raises(UserError, match=said):
        open_collection(dead, 8).__enter__()
