"""A Qdrant server as its owner wants it.

How collections are laid out, whose points are whose, what a call costs, one order of equal scores in every
engine, and a server that comes and goes.

With QDRANT_URL set the same is tried on that server; see support/real_server.py.
"""

import contextlib
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import numpy as np
import pytest
from calls import call as called
from chains import copy_before, digests
from conftest import minicoil
from qdrant_client import QdrantClient
from qdrant_client import models as m
from qdrant_fake import FakeQdrant, Proxy, serving
from real_server import KILL, PLACES, RETURN, URL, call, names, needs_hook, real_server, some_server
from test_store import ABOUT, DIM, N, expected, sentences

import minicoil.runs.server as talk
from minicoil import MiniCOIL
from minicoil.commands.chain import Execution
from minicoil.retrieval.closest import in_order
from minicoil.retrieval.collect_server import Server
from minicoil.retrieval.collection import open_collection
from minicoil.retrieval.documents import add_documents, build_collection, dense_width, point_number
from minicoil.retrieval.inverted import open_home
from minicoil.retrieval.search import WAYS, explain_hits, search
from minicoil.runs.files import UserError
from minicoil.runs.run import open_run
from minicoil.runs.server import LAYOUT, Layout, layout_text, patiently
from minicoil.stages.store import ServerStore, run_key, upload_to_qdrant

BATS = [("cave", "A bat left the cave at dusk."), ("club", "He swung the bat."), ("money", "The bank.")]


@pytest.fixture(scope="module")
def model(tiny_run):
    return MiniCOIL.load(tiny_run / "23_model", threads=1)


@pytest.fixture(params=PLACES[1:])
def server(request):
    """The URL of a stand-in, and of the tester's server where there is one."""
    with some_server(request.param) as url:
        yield url


def made(url, name):
    """What a server says of a collection."""
    with contextlib.closing(talk.connect_server(url)) as client:
        return client.get_collection(name).config.params


# How a collection is laid out


def test_a_store_is_laid_out_as_asked(fake):
    """Shards, replicas and the seconds of a call reach the server; without them it has its own way."""
    ServerStore(fake[1], "c", DIM, 2_500_000, layout=Layout(shards=6, replicas=2, timeout=7))
    asked = fake[0].created["c"]
    assert (asked.shard_number, asked.replication_factor, asked.timeout) == (6, 2, 7)
    ServerStore(fake[1], "d", DIM, 2_500_000)
    assert fake[0].created["d"].shard_number == 3
    assert not fake[0].created["d"].HasField("replication_factor")


def test_a_search_collection_is_laid_out_as_asked(fake):
    """So do those of a search, whose collection has one shard: IDF is counted in each shard."""
    with open_collection(fake[1], DIM, "c", layout=Layout(shards=2, replicas=3)):
        pass
    assert (fake[0].created["c"].shard_number, fake[0].created["c"].replication_factor) == (2, 3)
    with open_collection(fake[1], DIM, "d"):
        pass
    assert fake[0].created["d"].shard_number == 1


def test_a_collection_that_exists_keeps_its_settings(server, capsys):
    """One that its owner made is used as it is, and one line says what is not as asked."""
    with contextlib.closing(talk.connect_server(server)) as client:
        vectors = m.VectorParams(size=DIM, distance=m.Distance.COSINE)
        client.create_collection("mine", vectors, shard_number=2, replication_factor=1)
    with ServerStore(server, "mine", DIM, N, layout=Layout(shards=5, replicas=1), run="key") as place:
        place.upload(0, *sentences(500))
        assert place.count() == 500
    assert made(server, "mine").shard_number == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "the collection mine exists and keeps its own settings: 2 shards, not 5" in line


