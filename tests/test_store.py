"""The store: one contract for the embedded engine and a server; a server that fails ends in one line.

No key is written down.
"""

import os
import subprocess
import sys
import uuid
from pathlib import Path

import grpc
import numpy as np
import pytest
from chains import copy_before, digests
from qdrant_client import grpc as q
from qdrant_fake import FakeQdrant, nobody, serving

import minicoil.runs.server as talk
from minicoil.runs.files import UserError
from minicoil.runs.run import open_run
from minicoil.runs.server import check_server
from minicoil.stages import store
from minicoil.stages.draw import random_keys
from minicoil.stages.store import EdgeStore, ServerStore, collection_name, upload_to_qdrant

KEY = "a-secret-that-nobody-writes-down"
N, DIM = 3000, 8
ABOUT = [["bat", "bats"], ["café"], ["none"], ["cave", "bat"]]
needs_server = pytest.mark.skipif(
    not os.environ.get("MINICOIL_TEST_QDRANT"),
    reason="needs a Qdrant server: set QDRANT_URL (docs/qdrant/docker-compose.yml starts one)",
)


def sentences(n=N):
    """(ids, vectors, texts, forms, keys) of made-up sentences."""
    rng, ids = np.random.default_rng(0), np.arange(n) * 7
    some = [["bat", "café"], ["bats"], ["cave", "batman"], ["cave"]]
    return (
        ids,
        rng.normal(size=(n, DIM)).astype(np.float32),
        [f"text {i}" for i in ids],
        [some[i % 4] for i in range(n)],
        random_keys(3, ids),
    )


def fill(opened, rows, step=500):
    """Upload in parts and draw: ([(ids, keys)], number of points)."""
    with opened as place:
        for a in range(0, len(rows[0]), step):
            place.upload(a, *(x[a : a + step] for x in rows))
        return place.draw(ABOUT, 100), place.count()


def expected(rows, samples=100):
    """The draw by brute force."""
    ids, _, _, forms, keys = rows
    order = np.argsort(keys)
    return [[int(ids[i]) for i in order if set(any_of) & set(forms[i])][:samples] for any_of in ABOUT]


