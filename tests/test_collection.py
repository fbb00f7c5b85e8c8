"""A search collection: others' points are safe, no document is lost, little is embedded twice."""

import json
import subprocess
import sys
import threading

import numpy as np
import pytest
from calls import call
from conftest import minicoil
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from passes import counted
from qdrant_fake import FakeQdrant, serving
from real_server import PLACES, some_server

from minicoil import MiniCOIL
from minicoil.retrieval import collect_calls, collect_folder
from minicoil.retrieval.collection import open_collection
from minicoil.retrieval.documents import (
    add_documents,
    build_collection,
    dense_width,
    point_number,
    remove_documents,
)
from minicoil.retrieval.judged import read_collection, read_judged
from minicoil.retrieval.search import WAYS, explain_hits, search, search_documents
from minicoil.runs.files import UserError
from minicoil.serving.sparse import unknown_index

BATS = [("cave", "A bat left the cave at dusk."), ("club", "He swung the bat."), ("money", "The bank.")]
OF_OTHERS = {"url": "https://example.org", "pages": 3}
TODAY = ("id", "text", "digest")


@pytest.fixture(scope="module")
def model(tiny_run):
    return MiniCOIL.load(tiny_run / "23_model", threads=1)


@pytest.fixture(params=PLACES)
def place(request, tmp_path):
    """Where a collection can be made: an empty folder, a stand-in for a server, the tester's server."""
    if request.param == "folder":
        yield tmp_path / "kept"
        return
    with some_server(request.param) as url:
        yield url


class Owner:
    """Another program with points in the same place."""

    def __init__(self, place, width):
        self.place, self.width = place, width

    def on_server(self):
        from qdrant_client import models as m

        from minicoil.runs.server import connect_server

        client = connect_server(self.place)
        if not client.collection_exists("minicoil"):
            dense = m.VectorParams(size=self.width, distance=m.Distance.COSINE)
            sparse = m.SparseVectorParams(modifier=m.Modifier.IDF)
            client.create_collection("minicoil", {"dense": dense}, {"minicoil": sparse})
        return client, m

    def in_folder(self):
        import qdrant_edge as q

        if (self.place / "edge_config.json").exists():
            return q.EdgeShard.load(str(self.place)), q
        self.place.mkdir(parents=True)
        dense = q.EdgeVectorParams(size=self.width, distance=q.Distance.Cosine)
        sparse = q.EdgeSparseVectorParams(modifier=q.Modifier.Idf)
        config = q.EdgeConfig(vectors={"dense": dense}, sparse_vectors={"minicoil": sparse}, wal_enabled=True)
        return q.EdgeShard.create(str(self.place), config), q

    def put(self, payloads):
        """Put points {number: payload} there, all with the same vectors."""
        one = np.eye(1, self.width)[0].tolist()
        if isinstance(self.place, str):
            client, m = self.on_server()
            vectors = {"dense": one, "minicoil": m.SparseVector(indices=[4], values=[9])}
            points = [m.PointStruct(id=i, payload=p, vector=vectors) for i, p in payloads.items()]
            client.upsert("minicoil", points)
            client.close()
            return
        shard, q = self.in_folder()
        vectors = {"dense": one, "minicoil": q.SparseVector([4], [9])}
        shard.update(
            q.UpdateOperation.upsert_points(
                [q.Point(id=i, payload=p, vector=vectors) for i, p in payloads.items()]
            )
        )
        shard.flush()
        shard.close()

    def payloads(self):
        """{number: payload} of all points that are there."""
        if isinstance(self.place, str):
            client, _ = self.on_server()
            fields = [*OF_OTHERS, *TODAY, "made_by"]
            points, _ = client.scroll("minicoil", limit=10_000, with_payload=fields)
            client.close()
        else:
            shard, q = self.in_folder()
            points, _ = shard.scroll(q.ScrollRequest(limit=10_000, with_payload=True, with_vector=False))
            shard.close()
        return {p.id: p.payload for p in points}


@pytest.fixture
def owner(place, model):
    return Owner(place, dense_width(model))


def test_points_of_others_are_refused(place, owner, model):
    """A collection that holds others' points is refused in one line, and nothing in it changes."""
    owner.put({i: OF_OTHERS for i in range(5)})
    before = owner.payloads()
    for use in (lambda: build_collection(place, model, BATS), lambda: open_collection(place).__enter__()):
        with pytest.raises(UserError, match="not of miniCOIL.*--collection-name") as e:
            use()
        assert "\n" not in str(e.value)
    assert owner.payloads() == before


