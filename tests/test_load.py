"""Many clients, many texts.

A shared model gives everybody the vectors it gives alone, in memory that does not grow.
"""

import gc
import os
import threading

import numpy as np
import psutil
import pytest
from chains import copy_before, digests, work
from trials import hand_over, row

from minicoil import MiniCOIL
from minicoil.runs.run import open_run

WORDS = ["bat", "bank", "cave", "river", "money", "zzyzx", "flew", "the", "bats", "banks"]


@pytest.fixture(scope="module")
def model(tiny_run):
    return MiniCOIL.load(tiny_run / "23_model", threads=2)


def texts_of(client, n=120):
    """A client's own texts, of mixed lengths."""
    rng = np.random.default_rng(client)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 60))) for _ in range(n)]


def exact(vectors):
    """Vectors as bytes."""
    return [(v.indices.tobytes(), v.values.tobytes()) for v in vectors]


def shared(model, ways, clients=8):
    """What each of several threads gets from one model, all starting at once;

    `ways[i % len(ways)]` asks for client i.
    """
    found, gate = [None] * clients, threading.Barrier(clients)

    def client(i):
        gate.wait()
        found[i] = ways[i % len(ways)](i)

    threads = [threading.Thread(target=client, args=(i,)) for i in range(clients)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return found


def test_eight_clients(model):
    """Eight threads that share one model get the vectors that each would get alone, to the byte, documents
    and queries at the same time."""
    ways = [
        lambda i: exact(model.embed(texts_of(i), batch_size=16)),
        lambda i: exact(model.query_embed(texts_of(i))),
    ]
    alone = [ways[i % 2](i) for i in range(8)]
    for _ in range(3):
        assert shared(model, ways) == alone


def test_eight_clients_of_a_fresh_model(tiny_run):
    """The same when all eight are the first to use the model: nothing is opened twice or half."""
    alone = [exact(MiniCOIL.load(tiny_run / "23_model", threads=2).embed(texts_of(i))) for i in range(8)]
    for _ in range(3):
        fresh = MiniCOIL.load(tiny_run / "23_model", threads=2)
        assert shared(fresh, [lambda i, model=fresh: exact(model.embed(texts_of(i)))]) == alone


def growth(model, n, every):
    """Megabytes that this process holds after each `every` of `n` short texts, ever new words among them."""
    seen, process = [], psutil.Process()
    texts = (f"bat {i} w{i:x} bank" for i in range(n))
    for count, _ in enumerate(model.embed(texts), 1):
        if count % every == 0:
            gc.collect()
            seen.append(process.memory_info().rss / 2**20)
    return seen


@pytest.mark.slow
def test_many_short_texts(tiny_run, record_property):
    """A million short texts, each with words never seen before, need no more memory at their end than after
    the first fifth."""
    n = int(os.environ.get("MINICOIL_TEXTS", 1_000_000))
    seen = growth(MiniCOIL.load(tiny_run / "23_model", threads=1), n, n // 10)
    print(f"memory after each {n // 10:,} texts, MB: {[round(m) for m in seen]}")
    grown = max(seen[2:]) > seen[1] * 1.05
    hand_over(
        record_property,
        row("short texts", f"{n:,} in one memory", 1, 0, int(grown), megabytes=[round(m) for m in seen]),
    )
    assert not grown


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2, 4])
def test_same_model_for_any_number_of_processes(tiny_run, tmp_path, jobs, monkeypatch, record_property):
    """One, two and four processes over shards of a few sentences make one model, byte for byte."""
    from minicoil.stages.senses import compress_dimensions
    from minicoil.stages.targets import cut_shards
    from minicoil.stages.tokens import encode_and_filter

    monkeypatch.setattr(cut_shards, "__defaults__", (8,))
    folder = copy_before(tiny_run, "targets", tmp_path / "run")
    run = open_run(folder, jobs=jobs)
    work(run, "targets", "store")
    compress_dimensions(run, words_per_shard=1)
    encode_and_filter(run, words_per_shard=1)
    work(run, "training", "model")
    assert len(run.stage("targets").manifest["shards"]) > 4
    same = digests(folder / "23_model") == digests(tiny_run / "23_model")
    hand_over(
        record_property,
        row("model's bytes", f"{jobs} process{'es' if jobs > 1 else ''}", 1, 0, int(not same)),
    )
    assert same