def test_the_time_of_a_call(fake):
    """--qdrant-timeout is what every call may take: a server that is silent is noticed after it."""
    with Proxy(fake[1]) as line, ServerStore(line.url, "c", DIM, N, layout=Layout(timeout=1)) as place:
        line.silent = True
        with pytest.raises(grpc.RpcError) as e:
            place.client.count("c")
        assert e.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize(
    "asked, said",
    [
        (["run", "--qdrant-replicas", 2], "--qdrant-replicas needs --qdrant with"),
        (["run", "--collection-name", "mine"], "--collection-name needs --qdrant with"),
        (["run", "--qdrant", "http://h", "--qdrant-shards", 0], "qdrant-shards is 0"),
        (["run", "--qdrant", "http://h", "--qdrant-timeout", 10**6], "qdrant-timeout is 1000000"),
        (["run", "--qdrant", "http://h", "--collection-name", "a/b"], "cannot be a collection's name"),
        (["search", "--qdrant-shards", 2, "bat"], "--qdrant-shards needs --collection with"),
        (["search", "--collection", "here", "--qdrant-timeout", 9, "bat"], "--qdrant-timeout needs --coll"),
    ],
)
def test_options_that_would_do_nothing(tmp_path, asked, said):
    """Options of a server without one, or out of bounds, are refused in one line before anything is made."""
    done = called(tmp_path, *asked)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_search_command_on_a_server(model, tiny_run, tmp_path, fake):
    """`minicoil search` lays a new collection out, and finds what it put there."""
    (tmp_path / "texts.txt").write_text("A bat left the cave.\nThe bank of the river.")
    asked = ("search", "--model", tiny_run / "23_model", "--documents", tmp_path / "texts.txt")
    asked += ("--collection", fake[1], "--collection-name", "notes", "--qdrant-replicas", 2)
    found = minicoil(*asked, "--qdrant-shards", 3, "--qdrant-timeout", 20, "bat")
    assert found.returncode == 0, found.stderr
    assert "A bat left the cave." in found.stdout
    assert (fake[0].created["notes"].shard_number, fake[0].created["notes"].replication_factor) == (3, 2)


def test_a_run_takes_the_layout(tiny_run, tmp_path, fake, monkeypatch):
    """What the options ask for reaches the stage: the collection has the name, the shards and the mark."""
    assert Execution(layout=Layout(3)).layout == Layout(3)
    folder = copy_before(tiny_run, "store", tmp_path / "run")
    monkeypatch.setenv("MINICOIL_QDRANT", fake[1])
    monkeypatch.setenv(LAYOUT, layout_text(Layout(shards=4, replicas=2, name="mine")))
    run = open_run(folder)
    assert upload_to_qdrant(run)["collection"] == "mine"
    assert (fake[0].created["mine"].shard_number, fake[0].created["mine"].replication_factor) == (4, 2)
    marks = {point["run"].string_value for point in fake[0].points["mine"].values()}
    assert marks == {run_key(run)}
    assert digests(folder / "13_store")["drawn.parquet"] == digests(tiny_run / "13_store")["drawn.parquet"]


# Whose points are whose (of search collections: test_collection.py)


def test_points_of_others_in_a_named_store(server):
    """A named collection with others' points is refused in one line, and nothing in it changes."""
    with contextlib.closing(talk.connect_server(server)) as client:
        client.create_collection("mine", m.VectorParams(size=DIM, distance=m.Distance.COSINE))
        theirs = [m.PointStruct(id=i, vector=[1.0] * DIM, payload={"url": "theirs"}) for i in range(5)]
        client.upsert("mine", theirs)
        before = client.scroll("mine", limit=10)[0] if server == URL else None
        with pytest.raises(UserError, match="mine holds 5 points that are not this run's") as e:
            ServerStore(server, "mine", DIM, N, run="key")
        assert "\n" not in str(e.value)
        assert client.count("mine").count == 5
        assert client.get_collection("mine").payload_schema == {}
        assert before is None or client.scroll("mine", limit=10)[0] == before


def test_a_named_store_is_resumed_by_its_run_only(server):
    """The run that made a named collection goes on with it; another run's is refused, unmarked ones too."""
    rows = sentences(1000)
    with ServerStore(server, "mine", DIM, 1000, run="key") as place:
        place.upload(0, *(column[:500] for column in rows))
    with ServerStore(server, "mine", DIM, 1000, run="key") as place:
        place.upload(0, *rows)
        assert place.count() == 1000
        assert [ids.tolist() for ids, _ in place.draw(ABOUT, 100)] == expected(rows)
    with pytest.raises(UserError, match="1,000 points that are not this run's"):
        ServerStore(server, "mine", DIM, 1000, run="another")
    with ServerStore(server, "unmarked", DIM, 500) as place:
        place.upload(0, *(column[:500] for column in rows))
    with pytest.raises(UserError, match="500 points that are not this run's"):
        ServerStore(server, "unmarked", DIM, 500, run="key")


def test_todays_store_goes_on(server):
    """A collection with the name that its run gave it needs no mark: one from an earlier version goes on."""
    rows = sentences(1000)
    for part in (500, 1000):
        with ServerStore(server, "minicoil-run-0123", DIM, 1000) as place:
            place.upload(0, *(column[:part] for column in rows))
            assert place.count() == part