def test_points_of_others_stay_where_the_collection_is_named(place, owner, model):
    """A named collection takes our points beside others': only ours are found, renewed and deleted."""
    owner.put({i: OF_OTHERS for i in range(5)})
    assert build_collection(place, model, BATS, 2.0, name="minicoil")["embedded"] == 3
    with open_collection(place, name="minicoil") as home:
        assert len(home.digests()) == 3
        for using in WAYS:
            hits = search(home, model, "the bat", 10, using)
            assert {hit.id for hit in hits} <= {name for name, _ in BATS}
            assert len(hits) == (3 if using != "minicoil" else 2)
        for hit, rows in explain_hits(home, model, "the bat", search(home, model, "the bat", 10)):
            assert sum(row["contribution"] for row in rows) == pytest.approx(hit.score, abs=1e-3)
    assert build_collection(place, model, BATS[:1], 2.0, name="minicoil")["embedded"] == 0
    left = owner.payloads()
    assert [left[i] for i in range(5)] == [OF_OTHERS] * 5
    assert sum(payload.get("id") is not None for payload in left.values()) == 1


def test_no_point_of_others_is_overwritten(place, owner, model):
    """A document whose number another program has taken is refused, not put in its place."""
    owner.put({point_number("cave"): OF_OTHERS})
    with pytest.raises(UserError, match="not of miniCOIL"):
        build_collection(place, model, BATS, name="minicoil")
    assert owner.payloads()[point_number("cave")] == OF_OTHERS


def test_a_collection_from_before_the_mark_is_ours(place, owner, model):
    """Points that all carry id, text and digest are ours: the next call marks them and goes on."""
    owner.put({point_number(name): {"id": name, "text": text, "digest": "old"} for name, text in BATS})
    assert build_collection(place, model, BATS[:2])["documents"] == 2
    kept = [payload for payload in owner.payloads().values() if "id" in payload]
    assert sorted(payload["id"] for payload in kept) == ["cave", "club"]
    assert all(payload["made_by"] == "minicoil" for payload in kept)


def test_a_search_marks_a_collection_from_before(place, owner, model):
    """Opening is enough: unmarked points of ours are found by the first search."""
    owner.put({i: {"id": str(i), "text": "A bat.", "digest": "old"} for i in range(3)})
    with open_collection(place) as home:
        assert len(home.digests()) == 3
        assert search(home, model, "bat", 10, "dense")


def test_one_stranger_among_points_from_before(place, owner, model):
    """One point that lacks part of our payload makes a collection somebody else's."""
    owner.put({1: {"id": "a", "text": "A bat.", "digest": "old"}, 2: {"id": "b", "text": "A bat."}})
    before = owner.payloads()
    with pytest.raises(UserError, match="not of miniCOIL"):
        build_collection(place, model, BATS)
    assert owner.payloads() == before


def test_two_models_in_a_named_collection(place, model):
    """A collection that was named refuses another model; one of its own is embedded anew."""
    own = place if isinstance(place, str) else place.with_name("own")
    build_collection(place, model, BATS, name="shared")
    build_collection(own, model, BATS)
    model.weights = model.weights * 2
    try:
        with pytest.raises(UserError, match="another model"):
            build_collection(place, model, BATS, name="shared")
        assert build_collection(own, model, BATS)["embedded"] == 3
    finally:
        model.weights = model.weights / 2


def test_two_names_are_two_collections(place, model):
    """Collections of two names in one place know nothing of each other."""
    build_collection(place, model, BATS[:1], name="a")
    build_collection(place, model, BATS[1:], name="b")
    with open_collection(place, name="a") as home:
        assert list(home.digests()) == [point_number("cave")]


@pytest.mark.parametrize("name", ["../up", "a/b", ".", "..", "a\0b", "x" * 300])
def test_a_name_is_a_name(place, model, name):
    """What cannot be a collection's name is refused in one line."""
    with pytest.raises(UserError, match="name"):
        build_collection(place, model, BATS, name=name)


