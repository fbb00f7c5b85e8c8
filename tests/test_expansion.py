"""Words that mean nearly the same: ranked exactly, explained to the last digit, safe in a kept collection."""

import numpy as np
import pytest
from calls import call
from passes import counted
from qdrant_fake import FakeQdrant, serving

from minicoil import MiniCOIL
from minicoil.retrieval import documents as filling
from minicoil.retrieval import expansion as expansions
from minicoil.retrieval import inverted
from minicoil.retrieval.changes import source_of
from minicoil.retrieval.collect_calls import Ask
from minicoil.retrieval.collection import open_collection
from minicoil.retrieval.documents import add_documents, build_collection, dense_width, point_number
from minicoil.retrieval.expanded_documents import added_postings, expanded_documents, expanded_scores
from minicoil.retrieval.expanded_queries import brought_words, exact_gains, query_vector
from minicoil.retrieval.expanded_words import describe_source
from minicoil.retrieval.expansion import EXPANSION_FILE, Expansion
from minicoil.retrieval.inverted import open_home
from minicoil.retrieval.judged import read_collection
from minicoil.retrieval.kept import expansion_path, kept_index
from minicoil.retrieval.retrieval import OURS, build_index, score_all
from minicoil.retrieval.search import explain_hits, inverse_document_frequencies, search
from minicoil.runs.files import UserError
from minicoil.serving.sparse import SparseEmbedding
from minicoil.serving.windows import read_forms
from minicoil.stages.centroids import write_centroids

CLOSE = 2e-2  # the table of forms is float16
QUERIES = ("a bat in a cave", "money in the bank", "a stream in the mountains", "he hit the ball", "a beast")


@pytest.fixture(scope="module")
def model(model_folder):
    return MiniCOIL.load(model_folder, threads=1)


@pytest.fixture(scope="module")
def documents():
    """120 short documents, some with a bat, one long and one without a word."""
    found = read_collection("demo")
    bats = [d for d in found if " bat" in d[1].lower()][:30]
    return [*bats, *(d for d in found[::7] if d not in bats)][:120] + [ 
        ("long", "The bats left their cave at dusk. " * 60), ("empty", "of the"),
    ]


@pytest.fixture(scope="module")
def expanded(model, documents, tmp_path_factory):
    """The folder of a collection of expanded documents."""
    folder = tmp_path_factory.mktemp("expanded") / "c"
    build_collection(folder, model, documents, expand="documents")
    return folder


@pytest.fixture(scope="module")
def kept(model, documents, tmp_path_factory):
    """The folder of a plain collection that keeps an expansion for queries."""
    folder = tmp_path_factory.mktemp("kept") / "c"
    build_collection(folder, model, documents, expand="query")
    return folder


@pytest.fixture(scope="module")
def exact(model, documents, expanded):
    """{query: {document: score}} of expanded documents by the benchmark's code."""
    expansion = Expansion.load(expanded / EXPANSION_FILE)
    forms = read_forms(model, [text for _, text in documents], normalize=True)
    asked, index = read_forms(model, QUERIES, normalize=True), build_index(forms, model.vocabulary)
    added = added_postings(expansion, expanded_documents(expansion, model, forms))
    plain = score_all(model, index, asked, ("minicoil",), expansion.avg_len)
    scores = expanded_scores(expansion, model, index, asked, added, plain)["minicoil"]
    names = [name for name, _ in documents]
    return {query: dict(zip(names, some)) for query, some in zip(QUERIES, scores)}


def stored(folder, documents):
    """{document: {index: value}} of what a collection holds."""
    numbers = {point_number(name): name for name, _ in documents}
    with open_collection(folder) as home:
        return {numbers[p.number]: p.sparse.as_dict() for p in home.look_up(list(numbers)) if p.sparse}


def same_ranking(hits, scores):
    """Whether hits have the exact scores, and nothing better is left out."""
    assert all(abs(scores[name] - score) < CLOSE for name, score in hits)
    left = [s for name, s in scores.items() if name not in dict(hits)]
    assert max(left, default=-np.inf) <= min((score for _, score in hits), default=-np.inf) + CLOSE


def test_the_engine_ranks_expanded_documents_exactly(model, expanded, exact):
    """A plain search of expanded documents gives the benchmark's scores, without IDF from the engine."""
    with open_collection(expanded) as home:
        for query in QUERIES:
            same_ranking([(h.id, h.score) for h in search(home, model, query, 10)], exact[query])


