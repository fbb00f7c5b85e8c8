"""What Qdrant costs: calls, uploads, draws and searches, embedded and on a server.

    python tests/bench/server.py [--url http://localhost:6333] [--points 200000] [--documents 20000]

Vectors are made up: dense ones at random, sparse ones of words drawn by Zipf's law with the numbers of random
directions. So it says what things cost, and nothing of how good a ranking is. Without a server its figures
stand as "not recorded". Writes results/server.json. A million documents are the matter of million.py.
"""

import argparse
import contextlib
import os
import resource
import sys
import tempfile
import time
import uuid
from pathlib import Path

import numpy as np
from record import save_record

from minicoil.retrieval.claim import Point, points_that_are
from minicoil.retrieval.collect_calls import engine_vector
from minicoil.retrieval.collect_folder import Embedded
from minicoil.retrieval.collect_server import Server, server_client
from minicoil.retrieval.inverted import Inverted
from minicoil.retrieval.search import mixed
from minicoil.runs.server import connect_server
from minicoil.serving.sparse import SparseEmbedding
from minicoil.stages.draw import random_keys
from minicoil.stages.edge_store import EdgeStore, draw_from_shard, open_shard
from minicoil.stages.points import Rows, payload
from minicoil.stages.server_store import ServerStore

sys.path.append(str(Path(__file__).parents[1] / "support"))  # the stand-in for a server
RESULTS = Path(__file__).resolve().parents[2] / "results"
NOT = "not recorded"
DIM, NUMBERS, VOCABULARY, STEP = 384, 8, 20_000, 8192
WAYS = ("minicoil", "dense", "hybrid", "mix")


# What is made up


def sentences(first, n, dim=DIM):
    """Rows of the store: eight words each, by Zipf's law."""
    rng, ids = np.random.default_rng(first), np.arange(first, first + n)
    forms = [[f"w{w}" for w in row] for row in np.minimum(rng.zipf(1.2, (n, 8)), 50_000).tolist()]
    texts = [f"sentence number {i} of a text that was never written by anyone at all" for i in ids]
    return Rows(ids, rng.normal(size=(n, dim)).astype(np.float32), texts, forms, random_keys(0, ids))


def word_share():
    """How often each word of the vocabulary is drawn, most frequent first, adding up to 1."""
    weights = 1 / (np.arange(VOCABULARY) + 20.0)
    return np.cumsum(weights) / weights.sum()


SHARE = word_share()


def sparse_of(words, rng, numbers=NUMBERS):
    """The sparse vector of distinct words: a direction of length 1 each, times BM25's weight.

    With one number a word it is that weight: BM25 itself.
    """
    direction = np.abs(rng.normal(size=(len(words), numbers)).astype(np.float32))
    if numbers > 1:
        direction *= rng.choice(np.array([-1, 1], np.float32), direction.shape)
    direction *= rng.uniform(0.5, 2.0, (len(words), 1)) / np.linalg.norm(direction, axis=1, keepdims=True)
    indices = (words[:, None] * numbers + np.arange(1, numbers + 1)).ravel().astype(np.int32)
    return SparseEmbedding(indices, direction.ravel().astype(np.float32))


def documents(first, n, numbers=NUMBERS, width=DIM):
    """Points of a search collection: passages of up to 20 known words."""
    rng = np.random.default_rng(10**6 + first)
    dense = rng.normal(size=(n, DIM)).astype(np.float32)
    dense = dense[:, :width] / np.linalg.norm(dense[:, :width], axis=1, keepdims=True)
    drawn = np.searchsorted(SHARE, rng.random((n, 20)))
    made = []
    for i, words in enumerate(drawn):
        text = f"document {first + i}: a passage of a text that was never written by anyone at all " * 2
        facts = {"id": f"d{first + i:07d}", "text": text, "digest": "0" * 16}
        made.append(Point(first + i, facts, dense[i], sparse_of(np.unique(words), rng, numbers)))
    return made


def queries(n=100, numbers=NUMBERS, width=DIM):
    """{using: vector} of queries of three words, neither the commonest nor rare."""
    rng = np.random.default_rng(7)
    words = rng.integers(20, 4000, (n, 3))
    return [
        {
            "dense": rng.normal(size=width).astype(np.float32),
            "minicoil": sparse_of(np.unique(row), rng, numbers),
        }
        for row in words
    ]


# What is counted and measured


def milliseconds(action, items, before=2):
    """Milliseconds {p50, p99} of an action on each item, after some, `before`, that do not count."""
    took = []
    for item in [*items[:before], *items]:
        begin = time.perf_counter()
        action(item)
        took.append(1000 * (time.perf_counter() - begin))
    took = took[before:]
    return {"p50": round(float(np.median(took)), 2), "p99": round(float(np.percentile(took, 99)), 2)}