def test_the_command_takes_a_name(place, owner, tiny_run, tmp_path):
    """`minicoil search` refuses others' points with exit code 2, and takes --collection-name."""
    owner.put({i: OF_OTHERS for i in range(5)})
    (tmp_path / "texts.txt").write_text("A bat left the cave.\nThe bank of the river.")
    asked = ("search", "--model", tiny_run / "23_model", "--documents", tmp_path / "texts.txt")
    asked += ("--collection", place)
    refused = minicoil(*asked, "bat")
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1
    assert "--collection-name" in refused.stderr
    found = minicoil(*asked, "--collection-name", "minicoil", "bat")
    assert found.returncode == 0, found.stderr
    assert "A bat left the cave." in found.stdout
    assert [owner.payloads()[i] for i in range(5)] == [OF_OTHERS] * 5


def test_files_of_the_user_are_no_place_for_a_shard(tmp_path, model):
    """A folder with other files in it is not made a collection."""
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="other files"):
        build_collection(tmp_path, model, BATS)
    assert [f.name for f in tmp_path.iterdir() if not f.name.startswith(".")] == ["mine.txt"]


def test_files_of_one_name(tmp_path, model):
    """Files of one name in two sub-folders are two documents, in every format."""
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.txt").write_text(f"A bat in {folder}.")
        (tmp_path / folder / "b.jsonl").write_text(f'{{"text": "A bank in {folder}."}}')
    found = search_documents(model, read_collection(tmp_path), ["bat bank"], limit=10)[0]
    assert {hit.id for hit, _ in found} == {"x/a.txt", "y/a.txt", "x/b.jsonl:1", "y/b.jsonl:1"}


def test_two_documents_of_one_id(place, model):
    """Two documents with one id are refused before anything is embedded: one of them would be lost."""
    with pytest.raises(UserError, match="two documents have the id 'cave'"):
        build_collection(place, model, [*BATS, ("cave", "Another text.")])


def test_one_more_document(place, model):
    """With one document more, it alone is embedded; the recorded mean length is kept."""
    documents = [(f"d{i}", "A bat left the cave at dusk. " * (1 + i % 3)) for i in range(60)]
    first = build_collection(place, model, documents)
    more = build_collection(place, model, [*documents, ("new", "The bank.")])
    assert more == {"documents": 61, "embedded": 1, "avg_len": first["avg_len"]}
    with open_collection(place) as home:
        hits = search(home, model, "bat bank", 5)
        for hit, rows in explain_hits(home, model, "bat bank", hits):
            assert sum(row["contribution"] for row in rows) == pytest.approx(hit.score, abs=1e-3)


def test_the_mean_length_is_renewed(place, model):
    """Once the mean has moved by more than a tenth, it is recorded and everything is embedded again."""
    documents = [(f"d{i}", "A bat left the cave at dusk.") for i in range(30)]
    first = build_collection(place, model, documents)
    longer = [*documents, *((f"long {i}", "A bat left the cave at dusk. " * 9) for i in range(5))]
    renewed = build_collection(place, model, longer)
    assert renewed["avg_len"] > 1.1 * first["avg_len"]
    assert renewed["embedded"] == 35
    assert build_collection(place, model, longer)["embedded"] == 0


def test_the_mean_length_creeps(place, model):
    """Many small steps are measured against the recorded mean, so they cannot creep away from it."""
    documents = [(f"d{i}", "A bat left the cave at dusk.") for i in range(20)]
    lengths = []
    for step in range(8):
        documents.append((f"long {step}", "A bat left the cave at dusk. " * 4))
        lengths.append(build_collection(place, model, documents)["avg_len"])
    words = [4 if name.startswith("d") else 16 for name, _ in documents]
    assert len(set(lengths)) > 1
    assert lengths[-1] == pytest.approx(np.mean(words), rel=0.1)


def test_a_mean_length_that_is_given(place, model):
    """A length that the user gives is used and recorded, however near it is."""
    build_collection(place, model, BATS, avg_len=5.0)
    again = build_collection(place, model, BATS, avg_len=5.1)
    assert again == {"documents": 3, "embedded": 3, "avg_len": 5.1}
    for wrong in (0, -1, float("nan"), float("inf"), 10**400, "long", [5]):
        with pytest.raises(UserError, match="avg_len"):
            build_collection(place, model, BATS, avg_len=wrong)