def test_a_query_of_fastembed_ranks_as_ours(model, model_folder, expanded, exact):
    """Queries need not know that documents are expanded, whoever embeds them."""
    from fastembed import SparseTextEmbedding

    theirs = SparseTextEmbedding("Qdrant/minicoil-v1", specific_model_path=str(model_folder))
    with open_collection(expanded) as home:
        for query, vector in zip(QUERIES, theirs.query_embed(list(QUERIES))):
            mine = SparseEmbedding(vector.indices.astype(np.int32), vector.values.astype(np.float32))
            found = [(p.payload["id"], p.score) for p in home.nearest(mine, "minicoil", 10)]
            same_ranking(found, exact[query])


@pytest.mark.parametrize("side", ["query", "documents"])
def test_an_explanation_sums_to_the_score(model, expanded, kept, side):
    """On either side, and some row says which word stood for which."""
    sources = []
    with open_collection(expanded if side == "documents" else kept) as home:
        for query in QUERIES:
            hits = search(home, model, query, 10, expand=side)
            for hit, rows in explain_hits(home, model, query, hits, expand=side):
                assert sum(row["contribution"] for row in rows) == pytest.approx(hit.score, abs=CLOSE)
                sources += [row["source"] for row in rows if "source" in row]
    assert any(sources)


@pytest.mark.parametrize("side", ["query", "documents"])
def test_a_quoted_word_matches_as_it_stands(model, documents, expanded, kept, side):
    """With quotes, or `exact`, a document without the word is not found by it."""
    with open_collection(expanded if side == "documents" else kept) as home:
        wide = {h.id for h in search(home, model, "bat", 500, expand=side)}
        for given in ({"query": '"bat"'}, {"query": "bat", "exact": True}):
            found = {h.id for h in search(home, model, limit=500, expand=side, **given)}
            assert found < wide
            assert all("bat" in dict(documents)[name].lower() for name in found)


def test_a_stopped_build_ends_with_the_same_values(model, documents, expanded, tmp_path, monkeypatch):
    """A call that dies while it puts documents leaves the expansion, and the next one goes on from there."""
    put = filling.points_of

    def dying(model, some, *given):
        if some[0][0] != documents[0][0]:
            raise KeyboardInterrupt
        return put(model, some, *given)

    monkeypatch.setattr(filling, "batched", lambda items, size: [items[:50], items[50:]])
    monkeypatch.setattr(filling, "points_of", dying)
    with pytest.raises(KeyboardInterrupt):
        build_collection(tmp_path / "c", model, documents, expand="documents")
    monkeypatch.setattr(filling, "points_of", put)
    facts = build_collection(tmp_path / "c", model, documents, expand="documents")
    assert facts["embedded"] == len(documents) - 50
    assert (tmp_path / "c" / EXPANSION_FILE).read_bytes() == (expanded / EXPANSION_FILE).read_bytes()
    mine, whole = stored(tmp_path / "c", documents), stored(expanded, documents)
    assert {name: set(v) for name, v in mine.items()} == {name: set(v) for name, v in whole.items()}
    assert all(np.allclose(list(v.values()), [whole[name][i] for i in v], atol=CLOSE)
               for name, v in mine.items())


def test_what_cannot_be_expanded_is_refused(model, documents, expanded, tmp_path):
    """One line each, and no folder is made for documents that teach nothing."""
    empty = [("a", ""), ("b", "")]
    for few, message in (([], "there are 0"), (documents[:1], "there are 1"), (empty, "there are 2")):
        with pytest.raises(UserError, match=message):
            build_collection(tmp_path / "few", model, few, expand="documents")
    assert not (tmp_path / "few").exists()
    with pytest.raises(UserError, match="holds expanded documents"):
        build_collection(expanded, model, documents)
    build_collection(tmp_path / "plain", model, documents[:5])
    with pytest.raises(UserError, match="without expansion"):
        build_collection(tmp_path / "plain", model, documents[:5], expand="documents")
    with open_collection(tmp_path / "plain") as home, pytest.raises(UserError, match="without an expansion"):
        search(home, model, "bat", expand="query")
    with pytest.raises(UserError, match="it can be query, documents"):
        build_collection(tmp_path / "plain", model, documents[:5], expand="both")


def test_another_models_expansion_is_refused(model, documents, expanded):
    """In embedding as in a search."""
    theirs = Expansion.load(expanded / EXPANSION_FILE)
    theirs.model = "another"
    for embed in (model.embed, model.query_embed):
        with pytest.raises(UserError, match="another model"):
            next(embed("a bat", expansion=theirs))