def test_other_collections_stay(server, model):
    """What a run and a search make leaves the collections of others as they were."""
    with contextlib.closing(talk.connect_server(server)) as client:
        client.create_collection("theirs", m.VectorParams(size=3, distance=m.Distance.DOT))
        client.upsert("theirs", [m.PointStruct(id=1, vector=[1.0, 2.0, 3.0], payload={"id": "x"})])
        with ServerStore(server, "ours", DIM, N, run="key") as place:
            place.upload(0, *sentences(500))
        build_collection(server, model, BATS, name="notes")
        assert {"theirs", "ours", "notes"} <= names(client)
        assert client.count("theirs").count == 1
        assert client.retrieve("theirs", [1], with_payload=["id"])[0].payload == {"id": "x"}


def test_a_new_model_behind_an_alias(server, model):
    """A second model is built beside the first; an alias that is switched leads searches to it."""
    from qdrant_client.models import CreateAlias, CreateAliasOperation, DeleteAlias, DeleteAliasOperation

    build_collection(server, model, BATS, 2.0, name="articles-1")
    model.weights = model.weights * 2
    try:
        with pytest.raises(UserError, match="another model"):
            build_collection(server, model, BATS, 2.0, name="articles-1")
        build_collection(server, model, BATS[:2], 2.0, name="articles-2")
        with contextlib.closing(talk.connect_server(server)) as client:
            found, delete = [], []
            for name in ("articles-1", "articles-2"):
                create = CreateAlias(collection_name=name, alias_name="articles")
                client.update_collection_aliases([*delete, CreateAliasOperation(create_alias=create)])
                delete = [DeleteAliasOperation(delete_alias=DeleteAlias(alias_name="articles"))]
                with open_collection(server, name="articles") as home:
                    found.append(len(home.digests()))
                    assert len(search(home, model, "bat", 10, "dense")) == found[-1]
        assert found == [3, 2]
    finally:
        model.weights = model.weights / 2


# What a call costs


def test_a_draw_of_many_words_is_few_calls(fake):
    """130 words are drawn in three calls, each point with its number and key and nothing else."""
    rows = sentences(1000)
    with ServerStore(fake[1], "c", DIM, 1000) as place:
        place.upload(0, *rows)
        fake[0].calls.clear()
        drawn = place.draw(ABOUT[:1] * 130, 50)
    assert fake[0].calls == ["query batch"] * 3
    assert [draw.ids.tolist() for draw in drawn] == expected(rows, 50)[:1] * 130


def test_an_upload_waits_once(fake):
    """8,192 sentences are 17 calls and one that counts; the last alone is waited for."""
    with ServerStore(fake[1], "c", DIM, 8192) as place:
        fake[0].calls.clear()
        place.upload(0, *sentences(8192))
    assert sorted(fake[0].calls) == ["count"] + ["upsert"] * 17
    assert fake[0].waited == [False] * 16 + [True]


def test_an_upload_that_comes_late(fake):
    """What the server has noted but not yet made is there once the upload returns."""
    fake[0].late = True
    with ServerStore(fake[1], "c", DIM, N) as place:
        place.upload(0, *sentences())
        assert place.count() == N


def test_an_upload_of_which_a_part_never_comes(fake, monkeypatch):
    """What a server took and lost is noticed by the count and sent again, waited for; then it is refused."""
    monkeypatch.setattr(talk.time, "sleep", lambda seconds: None)
    with ServerStore(fake[1], "c", DIM, N) as place:
        fake[0].forgotten = ["upsert"]
        place.upload(0, *sentences())
        assert place.count() == N
        assert fake[0].waited == [False] * 5 + [True] * 7
        fake[0].forgotten = ["upsert"] * 12
        with pytest.raises(UserError, match="took 3,000 points of other but does not have them all") as e:
            ServerStore(fake[1], "other", DIM, N).upload(0, *sentences())
        assert "\n" not in str(e.value)


def test_documents_of_which_a_part_never_comes(fake, model, monkeypatch):
    """So are documents: they are put without waiting, and the collection has each with its digest."""
    monkeypatch.setattr(talk.time, "sleep", lambda seconds: None)
    build_collection(fake[1], model, BATS, 2.0)
    fake[0].forgotten, fake[0].late = ["upsert"], True
    changed = [(name, text + " Bats.") for name, text in BATS]
    assert build_collection(fake[1], model, changed, 2.0)["embedded"] == 3
    stored = fake[0].points["minicoil"]
    texts = {stored[point_number(name)]["text"].string_value for name, _ in BATS}
    assert texts == {text for _, text in changed}


def test_a_search_is_one_call(fake, model):
    """Each way of searching is one call, hybrid and mix too; an explanation is two, whatever the words."""
    build_collection(fake[1], model, BATS)
    with open_collection(fake[1]) as home:
        for using in WAYS:
            fake[0].calls.clear()
            hits = search(home, model, "a bat left a cave at the bank", 3, using)
            assert fake[0].calls == ["query batch"], using
        fake[0].calls.clear()
        assert len(explain_hits(home, model, "a bat left a cave at the bank", hits)) == 3
        assert fake[0].calls == ["retrieve", "query batch"]