def two_with_one_index(shift):
    """Two numbers, as words, that share an index."""
    seen = {}
    for word in map(str, range(100, 200_000)):
        other = seen.setdefault(unknown_index(word, shift), word)
        if other != word:
            return other, word


def test_two_words_that_share_an_index(place, model):
    """Two words of one index are summed: the engine takes the vector, and score and explanation agree."""
    a, b = two_with_one_index(model.shift)
    documents = [("both", f"The bat {a} has the number {b}."), ("one", f"The bat {a}."), *BATS]
    build_collection(place, model, documents)
    with open_collection(place) as home:
        for query in (f"{a} {b}", a, f"the bat {b}"):
            found = explain_hits(home, model, query, search(home, model, query))
            assert found[0].hit.id == "both"
            for hit, rows in found:
                assert sum(row["contribution"] for row in rows) == pytest.approx(hit.score, rel=1e-3)


def test_words_beside_symbols(place, model):
    """A search reads as documents were read: the same words on both sides, whatever stands beside them."""
    texts = ["The new Bank® account", "a bat🍕", "the ｂａｎｋ", "bat²", "a ba\u00adt"]
    texts.append("word " * 300 + "bank")
    documents = [(str(i), text) for i, text in enumerate(texts)]
    banks, bats = {"0", "2", "5"}, {"1", "3", "4"}
    for query in ("bank", "Bank®", "the bat™", "ｂａｔ"):
        found = search_documents(model, documents, [query], limit=10, where=place, avg_len="auto")[0]
        assert {hit.id for hit, _ in found} == (banks if query in ("bank", "Bank®") else bats)
        for hit, rows in found:
            assert sum(row["contribution"] for row in rows) == pytest.approx(hit.score, abs=1e-3)


def test_an_explanation_embeds_the_query_only(model, tmp_path, monkeypatch):
    """Long documents are explained from what the index holds, and by what the search read of the query."""
    documents = [(f"d{i}", f"The bat left cave {i} at dusk. " * 400) for i in range(6)]
    build_collection(tmp_path / "c", model, documents)
    with open_collection(tmp_path / "c") as home:
        ran = counted(model, monkeypatch)
        hits = search(home, model, "a bat in a cave")
        found = explain_hits(home, model, "a bat in a cave", hits)
        assert len(ran) == 1, ran
        monkeypatch.setattr(model, "last_query", None)  # e.g. another query came between
        assert explain_hits(home, model, "a bat in a cave", hits) == found
    assert len(found) == 6
    assert all(rows for _, rows in found)
    assert len(ran) == 2, ran


HOLD = """
import sys
from minicoil.retrieval.collection import open_collection
with open_collection(sys.argv[1], 8):
    print("open", flush=True)
    sys.stdin.read()
"""