def test_on_a_server_the_caller_keeps_the_expansion(model, documents, expanded):
    """A server keeps points only: without an expansion it refuses, with one it ranks as the folder does."""
    expansion = Expansion.load(expanded / EXPANSION_FILE)
    with serving(FakeQdrant()) as url:
        with pytest.raises(UserError, match="cannot keep an expansion"):
            build_collection(url, model, documents, expand="documents")
        build_collection(url, model, documents, expand="documents", expansion=expansion)
        with open_collection(url) as home:
            assert home.expanded
            theirs = {p.number: p.sparse.as_dict() for p in home.look_up([point_number("long")])}
    mine = stored(expanded, documents)["long"]
    assert np.allclose(sorted(theirs[point_number("long")].values()), sorted(mine.values()), atol=CLOSE)


def test_plain_vectors_are_untouched(model, documents, kept):
    """An expansion for queries leaves the documents' values as they are."""
    plain = dict(zip([n for n, _ in documents], model.embed([t for _, t in documents[:5]], **OURS)))
    mine = stored(kept, documents)
    for name, vector in plain.items():
        assert set(mine[name]) == set(vector.indices.tolist())


@pytest.fixture
def carrying(model, model_folder, documents, tmp_path):
    """A model that carries centroids of its words."""
    folder = tmp_path / "carrying"
    model.save(folder)
    write_centroids(model_folder.parent, folder)
    return MiniCOIL.load(folder, threads=1)


def test_a_plain_collection_is_expanded_at_first_use(carrying, model, documents, tmp_path):
    """By the centroids that the model carries: no document is read again, and one document is enough."""
    build_collection(tmp_path / "plain", carrying, documents)
    with open_collection(tmp_path / "plain") as home:
        wide = search(home, carrying, "bat", 500, expand="query")
        plain = {h.id for h in search(home, carrying, "bat", 500) if h.score > CLOSE}
        assert plain <= {h.id for h in wide}
        for hit, rows in explain_hits(home, carrying, "bat", wide[:10], expand="query"):
            assert sum(row["contribution"] for row in rows) == pytest.approx(hit.score, abs=CLOSE)
    facts = build_collection(tmp_path / "one", carrying, documents[:1], expand="documents")
    assert facts["documents"] == 1
    with open_collection(tmp_path / "one") as home:
        assert [h.id for h in search(home, carrying, documents[0][1], 5)] == [documents[0][0]]
    with pytest.raises(UserError, match="carries no centroids"):
        Expansion.general(model)


def test_the_kept_index_learns_and_learns_again(model, tmp_path, monkeypatch):
    """The index that numpy searches keeps an expansion, renewed when the folder has grown by a tenth."""
    monkeypatch.setenv("MINICOIL_CACHE", str(tmp_path / "cache"))
    notes = tmp_path / "notes"
    notes.mkdir()
    found = [text for _, text in read_collection("demo") if " bat" in text.lower()][:40]
    for i, text in enumerate(found[:20]):
        (notes / f"{i:02}.txt").write_text(text)
    source = source_of(notes)
    first = kept_index(model, source, expand=True)
    hits = search(first.home, model, "a bat in a cave", 10, expand="query")
    for hit, rows in explain_hits(first.home, model, "a bat in a cave", hits, expand="query"):
        assert sum(row["contribution"] for row in rows) == pytest.approx(hit.score, abs=CLOSE)
    learned = expansion_path(source, model).read_bytes()
    (notes / "20.txt").write_text(found[20])
    kept_index(model, source, first.home.record["avg_len"], expand=True)
    assert expansion_path(source, model).read_bytes() == learned
    for i, text in enumerate(found[21:]):
        (notes / f"{30 + i}.txt").write_text(text)
    kept_index(model, source, expand=True)
    assert expansion_path(source, model).read_bytes() != learned
    expansion_path(source, model).write_bytes(b"damaged")
    kept_index(model, source, expand=True)
    Expansion.load(expansion_path(source, model))


def test_own_words_that_the_subject_calls_for_weigh_more(model, documents):
    """What is added to a document's own words is 0 or more, and a number is nobody's neighbour."""
    texts = [text for _, text in documents] + ["The 747 is a plane of 1969.", "A plane of 1969, the 747."]
    expansion = Expansion.fit(model, texts)
    some = list(expanded_documents(expansion, model, read_forms(model, texts, normalize=True)))
    assert all((document.more >= 0).all() for document in some)
    assert sum(document.more.sum() for document in some) > 1
    names = {expansion.names[row] for document in some for row in document.added.rows}
    assert names
    assert not any(char.isdigit() for name in names for char in name)
    assert "1969" in expansion.names


