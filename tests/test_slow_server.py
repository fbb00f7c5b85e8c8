"""A server behind a line that is slow and breaks.

Everything arrives once, or one line says that nobody answers, within a limit.
"""

import pytest
from chains import copy_before, digests
from qdrant_fake import FakeQdrant, Proxy, serving
from test_store import ABOUT, DIM, expected, sentences
from trials import hand_over, row

import minicoil.runs.server as talk
from minicoil.retrieval.collect_server import Server
from minicoil.runs.files import UserError
from minicoil.runs.run import open_run
from minicoil.runs.server import check_server
from minicoil.stages import server_store
from minicoil.stages.server_store import ServerStore
from minicoil.stages.store import upload_to_qdrant


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_line_that_is_slow_and_breaks(fake, seed, record_property):
    """Through a proxy that delays every packet and cuts every connection half-way, each point arrives, is
    there once, and is drawn as it would be."""
    server, url = fake
    rows = sentences(3000)
    with (
        Proxy(url, delay=0.002, cut=200_000, seed=seed) as line,
        ServerStore(line.url, "c", DIM, 3000) as place,
    ):
        for a in range(0, 3000, 1000):
            place.upload(a, *(x[a : a + 1000] for x in rows))
        right = place.count() == 3000 == len(server.points["c"]) and [
            ids.tolist() for ids, _ in place.draw(ABOUT, 100)
        ] == expected(rows)
        hand_over(
            record_property, row("qdrant upload", f"slow, cut (seed {seed})", line.cuts, 0, int(not right))
        )
    assert right, line.cuts
    assert line.cuts, line.cuts


@pytest.fixture
def hasty(monkeypatch):
    """Calls that give up after a second, and pauses that pass at once: what takes minutes is over soon.

    Yields the pauses that were asked for.
    """
    pauses, real = [], talk.connect_server
    monkeypatch.setattr(talk.time, "sleep", pauses.append)
    for module in (server_store, talk):
        monkeypatch.setattr(module, "connect_server", lambda url, timeout=60: real(url, 1))
    return pauses


@pytest.mark.parametrize("how", ["away", "silent"])
def test_away_during_the_upload(fake, hasty, how):
    """A server that goes away in the middle of an upload ends it in one line after the tries of the batches
    under way: those that wait are not tried."""
    rows = sentences(12_000)
    with Proxy(fake[1]) as line, ServerStore(line.url, "c", DIM, 12_000) as place:
        place.upload(0, *(x[:500] for x in rows))
        setattr(line, how, True)
        line.hang_up()
        with pytest.raises(UserError, match="no Qdrant server answers") as e:
            place.upload(0, *rows)
        assert "\n" not in str(e.value)
        assert "tries" in str(e.value)
    assert len(hasty) <= 4 * 2 * 9, f"{len(hasty)} pauses for 24 batches: they were tried one after the other"


def test_an_answer_that_is_lost(fake, monkeypatch):
    """A call that was done, but whose answer was lost, is made again without harm.

    A collection is not made twice, a point is there once.
    """
    server, url = fake
    monkeypatch.setattr(talk.time, "sleep", lambda seconds: None)
    server.lost = ["create", "index", "upsert"]
    with ServerStore(url, "c", DIM, 500) as place:
        place.upload(0, *sentences(500))
        assert place.count() == 500
    server.lost.append("create")
    Server(url, DIM, name="documents").close()
    assert server.lost == []
    assert server.calls.count("create") == 2


def test_away_after_the_upload(tiny_run, tmp_path, fake, monkeypatch):
    """A server that goes away after the upload, before the draw, ends stage store in one line.

    Once it is back, the same call uploads nothing again, and the draw is the embedded engine's.
    """
    server, url = fake
    folder = copy_before(tiny_run, "store", tmp_path / "run")
    with Proxy(url, delay=0.001) as line:
        monkeypatch.setenv("MINICOIL_QDRANT", line.url)
        with monkeypatch.context() as m:
            real = ServerStore.draw

            def goes_away(self, *given):
                line.away = True
                line.hang_up()
                return real(self, *given)

            m.setattr(ServerStore, "draw", goes_away)
            m.setattr(talk.time, "sleep", lambda seconds: None)
            with pytest.raises(UserError, match="no Qdrant server answers") as e:
                upload_to_qdrant(open_run(folder))
            assert "\n" not in str(e.value)
            assert not list((folder / "13_store").glob("drawn*"))
        line.away = False
        before = server.calls.count("upsert")
        upload_to_qdrant(open_run(folder))
    assert server.calls.count("upsert") == before > 0, "what was uploaded was uploaded again"
    assert digests(folder / "13_store")["drawn.parquet"] == digests(tiny_run / "13_store")["drawn.parquet"]


def test_a_key_that_is_wrong_or_withdrawn(monkeypatch):
    """A key that the server does not take, from the start or in the middle of an upload, ends in one line
    that names the variable, at once."""
    server = FakeQdrant(key="right")
    with serving(server) as url:
        monkeypatch.setenv("QDRANT_API_KEY", "wrong")
        with pytest.raises(UserError, match="set QDRANT_API_KEY"):
            check_server(url)
        monkeypatch.setenv("QDRANT_API_KEY", "right")
        with ServerStore(url, "c", DIM, 3000) as place:
            server.key, before = "another", len(server.calls)
            with pytest.raises(UserError, match="set QDRANT_API_KEY") as e:
                place.upload(0, *sentences(3000))
            assert len(server.calls) - before <= 6
            assert "right" not in str(e.value)