def hold(folder):
    """A process that has the collection open until its standard input is closed."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    held = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert held.stdout.readline() == "open\n"
    return held


def test_a_second_search_waits(tmp_path):
    """A collection that another search has open is waited for."""
    held, found = hold(tmp_path / "c"), []

    def open_it():
        with open_collection(tmp_path / "c", 8) as home:
            found.append(home.digests())

    second = threading.Thread(target=open_it)
    second.start()
    second.join(0.5)
    assert second.is_alive()
    assert found == []
    held.stdin.close()
    assert held.wait() == 0
    second.join()
    assert found == [{}]


def test_a_second_search_gives_up(tmp_path, monkeypatch):
    """One that stays open ends the second search in one line; one that was killed does not."""
    monkeypatch.setattr(collect_calls, "WAIT", 0.3)
    held = hold(tmp_path / "c")
    with pytest.raises(UserError, match=f"in use by another search.*{held.pid}") as e:
        open_collection(tmp_path / "c", 8).__enter__()
    assert "\n" not in str(e.value)
    held.kill()
    held.wait()
    with open_collection(tmp_path / "c", 8) as home:
        assert home.digests() == {}


def test_many_documents_are_settled(tmp_path, monkeypatch):
    """A shard of many documents is settled when it is closed, finds what it found, and takes more; one of an
    earlier version, where that would build a graph, is left as it is."""
    import qdrant_edge as q

    from minicoil.retrieval.claim import MARK_FIELD, Point
    from minicoil.serving.sparse import SparseEmbedding

    rng = np.random.default_rng(0)
    monkeypatch.setattr(collect_folder, "MANY", 3_000)

    def point(i):
        values = SparseEmbedding(np.array([i % 50, 60], np.int32), rng.random(2).astype(np.float32))
        dense = rng.normal(size=64).astype(np.float32)
        return Point(i, {"id": f"d{i:05}", "text": "", "digest": ""}, dense, values)

    points = [point(i) for i in range(3_000)]
    asked = {"dense": points[7].dense, "minicoil": points[7].sparse}
    before = tmp_path / "before"
    vectors = {"dense": q.EdgeVectorParams(size=64, distance=q.Distance.Cosine)}
    weighted = {"minicoil": q.EdgeSparseVectorParams(modifier=q.Modifier.Idf)}
    shard = q.EdgeShard.create(str(before), q.EdgeConfig(vectors=vectors, sparse_vectors=weighted))
    shard.update(q.UpdateOperation.create_field_index(MARK_FIELD, q.PayloadSchemaType.Keyword))
    shard.close()
    settled, settle = [], collect_folder.settle
    monkeypatch.setattr(collect_folder, "settle", lambda shard: settled.append(folder.name) or settle(shard))
    for folder in (tmp_path / "new", before):
        with open_collection(folder, 64) as home:
            home.put(points)
            lists = home.lists(asked, 20)
            found = {using: [p.id for p in some] for using, some in lists.items()}
            hybrid = [p.id for p in home.fused(asked, 10)]
        with open_collection(folder, 64) as home:
            again = {using: [p.id for p in some] for using, some in home.lists(asked, 20).items()}
            assert again == found
            assert [p.id for p in home.fused(asked, 10)] == hybrid
            home.put([points[0]._replace(number=10**6)])
            assert len(home.digests()) == len(points) + 1
    assert settled == ["new"]


def test_two_searches_make_one_collection(model):
    """Two searches that make a server's collection at once both find it made."""
    server = FakeQdrant()
    with serving(server) as url:
        real = server.CollectionExists
        answers = iter([False, False])

        def not_yet(request, context):
            found = real(request, context)
            found.result.exists = next(answers, found.result.exists)
            return found

        build_collection(url, model, BATS)
        server.CollectionExists = not_yet
        assert build_collection(url, model, BATS)["embedded"] == 0


def beir(folder, documents, queries, judged):
    """A BEIR folder."""
    (folder / "qrels").mkdir(parents=True)
    lines = [json.dumps({"_id": i, "title": "", "text": text}) for i, text in documents]
    (folder / "corpus.jsonl").write_text("\n".join(lines))
    lines = [json.dumps({"_id": i, "text": text}) for i, text in queries]
    (folder / "queries.jsonl").write_text("\n".join(lines))
    rows = ["query-id\tcorpus-id\tscore", *(f"{q}\t{d}\t{grade}" for q, d, grade in judged)]
    (folder / "qrels" / "test.tsv").write_text("\n".join(rows))
    return folder


@pytest.mark.parametrize(
    "judged, why",
    [
        ([("q", "elsewhere", 1)], "no document that qrels/test.tsv names is in corpus.jsonl"),
        ([("q", "nowhere", 0), ("q", "elsewhere", 1)], "no document that qrels/test.tsv names"),
        ([("another", "cave", 1)], "no query has a judged document"),
        ([("another", "cave", 1), ("q", "elsewhere", 2)], "no document that qrels/test.tsv names"),
        ([("q", "cave", 10**20)], "is out of range"),
    ],
)
def test_judgements_of_another_collection(tiny_run, tmp_path, judged, why):
    """Judgements that name nothing in the collection are refused in one line, not scored 0."""
    folder = beir(tmp_path / "c", BATS, [("q", "bat")], judged)
    done = call(tmp_path, "benchmark", "retrieval", "--model", tiny_run / "23_model", "--data", folder)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert why in done.stderr


def test_judgements_that_are_partly_missing(tmp_path, capsys):
    """Judged documents and queries that are not there are counted and named on one line."""
    judged = [("q", "cave", 1), *(("q", f"gone {i}\x1b", 1) for i in range(5)), ("lost", "cave", 1)]
    found = read_judged(beir(tmp_path / "c", BATS, [("q", "bat")], judged))
    said = capsys.readouterr().err
    assert len(found.judged["q"]) == 6
    assert len(said.splitlines()) == 1
    assert "5 of 6 judged documents are not in corpus.jsonl" in said
    assert "gone 0" in said
    assert "1 of 2 judged queries are not in queries.jsonl ('lost')" in said
    assert "\x1b" not in said