def test_words_of_another_script_match_as_they_stand(model, tmp_path):
    """A language that the stemmer lacks: its words are themselves, and an expansion learns from them."""
    found = [("a", "νυχτερίδα σπηλιά"), ("b", "νυχτερίδα σπηλιά νύχτα"), ("c", "летучая мышь в пещере")]
    build_collection(tmp_path / "c", model, found, expand="query")
    with open_collection(tmp_path / "c") as home:
        for query, expected in (("σπηλιά", {"a", "b"}), ("νύχτα", {"b"}), ("мышь", {"c"})):
            hits = search(home, model, query, 5, expand="query")
            assert expected <= {hit.id for hit in hits}
            for hit, rows in explain_hits(home, model, query, hits, expand="query"):
                assert sum(row["contribution"] for row in rows) == pytest.approx(hit.score, abs=CLOSE)


@pytest.fixture(scope="module")
def notes(documents, tmp_path_factory):
    """A folder with a text file of most of the documents, a line each."""
    folder = tmp_path_factory.mktemp("notes")
    lines = [text.replace("\n", " ") for name, text in documents if name not in ("long", "empty")]
    (folder / "notes.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder


def test_a_kept_index_without_expansion_learns_one(model_folder, notes, tmp_path):
    """The command says so in one line, once; what it finds then says which word stood for which."""
    given = ("search", "--model", str(model_folder), "--documents", "notes.txt", "--limit", "50")
    kept = {"MINICOIL_CACHE": str(tmp_path / "cache")}
    plain = call(notes, *given, QUERIES[2], **kept)
    first = call(notes, *given, "--expand", "query", QUERIES[2], **kept)
    again = call(notes, *given, "--expand", "query", QUERIES[2], **kept)
    assert first.returncode == again.returncode == 0, first.stderr
    assert first.stderr.count("which words mean nearly the same") == 1
    assert "nearly the same" not in plain.stderr + again.stderr
    assert first.stdout == again.stdout
    assert "~" in first.stdout
    assert "~" not in plain.stdout


@pytest.mark.parametrize("exact", [['a "stream" in the "mountains"'], ["--exact", QUERIES[2]]])
def test_the_command_matches_a_quoted_word_as_it_stands(model_folder, notes, tmp_path, exact):
    """With quotes or --exact no hit is found by another word."""
    given = ("search", "--model", str(model_folder), "--documents", "notes.txt", "--limit", "50")
    wide = ("--expand", "query")
    kept = {"MINICOIL_CACHE": str(tmp_path / "cache")}
    done = call(notes, *given, *wide, *exact, **kept)
    assert done.returncode == 0, done.stderr
    assert "stream" in done.stdout
    assert "~" not in done.stdout
    assert "~" in call(notes, *given, *wide, QUERIES[2], **kept).stdout


@pytest.mark.parametrize(("expand", "message"), [
    ("documents", "was made without expansion"), ("both", "it can be query, documents")])  # fmt: skip
def test_the_command_refuses_in_one_line(model_folder, notes, tmp_path, expand, message):
    """A collection that was made without expansion stays as it is, and one line says why."""
    home = tmp_path / "c"
    given = ("search", "--model", str(model_folder), "--documents", "notes.txt", "--collection", str(home))
    assert call(notes, *given, "bat").returncode == 0
    before = {name: v for name, v in stored(home, [(f"notes.txt:{i}", "") for i in range(1, 121)]).items()}
    done = call(notes, *given, "--expand", expand, "bat")
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (home / EXPANSION_FILE).exists()
    assert stored(home, [(f"notes.txt:{i}", "") for i in range(1, 121)]) == before


@pytest.mark.parametrize("side", ["query", "documents"])
def test_a_text_is_explained_as_its_hit_is(model, documents, expanded, kept, side, monkeypatch):
    """`MiniCOIL.explain` with an expansion gives the rows of a hit, which sum to its score."""
    folder = expanded if side == "documents" else kept
    expansion, sources = Expansion.load(folder / EXPANSION_FILE), []
    monkeypatch.setattr(model, "avg_len", expansion.avg_len)
    worded = [text for _, text in documents if text != "of the"]
    idf = inverse_document_frequencies(model, worded)
    with open_collection(folder) as home:
        for query in QUERIES:
            hits = search(home, model, query, 5, expand=side)
            for hit, theirs in explain_hits(home, model, query, hits, expand=side):
                rows = model.explain(query, hit.text, idf, expansion=expansion, expand=side)
                assert sum(row["contribution"] for row in rows) == pytest.approx(hit.score, rel=1e-3)
                told = [{describe_source(row) for row in some} for some in (rows, theirs)]
                assert told[0] == told[1]
                without = model.explain(query, hit.text, expansion=expansion, expand=side)
                assert sum(row["contribution"] for row in without) == pytest.approx(hit.score, rel=0.05)
                sources += [row["source"] for row in rows if "source" in row]
    assert any(sources)
    with pytest.raises(UserError, match="expand is 'both'"):
        model.explain("bat", "a bat", expansion=expansion, expand="both")
    with pytest.raises(UserError, match="idf is"):
        model.explain("bat", "a bat", 3, expansion=expansion, expand=side)


def the_slow_way(home, model, query, expansion, limit, head=100):
    """{document: score} of a query with its neighbours, each document of the head scored for itself."""
    plain = next(model.query_embed([query], **OURS))
    brought = brought_words(expansion, model, query)
    wide = query_vector(expansion, model, plain, brought)
    points = home.nearest(wide, "minicoil", head)
    if not points:
        return []
    ask = Ask("minicoil", plain, [point.id for point in points])
    known = {point.id: point.score for point in home.query([ask], len(points))[0]}
    held = {point.number: point.sparse.as_dict() for point in home.look_up(list(ask.only))}
    gains = {n: sum(gain.value for gain in exact_gains(model, some, brought)) for n, some in held.items()}
    scores = {point.payload["id"]: known.get(point.id, 0.0) + gains[point.id] for point in points}
    ranked = sorted((-score, name) for name, score in scores.items() if score > 1e-4)
    return [(name, pytest.approx(-score, abs=1e-4)) for score, name in ranked[:limit]]


@pytest.mark.parametrize("engine", ["qdrant", "numpy"])
def test_the_head_is_scored_as_one_document_after_the_other(model, documents, kept, tmp_path, engine):
    """The quick way by arrays ranks as the slow way does, in an index of several parts too."""
    expansion = Expansion.load(kept / EXPANSION_FILE)
    with open_home(tmp_path / "c", dense_width(model), engine=engine) as home:
        for part in (documents[:70], documents[60:110], documents[110:]):
            add_documents(home, model, part)
        for query in QUERIES:
            hits = search(home, model, query, 20, expand="query", expansion=expansion)
            assert [(hit.id, hit.score) for hit in hits] == the_slow_way(home, model, query, expansion, 20)


@pytest.mark.parametrize("using", ["minicoil", "dense", "hybrid", "mix"])
def test_the_transformer_reads_a_query_once(model, kept, using, monkeypatch):
    """Vectors, neighbours and explanations of an expanded search come from one reading."""
    with open_collection(kept) as home:
        ran = counted(model, monkeypatch)
        hits = search(home, model, 'a "bat" in a cave', using=using, expand="query")
        assert explain_hits(home, model, 'a "bat" in a cave', hits, expand="query")
    assert len(ran) == 1, ran


def test_an_expanded_query_is_embedded_in_one_reading(model, kept, monkeypatch):
    """So is each of several, with the values of two readings; a text to explain is read besides."""
    expansion, queries = Expansion.load(kept / EXPANSION_FILE), [*QUERIES, "the zzyzx", "of the"]
    apart = []
    for query in queries:
        plain = next(model.query_embed([query], **OURS))
        monkeypatch.setattr(model, "last_query", None)
        apart.append(query_vector(expansion, model, plain, brought_words(expansion, model, query)))
    ran = counted(model, monkeypatch)
    vectors = list(model.query_embed(queries, expansion=expansion))
    assert len(ran) == len(queries), ran
    for ours, theirs in zip(vectors, apart):
        assert np.array_equal(ours.indices, theirs.indices)
        assert np.array_equal(ours.values, theirs.values)
    model.explain(QUERIES[0], "the bats left", expansion=expansion)
    assert len(ran) == len(queries) + 2, ran


@pytest.mark.parametrize("head", [5, 20])
def test_a_head_found_roughly_is_the_exact_one(model, documents, kept, tmp_path, head, monkeypatch):
    """Sums in float32 choose whom to score exactly, in parts, with equal documents and some that are gone."""
    monkeypatch.setattr(expansions, "HEAD", head)
    found, real = [], inverted.scored_head

    def watched(*given):
        found.append(real(*given))
        return found[-1]

    monkeypatch.setattr(inverted, "scored_head", watched)
    expansion, twins = Expansion.load(kept / EXPANSION_FILE), [(f"{n} again", text) for n, text in documents]
    with open_home(tmp_path / "c", dense_width(model), engine="numpy") as home:
        for part in (documents, twins):
            add_documents(home, model, part)
        home.drop([point_number(name) for name, _ in documents[::5]])
        for query in QUERIES:
            hits = search(home, model, query, head, expand="query", expansion=expansion)
            slow = the_slow_way(home, model, query, expansion, head, head)
            assert [(hit.id, hit.score) for hit in hits] == slow
    assert any(some is not None for some in found)