# One order of equal scores


def alike(n=60):
    """(id, text) of documents of which many are equal, under ids in no order."""
    texts = ["A bat left the cave.", "He swung the bat.", "The bank of the river.", "A bat, a bank, a cave."]
    turns = np.random.default_rng(5).permutation(n)
    return [(f"d{i:03d}", texts[i % 4]) for i in turns.tolist()]


@pytest.fixture(scope="module")
def orders(model, tmp_path_factory):
    """{(way, query): the hits of every engine} of documents with equal scores, by engine."""
    found, folder = {}, tmp_path_factory.mktemp("orders")
    with serving(FakeQdrant()) as url, contextlib.ExitStack() as stack:
        places = {"qdrant": folder / "q", "numpy": folder / "n", "server": url}
        if URL:
            places["real server"] = stack.enter_context(real_server())
        for engine, where in places.items():
            kind = {"engine": engine} if engine in ("qdrant", "numpy") else {}
            with open_home(where, model.embed_both(["a"])[0].shape[1], "orders", **kind) as home:
                from minicoil.retrieval.documents import fill_collection

                fill_collection(home, model, alike(), 3.0)
                for way in WAYS:
                    for query in ("bat", "a bat in a cave", "river bank"):
                        hits = search(home, model, query, 17, way)
                        found.setdefault((way, query), {})[engine] = hits
    return found


@pytest.mark.parametrize("way", WAYS)
def test_every_engine_orders_equals_alike(orders, way):
    """Of documents with equal scores every engine gives the same ones in the same order: by their ids."""
    for query in ("bat", "a bat in a cave", "river bank"):
        engines = orders[way, query]
        listed = {engine: [hit.id for hit in hits] for engine, hits in engines.items()}
        assert len({tuple(ids) for ids in listed.values()}) == 1, (way, query, listed)
        for hits in engines.values():
            scores = [hit.score for hit in hits]
            assert scores == sorted(scores, reverse=True)
            for a, b in zip(hits, hits[1:]):
                assert a.score > b.score or a.id < b.id, (way, query, a, b)
        texts = {hit.text for hit in engines["numpy"]}
        assert len(texts) < len(engines["numpy"]) / 2, "no documents are equal"


def test_equals_beyond_the_cut(fake, model):
    """Of more equals than an answer holds, those with the smallest ids are found, not the engine's first."""
    turns = np.random.default_rng(2).permutation(300).tolist()
    documents = [(f"{i:04d}", "He swung the bat.") for i in turns]
    build_collection(fake[1], model, documents)
    with open_collection(fake[1]) as home:
        for using in WAYS:
            assert [hit.id for hit in search(home, model, "bat", 5, using)] == [f"{i:04d}" for i in range(5)]


def test_nearly_equal_scores_are_equal():
    """Scores that differ in digits that 32 bits do not hold are equals; others are not."""
    def point(name, score):
        return m.ScoredPoint(id=ord(name), version=0, score=score, payload={"id": name})

    one = np.float32(12.345678)
    close = [point("c", float(one)), point("b", float(np.nextafter(one, np.float32(0)))), point("a", 12.0)]
    assert [found.payload["id"] for found in in_order(close)] == ["b", "c", "a"]
    assert in_order(close)[0].score == in_order(close)[1].score == float(one)


# A server that comes and goes