def test_judgements_that_contradict_each_other(tmp_path, capsys):
    """A pair that is judged twice with two grades is counted and its line named; the same grade twice is
    nothing."""
    judged = [("q", "cave", 1), ("q", "cave", 1), ("q", "club", 2), ("q", "club", 0), ("q", "cave", 2)]
    found = read_judged(beir(tmp_path / "c", BATS, [("q", "bat")], judged[:2]))
    assert (found.judged, capsys.readouterr().err) == ({"q": {"cave": 1}}, "")
    found = read_judged(beir(tmp_path / "d", BATS, [("q", "bat")], judged))
    said = capsys.readouterr().err
    assert found.judged == {"q": {"cave": 2, "club": 0}}
    assert len(said.splitlines()) == 1
    assert "2 judgements contradict an earlier line" in said
    assert "the first is line 5" in said


anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from([10**30, -(10**30), 2**63, 2**64, 1e308, [], {}]),
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(limit=anything, using=st.one_of(anything, st.sampled_from(WAYS)), weight=anything)
@example(limit=10**30, using="minicoil", weight=0.5)
@example(limit=2**63, using="hybrid", weight=0.5)
@example(limit=10**9, using="mix", weight=1)
@example(limit=True, using="dense", weight=True)
@example(limit=3, using="mix", weight=float("nan"))
def test_fuzz_what_a_search_is_asked(model, tmp_path_factory, limit, using, weight):
    """Any limit, way and weight gives hits or one line."""
    folder = tmp_path_factory.getbasetemp() / "asked"
    if not folder.exists():
        build_collection(folder, model, BATS)
    with open_collection(folder) as home:
        try:
            assert len(search(home, model, "a bat", limit, using, weight)) <= 3
        except UserError as e:
            assert "\n" not in str(e)


def test_documents_come_and_go_one_at_a_time(model, place):
    """What is added with `keep` stands beside the others, and what is removed is gone, alone."""
    with open_collection(place, dense_width(model)) as home:
        model.avg_len = 5.0
        assert add_documents(home, model, [("a", "A bat in a cave."), ("b", "The bank of a river.")]) == 2
        assert add_documents(home, model, [("c", "A seal."), ("b", "A bank in the city.")], keep=True) == 2
        assert set(home.digests()) == {point_number(name) for name in "abc"}
        assert [hit.text for hit in search(home, model, "city bank", 1)] == ["A bank in the city."]
        assert remove_documents(home, ["a", "nowhere"]) == 1
        assert set(home.digests()) == {point_number(name) for name in "bc"}
        model.avg_len = 50.0
        with pytest.raises(UserError, match="avg_len=5"):
            add_documents(home, model, [("d", "A bat.")], keep=True)
        assert set(home.digests()) == {point_number(name) for name in "bc"}


texts = st.text(st.characters(), max_size=40) | st.sampled_from(
    ["", " ", "\0", "bat" * 200, "\ud800", "bat\u200bbat", "ﬁnance Bank®", "١٢٣ bat", "a\u0301" * 50]
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(documents=st.lists(st.tuples(texts | st.sampled_from("ab"), texts), max_size=6), query=texts)
def test_fuzz_documents_of_any_text(model, tmp_path_factory, documents, query):
    """Documents of any id and text are found and explained, each its own, or refused in one line."""
    folder = tmp_path_factory.getbasetemp() / "any"
    try:
        found = search_documents(model, documents, [query, "a bat"], 10, where=folder, avg_len="auto")
    except UserError as e:
        twice = len({name for name, _ in documents}) < len(documents)
        half = any("\ud800" <= c <= "\udfff" for text in (query, *sum(documents, ())) for c in text)
        assert "\n" not in str(e), e
        assert twice or half, e
        return
    for hits in found:
        for hit, rows in hits:
            assert dict(documents)[hit.id] == hit.text
            assert sum(row["contribution"] for row in rows) == pytest.approx(hit.score, rel=1e-3, abs=1e-3)
    with open_collection(folder) as home:
        assert sorted(home.digests()) == sorted(point_number(name) for name, _ in documents)
        add_documents(home, model, documents)