@pytest.mark.parametrize("shard_points", [500, 1000, 10_000])
def test_shards_of_any_size_draw_the_same(tmp_path, shard_points):
    """However a store is cut into shards, a word's draw is the brute-force one."""
    rows = sentences()
    drawn, count = fill(EdgeStore(tmp_path, DIM, shard_points), rows)
    assert len(list(tmp_path.iterdir())) == max(1, N // shard_points)
    assert count == N
    assert [ids.tolist() for ids, _ in drawn] == expected(rows)


def test_server_and_edge_draw_the_same(tmp_path, fake):
    """A server's store gives the same ids and keys as the embedded engine's."""
    rows = sentences()
    (edge, _), (server, count) = (
        fill(EdgeStore(tmp_path, DIM), rows),
        fill(ServerStore(fake[1], "c", DIM, N), rows),
    )
    assert count == N
    assert all((a == c).all() and (b == d).all() for (a, b), (c, d) in zip(edge, server))


def test_collection_is_made_for_drawing(fake):
    """The collection keeps float16 on disk, builds no HNSW graph and has a shard per million points.

    It has a text index that is split at white space, and an index to order by.
    """
    ServerStore(fake[1], "c", DIM, rows=2_500_000)
    asked = fake[0].created["c"]
    vectors = asked.vectors_config.params
    assert (vectors.size, vectors.on_disk, vectors.datatype) == (DIM, True, q.Datatype.Float16)
    assert asked.hnsw_config.m == 0
    assert asked.hnsw_config.HasField("m")
    assert asked.on_disk_payload
    assert asked.shard_number == 3
    assert set(fake[0].indexes["c"]) == {"forms", "draw"}
    ServerStore(fake[1], "c", DIM)
    assert fake[0].calls.count("create") == 1
    assert fake[0].calls.count("index") == 2


def test_wrong_dimension_is_refused(fake):
    """A collection with vectors of another size is refused by name."""
    ServerStore(fake[1], "c", DIM)
    with pytest.raises(UserError, match="the collection c has vectors of 8 numbers, not 16"):
        ServerStore(fake[1], "c", 16)


def test_upload_survives_a_stuttering_server(fake, monkeypatch):
    """Calls that fail in passing are made again after longer and longer pauses, and nothing is lost."""
    pauses = []
    monkeypatch.setattr(talk.time, "sleep", pauses.append)
    rows, (server, url) = sentences(), fake
    with ServerStore(url, "c", DIM) as place:
        server.failures = [
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.DEADLINE_EXCEEDED,
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.ABORTED,
        ]
        place.upload(0, *rows)
        assert place.count() == N
        assert [ids.tolist() for ids, _ in place.draw(ABOUT, 100)] == expected(rows)
    assert len(pauses) == 4
    assert server.failures == []


def test_a_refusal_is_not_tried_again(fake):
    """What will never succeed ends at once, in one line."""
    place = ServerStore(fake[1], "c", DIM)
    before, fake[0].failures = len(fake[0].calls), [grpc.StatusCode.INVALID_ARGUMENT]
    with pytest.raises(UserError, match="refuses: INVALID_ARGUMENT: by the test"):
        place.count()
    assert len(fake[0].calls) == before + 1


CLUSTER = [  # what a cluster of 1.18 answers while a node is away, or while it has no majority
    "Service internal error: 1 of 1 write operations failed; shard 2 is currently unavailable",
    "Service internal error: Waiting for consensus operation commit failed. Timeout set at: 10 seconds",
]


@pytest.mark.parametrize("said", CLUSTER)
def test_a_cluster_that_waits_is_waited_for(fake, monkeypatch, capsys, said):
    """INTERNAL that says what a cluster waits for passes: the upload goes on, and one line says so."""
    pauses = []
    monkeypatch.setattr(talk.time, "sleep", pauses.append)
    rows, (server, url) = sentences(), fake
    with ServerStore(url, "c", DIM) as place:
        place.upload(0, *rows)
        server.failures = [(grpc.StatusCode.INTERNAL, said)] * 3
        assert place.count() == N
    assert len(pauses) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_cluster_that_waits_too_long_ends_in_one_line(fake, monkeypatch):
    """After five minutes the line says what was waited for; an INTERNAL of another kind ends at once."""
    monkeypatch.setattr(talk.time, "sleep", lambda seconds: None)
    place = ServerStore(fake[1], "c", DIM)
    fake[0].failures = [(grpc.StatusCode.INTERNAL, CLUSTER[0])] * 10
    with pytest.raises(UserError, match="is not ready .*10 tries.*currently unavailable") as e:
        place.count()
    assert "\n" not in str(e.value)
    before, fake[0].failures = len(fake[0].calls), [(grpc.StatusCode.INTERNAL, "a fault of mine")]
    with pytest.raises(UserError, match="refuses: INTERNAL: a fault of mine"):
        place.count()
    assert len(fake[0].calls) == before + 1


def test_no_server(monkeypatch):
    """Where no server listens, a check tries at most 5 times within 30 s and says so in one line."""
    pauses = []
    monkeypatch.setattr(talk.time, "sleep", pauses.append)
    said = r"no Qdrant server answers at http://127.0.0.1:\d+ .*5 tries.*check --qdrant"
    with nobody() as dead, pytest.raises(UserError, match=said) as e:
        check_server(dead)
    assert len(pauses) == 4
    assert sum(pauses) <= 30
    assert "\n" not in str(e.value)


def test_wrong_key(monkeypatch):
    """A server that wants a key gets the one from the environment; a wrong one is told without showing it."""
    server = FakeQdrant(key=KEY)
    with serving(server) as url:
        monkeypatch.setenv("QDRANT_API_KEY", "wrong-" + KEY)
        with pytest.raises(UserError, match="QDRANT_API_KEY") as e:
            check_server(url)
        assert KEY not in str(e.value)
        monkeypatch.setenv("QDRANT_API_KEY", KEY)
        check_server(url)


def test_a_run_on_a_server(tiny_run, tmp_path, fake, monkeypatch):
    """A run with a server has the draw and the sentences of a run without.

    A killed upload goes on where it was.
    """
    folder = copy_before(tiny_run, "store", tmp_path / "run")
    monkeypatch.setenv("MINICOIL_QDRANT", fake[1])
    monkeypatch.setattr(store, "save_draw", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        upload_to_qdrant(open_run(folder))
    uploads = fake[0].calls.count("upsert")
    monkeypatch.undo()
    monkeypatch.setenv("MINICOIL_QDRANT", fake[1])
    run = open_run(folder)
    facts = upload_to_qdrant(run)
    assert fake[0].calls.count("upsert") == uploads > 0, "what was uploaded was uploaded again"
    assert facts["collection"] == collection_name(run) in fake[0].points
    assert facts["points"] == run.stage("targets").manifest["rows"]
    assert digests(folder / "13_store")["drawn.parquet"] == digests(tiny_run / "13_store")["drawn.parquet"]


def minicoil_run(*options, **environment):
    """The `minicoil run` command with a clean environment of Qdrant's variables.

    (exit code, stdout and stderr).
    """
    clean = {k: v for k, v in os.environ.items() if not k.startswith("QDRANT")}
    done = subprocess.run(
        [str(Path(sys.executable).with_name("minicoil")), "run", *map(str, options)],
        env={**clean, **environment},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


def test_the_command_says_when_no_server_answers(tmp_path):
    """`minicoil run --qdrant` at a dead address ends before any work, in one line and with exit code 2.

    So does the address from the environment.
    """
    with nobody() as dead:
        code, said = minicoil_run(
            "--words", "bat", "--out", tmp_path / "run", QDRANT_URL=dead, QDRANT_API_KEY=KEY
        )
    assert code == 2
    assert len(said.strip().splitlines()) == 1
    assert dead in said
    assert KEY not in said
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_nothing_secret_is_written(tiny_run, tmp_path):
    """A run on a server with a key leaves neither key nor URL in its folder, notebooks, logs or output."""
    folder, server = copy_before(tiny_run, "store", tmp_path / "run"), FakeQdrant(key=KEY)
    with serving(server) as url:
        code, said = minicoil_run("--out", folder, "--until", "store", QDRANT_URL=url, QDRANT_API_KEY=KEY)
    assert code == 0, said
    assert server.points, said
    assert KEY not in said
    for path in folder.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path
            assert url.encode() not in path.read_bytes(), path


@needs_server
def test_a_real_server_draws_the_same(tmp_path, monkeypatch):
    """On a real server: upload, upload again, count and draw as the embedded engine does."""
    url, rows, name = os.environ["MINICOIL_TEST_QDRANT"], sentences(), f"minicoil-test-{uuid.uuid4().hex[:8]}"
    edge, _ = fill(EdgeStore(tmp_path, DIM), rows)
    place = ServerStore(url, name, DIM, 2_500_000)
    try:
        fill(contextless(place), rows)
        server, count = fill(contextless(place), rows)
        info = place.client.get_collection(name)
        assert count == N
        assert info.config.params.shard_number == 3
        assert info.config.params.vectors.datatype == "float16"
        assert info.config.hnsw_config.m == 0
        assert all((a == c).all() and (b == d).all() for (a, b), (c, d) in zip(edge, server))
        with pytest.raises(UserError, match="vectors of 8 numbers"):
            ServerStore(url, name, 16)
    finally:
        place.client.delete_collection(name)
        place.client.close()


class contextless:
    """A store that a with statement leaves open."""

    def __init__(self, place):
        self.place = place

    def __enter__(self):
        return self.place

    def __exit__(self, *error):
        pass