def test_four_uploads_wait_with_one_line(fake, monkeypatch, capsys):
    """Several calls that wait for one cluster say so once; when it is away again, they say it again."""
    monkeypatch.setattr(talk.time, "sleep", lambda seconds: None)
    said = "1 of 1 write operations failed; shard 2 is currently unavailable"
    with ServerStore(fake[1], "c", DIM, N) as place:
        fake[0].failures = [(grpc.StatusCode.INTERNAL, said)] * 4
        place.upload(0, *sentences())
        assert capsys.readouterr().err.count(said) >= 1
        talk.WAITING.add(place.server)
        threads = [threading.Thread(target=talk.say_waiting, args=(place.server, said)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert capsys.readouterr().err == ""
        fake[0].failures = [(grpc.StatusCode.INTERNAL, said)]
        talk.WAITING.clear()
        assert place.count() == N
        assert capsys.readouterr().err.count(said) == 1


@pytest.mark.parametrize("said", ["Timeout error: Operation timed out", "shard is UNAVAILABLE",
                                  "Waiting for consensus operation commit failed"])
def test_what_passes_is_waited_for(monkeypatch, said):
    """INTERNAL with unavailable, timeout or a consensus is tried again for more than four minutes."""
    pauses, answers = [], []
    monkeypatch.setattr(talk.time, "sleep", pauses.append)

    class Failure(grpc.RpcError):
        def code(self):
            return grpc.StatusCode.INTERNAL

        def details(self):
            return f"Service internal error: {said}"

    def action():
        answers.append(1)
        if len(answers) < 10:
            raise Failure
        return "done"

    assert patiently(action, "http://h:6333") == "done"
    assert 240 <= sum(pauses) <= 300


def upload_while(url, rows, take_away, bring_back, away):
    """Upload; meanwhile the server is taken away and brought back. Gives the store's ids and draw."""
    with ServerStore(url, "minicoil-run-killed", DIM, len(rows[0])) as place:
        half = len(rows[0]) // 2
        place.upload(0, *(column[:half] for column in rows))
        take_away()
        threading.Timer(away, bring_back).start()
        place.upload(half, *(column[half:] for column in rows))
        return place.count(), [ids.tolist() for ids, _ in place.draw(ABOUT, 100)]


def outage(line):
    """What takes the server behind a `Proxy` away, and what brings it back."""
    def go():
        line.away = True
        line.hang_up()

    def come():
        line.away = False

    return go, come


def test_a_server_that_is_killed_and_returns(fake):
    """A server that is away for a second in the middle of an upload costs a pause and no point."""
    rows = sentences()
    with Proxy(fake[1]) as line:
        assert upload_while(line.url, rows, *outage(line), 1.0) == (N, expected(rows))


def documents_while(url, model, take_away, bring_back, away):
    """Put documents; meanwhile the server is taken away and brought back. Gives what is found by each way."""
    many = [(f"{name}-{i}", text) for i in range(40) for name, text in BATS]
    with open_collection(url, dense_width(model), "killed") as home:
        model.avg_len = 3.0
        add_documents(home, model, many[:60])
        take_away()
        timer = threading.Timer(away, bring_back)
        timer.start()
        add_documents(home, model, many)
        timer.join()
        assert set(home.digests()) == {point_number(name) for name, _ in many}
        return [[hit.id for hit in search(home, model, "a bat in a cave", 3, way)] for way in WAYS]


def test_a_search_server_that_is_killed_and_returns(fake, model):
    """A search collection outlasts it too: every document comes, and each way of searching finds the best."""
    with Proxy(fake[1]) as line:
        found = documents_while(line.url, model, *outage(line), 0.5)
    assert found == [["cave-0", "cave-1", "cave-10"]] * len(WAYS)


@needs_hook
def test_a_real_server_that_is_killed_and_returns(model):
    """The same on the tester's server, by the tester's two commands."""
    rows = sentences(20_000)
    with real_server() as url:
        count, drawn = upload_while(url, rows, lambda: call(KILL), lambda: call(RETURN), 10.0)
        found = documents_while(url, model, lambda: call(KILL), lambda: call(RETURN), 10.0)
    assert (count, drawn) == (20_000, expected(rows))
    assert found == [["cave-0", "cave-1", "cave-10"]] * len(WAYS)


# A user's own client


def test_a_client_that_speaks_no_grpc(model):
    """A client of the user's, here the library's engine in memory, takes points and searches as ours does."""
    home = Server(":memory:", dense_width(model), name="c", client=QdrantClient(":memory:"))
    assert add_documents(home, model, BATS) == 3
    for way in WAYS:
        assert search(home, model, "a bat in a cave", 2, way)[0].id == "cave", way
    home.close()


def test_the_two_words_of_one_index(fake):
    """The server refuses a sparse vector that names an index twice, in one line: it never comes to that."""
    from minicoil.retrieval.claim import Point
    from minicoil.serving.sparse import SparseEmbedding

    twice = SparseEmbedding(np.array([4, 4], np.int32), np.array([1, 2], np.float32))
    with open_collection(fake[1], DIM) as home:
        with pytest.raises(UserError, match="INVALID_ARGUMENT.*unique") as e:
            home.put([Point(1, {"id": "a"}, np.ones(DIM, np.float32), twice)])
        assert "\n" not in str(e.value)


def test_the_bench_without_a_server(tmp_path):
    """The bench says of a server that none was recorded, and fills in the embedded figures."""
    bench = Path(__file__).parent / "bench" / "server.py"
    command = [sys.executable, str(bench), "--points", "2000", "--documents", "300", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "server.json").read_text()
    assert '"server": "not recorded"' in text
    assert '"upload_points_per_s"' in text