def memory():
    """Peak resident memory of this process in MB; mapped files count as far as they were read."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def asked_calls(calls, action):
    """How many calls of each kind an action makes."""
    calls.clear()
    action()
    return {name: calls.count(name) for name in sorted(set(calls))}


def counted():
    """Calls to a server, counted at the stand-in; `before` is what the same took one by one."""
    from qdrant_fake import FakeQdrant, serving

    fake, rows, found = FakeQdrant(), sentences(0, STEP, 8), {}
    with serving(fake) as url:
        with ServerStore(url, "c", 8, STEP) as store:
            upload = asked_calls(fake.calls, lambda: store.upload(0, *rows))
            waited = sum(fake.waited)
            found["upload_8192_points"] = {"now": upload, "waited_for": waited, "before": {"upsert": 17}}
        with ServerStore(url, "few", 8, 200) as store:
            store.upload(0, *(column[:200] for column in rows))
            draw = asked_calls(fake.calls, lambda: store.draw([[f"w{i}"] for i in range(1, 1001)], 50))
            found["draw_1000_words"] = {"now": draw, "before": {"scroll": 1000}}
        home = Server(url, DIM, "d")
        home.put(documents(0, 50))
        for way, before in (("minicoil", 1), ("dense", 1), ("hybrid", 1), ("mix", 2)):
            now = asked_calls(fake.calls, lambda way=way: searched(home, way, queries(1)[0]))
            found[f"search_{way}"] = {"now": now, "before": {"query": before}}
        home.close()
    return found


def client_costs(n=2000):
    """Microseconds that the client itself takes for a point: by the library's classes, and by messages."""
    from qdrant_client import grpc as g
    from qdrant_client import models as m
    from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc

    from minicoil.runs.wire import WirePoint, point_message, read_answer

    rows = sentences(0, n)
    payloads = list(map(payload, rows.texts, rows.forms, rows.keys))
    columns = list(zip(rows.ids.tolist(), payloads, rows.vectors))

    def of_library():
        made = [m.PointStruct(id=i, payload=p, vector=v.tolist()) for i, p, v in columns]
        g.UpsertPoints(points=[RestToGrpc.convert_point_struct(p) for p in made]).SerializeToString()

    def of_ours():
        made = [point_message(WirePoint(i, p, v)) for i, p, v in columns]
        g.UpsertPoints(points=made).SerializeToString()

    key = [g.Value(integer_value=i) for i in range(n)]
    full = [g.ScoredPoint(id=g.PointId(num=i), payload={"draw": key[i]}) for i in range(n)]
    lean = [g.ScoredPoint(id=g.PointId(num=i), order_value=g.OrderValue(int=i)) for i in range(n)]
    actions = {
        "upload": {"library": of_library, "messages": of_ours},
        "draw": {
            "library": lambda: [GrpcToRest.convert_scored_point(p) for p in full],
            "messages": lambda: [read_answer(p) for p in lean],
        },
    }
    return {
        what: {how: round(1000 * milliseconds(lambda _, a=a: a(), range(5))["p50"] / n, 2)
               for how, a in some.items()}
        for what, some in actions.items()
    }


def store_figures(store, points, words=1000, samples=500):
    """Upload and draws of a store."""
    seconds = 0.0
    for first in range(0, points, STEP):
        rows = sentences(first, min(STEP, points - first))
        begin = time.perf_counter()
        store.upload(first, *rows)
        seconds += time.perf_counter() - begin
    forms = [[f"w{i}"] for i in range(1, words + 1)]
    store.draw(forms[:8], samples)
    begin = time.perf_counter()
    drawn = store.draw(forms, samples)
    took = time.perf_counter() - begin
    facts = {"points": store.count(), "upload_points_per_s": round(points / seconds)}
    return {**facts, "draw_ms_a_word": round(1000 * took / words, 2), "words": words}, drawn


def draws_one_by_one(folder, words=200, samples=500):
    """Milliseconds of a draw as it is, and as it was: each point with its payload, read from disk."""
    import qdrant_edge as q

    def before(shard, word):
        condition = q.FieldCondition(key="forms", match=q.MatchTextAny(text_any=word))
        shard.scroll(q.ScrollRequest(limit=samples, filter=q.Filter(must=[condition]),
                                     order_by=q.OrderBy("draw"), with_payload=["draw"], with_vector=False))

    asked = [f"w{i}" for i in range(1, words + 1)]
    with open_shard(folder) as shard:
        return {
            "before": milliseconds(lambda word: before(shard, word), asked),
            "now": milliseconds(lambda word: draw_from_shard(shard, [word], samples), asked),
        }


def searched(home, way, vectors, limit=10):
    """The ids that a way of searching finds."""
    if way == "hybrid":
        return [point.id for point in home.fused(vectors, limit)]
    if way == "mix":
        halves = {"dense": 0.5, "minicoil": 0.5}
        return [hit.id for hit in mixed(home, home.lists(vectors, 100), limit, halves)]
    return [point.id for point in home.nearest(vectors[way], way, limit)]


def fused_as_before(home):
    """Milliseconds of a hybrid search as it was: fused by the embedded engine, ten points in its answer."""
    import qdrant_edge as q

    def ask(vectors):
        ours = points_that_are(q, "ours")
        near = [q.Query.Nearest(engine_vector(q, v), using=u) for u, v in vectors.items()]
        parts = [q.Prefetch(limit=100, filter=ours, query=query) for query in near]
        home.shard.query(q.QueryRequest(limit=10, prefetches=parts, query=q.Fusion.Rrf(k=2), filter=ours,
                                        with_payload=True))

    return milliseconds(ask, queries())


def filled(home, n, step=5000, **shape):
    """Put n made-up documents; seconds that the home took."""
    seconds = 0.0
    for first in range(0, n, step):
        points = documents(first, min(step, n - first), **shape)
        begin = time.perf_counter()
        home.put(points, wait=False)
        seconds += time.perf_counter() - begin
    return seconds


def answers(home, asked, ways=WAYS):
    """{way: milliseconds a query}; and what was found, to compare."""
    took = {way: milliseconds(lambda v, way=way: searched(home, way, v), asked) for way in ways}
    return took, {way: [searched(home, way, v) for v in asked[:30]] for way in ways}


def search_figures(home, n):
    """Time to fill a collection and to search it; and what was found, to compare."""
    seconds = filled(home, n)
    begin = time.perf_counter()
    settle(home, n)
    optimized = time.perf_counter() - begin
    took, found = answers(home, queries())
    facts = {"documents": n, "put_documents_per_s": round(n / seconds), "optimize_s": round(optimized, 1)}
    return {**facts, "search_ms": took}, found


def settle(home, n):
    """Let an engine build its indexes to the end: what it does by itself in a server takes some time."""
    if isinstance(home, Embedded):
        home.shard.optimize()
    if isinstance(home, Server):
        home.lacking({number: "0" * 16 for number in range(n)})
        while home.client.get_collection(home.name).status.value != "green":
            time.sleep(1)


def shared(found, of):
    """{way: the mean share of hits that two engines have in common, and of lists in the same order}."""
    found_shares = {}
    for way in found:
        pairs = list(zip(found[way], of[way]))
        hits = float(np.mean([len({*a} & {*b}) / max(len(a), len(b), 1) for a, b in pairs]))
        order = float(np.mean([a == b for a, b in pairs]))
        found_shares[way] = {"same_hits": round(hits, 4), "same_order": round(order, 4)}
    return found_shares


def disk(folder):
    """Megabytes that a folder takes."""
    return round(sum(f.stat().st_blocks * 512 for f in Path(folder).rglob("*") if f.is_file()) / 1e6)


# On a server


@contextlib.contextmanager
def own_collection(url):
    """(client, a collection's name that is free) on a server; deleted at the end."""
    name = f"minicoil-bench-{uuid.uuid4().hex[:8]}"
    with contextlib.closing(connect_server(url)) as client:
        try:
            yield client, name
        finally:
            client.delete_collection(name)


def costs(options):
    """The usual sizes: a store and a search collection in each engine."""
    results = {"calls": counted(), "client_us_a_point": client_costs(), "store": {}, "search": {}}
    with tempfile.TemporaryDirectory() as folder:
        with EdgeStore(folder, DIM, 10**9) as store:
            facts, drawn = store_figures(store, options.points)
        results["store"]["embedded"] = {**facts, "draw_ms": draws_one_by_one(Path(folder) / "00000")}
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.closing(Embedded(folder, DIM)) as home:
            facts, found = search_figures(home, options.documents)
            facts["hybrid_ms_fused_by_the_engine"] = fused_as_before(home)
        results["search"]["embedded"] = facts
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.closing(Inverted(folder, DIM)) as home:
            facts, mine = search_figures(home, options.documents)
        results["search"]["numpy"] = {**facts, "as_embedded": shared(mine, found)}
    results["store"]["server"] = results["search"]["server"] = NOT
    if options.url:
        results["store"]["server"], results["search"]["server"] = on_server(options, drawn, found)
    return results


def on_server(options, drawn, found):
    """The same on a server: its store and its search collection, compared with the embedded engine's."""
    with own_collection(options.url) as (client, name):
        store = ServerStore(options.url, name, DIM, options.points, client=client)
        stored, mine = store_figures(store, options.points)
        equal = [bool(np.array_equal(a.ids, b.ids)) for a, b in zip(drawn, mine)]
        stored["equal_draws"] = sum(equal)
    with own_collection(options.url) as (client, name):
        facts, theirs = search_figures(Server(options.url, DIM, name, client=client), options.documents)
        version = client.info().version
    return {**stored, "version": version}, {**facts, "as_embedded": shared(theirs, found)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", default=os.environ.get("QDRANT_URL", ""))
    parser.add_argument("--points", type=int, default=200_000)
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.url:
        server_client(options.url).close()  # one that does not answer is noticed now
    save_record(options.out / "server.json", costs(options))


if __name__ == "__main__":
    main()
