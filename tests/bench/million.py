"""A million documents in a search collection: what they cost to put, to keep, to open and to search.

    python tests/bench/million.py [--sizes 20000 200000 1000000] [--only numpy bm25 embedded] [--url URL]

Vectors are made up, as in server.py; `bm25` has the same words with one number each. Each engine and size
runs in a process of its own and is saved into results/million.json when it ends; what is there already is not
measured again, but with --again. On a server each size has every setting of the vectors; embedded `settings`
tries them.

A search is measured three times: `search_ms_from_disk` when no file of the collection is in memory,
`search_ms_first` when they are but no query was asked before, `search_ms` when all were. `faults` are the
pages that 100 queries waited for: [read from disk, mapped].
"""

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from record import circumstances, save_record
from server import (
    DIM,
    NOT,
    NUMBERS,
    RESULTS,
    WAYS,
    answers,
    disk,
    filled,
    memory,
    milliseconds,
    own_collection,
    queries,
    searched,
    settle,
    shared,
)

from minicoil.retrieval.collect_folder import Embedded
from minicoil.retrieval.collect_server import Server, server_client
from minicoil.retrieval.inverted import Inverted
from minicoil.runs.files import load_json

USUAL = "as made"
VARIANTS = {  # settings of the dense vectors, and of the sparse index
    USUAL: ({}, {}),
    "dense on disk": ({"on_disk": True}, {}),
    "sparse on disk": ({}, {"on_disk": True}),
    "both on disk": ({"on_disk": True}, {"on_disk": True}),
    "sparse float16": ({}, {"datatype": "Float16"}),
    "sparse uint8": ({}, {"datatype": "Uint8"}),
    "with HNSW": ({}, {}),
}
STEP = 5000  # documents that are put at a time


def variant_shard(folder, variant):
    """An empty shard with the settings of a variant, for `Embedded` to open."""
    import qdrant_edge as q

    dense, sparse = VARIANTS[variant]
    if "datatype" in sparse:
        sparse = {"datatype": getattr(q.VectorStorageDatatype, sparse["datatype"])}
    edges = 16 if variant == "with HNSW" else 0
    hnsw = q.HnswIndexConfig(m=edges, ef_construct=100, full_scan_threshold=10_000)
    vectors = {"dense": q.EdgeVectorParams(size=DIM, distance=q.Distance.Cosine, **dense)}
    weighted = {"minicoil": q.EdgeSparseVectorParams(modifier=q.Modifier.Idf, **sparse)}
    config = q.EdgeConfig(vectors=vectors, sparse_vectors=weighted, hnsw_config=hnsw, wal_enabled=True)
    shard = q.EdgeShard.create(str(folder), config)
    shard.update(q.UpdateOperation.create_field_index("made_by", q.PayloadSchemaType.Keyword))
    shard.close()


def variant_collection(client, name, variant):
    """The same on a server."""
    from qdrant_client import models as m

    dense, sparse = VARIANTS[variant]
    if "datatype" in sparse:
        sparse = {"datatype": m.Datatype(sparse["datatype"].lower())}
    vectors = {"dense": m.VectorParams(size=DIM, distance=m.Distance.COSINE, **dense)}
    index = m.SparseVectorParams(modifier=m.Modifier.IDF, index=m.SparseIndexParams(**sparse))
    client.create_collection(name, vectors, {"minicoil": index}, shard_number=1, on_disk_payload=True)
    client.create_payload_index(name, "made_by", field_schema="keyword", wait=True)


@contextlib.contextmanager
def emptied(options, folder):
    """What opens the engine's collection; a server's is deleted at the end."""
    if options.engine == "server":
        with own_collection(options.url) as (client, name):
            variant_collection(client, name, options.variant)
            yield lambda: Server(options.url, DIM, name)
    elif options.engine == "embedded":
        folder.mkdir()
        variant_shard(folder, options.variant)
        yield lambda: Embedded(folder, DIM)
    else:
        yield lambda: Inverted(folder, shape(options)["width"])


def shape(options):
    """How the vectors are made: for BM25 with one number a word, and hardly a dense one."""
    return {"numbers": 1, "width": 2} if options.engine == "bm25" else {"numbers": NUMBERS, "width": DIM}


def timed(action):
    """(what an action gives, its seconds)."""
    begin = time.perf_counter()
    given = action()
    return given, round(time.perf_counter() - begin, 1)


def again(home, opened):
    """(home, seconds): closed and opened once more."""
    home.close()
    return timed(opened)


def forget(folder):
    """Have the system drop its copies of a folder's files, so that they are read from disk again."""
    for path in (p for p in folder.rglob("*") if p.is_file()):
        place = os.open(path, os.O_RDONLY)
        os.fsync(place)
        os.posix_fadvise(place, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(place)


def faults():
    """Pages that this process has waited for so far: [read from disk, mapped]."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return np.array([used.ru_majflt, used.ru_minflt])


def first_answers(home, asked, way):
    """Milliseconds of queries that a process has not asked before, and the `faults` of the first of them."""
    searched(home, way, asked[0])  # what an engine makes once
    before, took = faults(), milliseconds(lambda vectors: searched(home, way, vectors), asked[1:], 0)
    return {**took, "faults": (faults() - before).tolist()}


def phases(opened, folder, asked, ways):
    """(home, figures) of a collection that is opened from disk, opened again, and asked everything twice."""
    facts, way = {}, ways[0]
    if folder.exists():
        forget(folder)
        home = opened()
        facts["search_ms_from_disk"] = {way: first_answers(home, asked, way)}
        home.close()
    home, facts["open_s"] = timed(opened)
    facts["search_ms_first"] = {way: first_answers(home, asked, way)}
    before = faults()
    facts["search_ms"], found = answers(home, asked, ways)
    facts["faults"] = (faults() - before).tolist()
    return home, facts, found


def one_engine(options):
    """One engine at one size, in a process of its own; prints its figures and what it found."""
    n, given = options.documents, shape(options)
    ways = ("minicoil",) if options.engine == "bm25" else WAYS
    with tempfile.TemporaryDirectory(dir=options.scratch) as place:
        folder = Path(place) / "c"
        with emptied(options, folder) as opened:
            home = opened()
            put = filled(home, n, STEP, **given)
            facts = {"documents": n, "put_s": round(put, 1), "put_documents_per_s": round(n / put)}
            facts["put_peak_mb"], facts["put_own_mb"] = memory(), own_memory()
            print(json.dumps(facts), file=sys.stderr, flush=True)
            if options.engine == "embedded":
                facts["search_ms_before_optimize"] = answers(home, queries(**given), ways)[0]
                home.unsettled = 0  # closed as it is
                home, facts["open_s_before_optimize"] = again(home, opened)
                facts["disk_mb_before_optimize"] = disk(folder)
                print(json.dumps(facts), file=sys.stderr, flush=True)
            _, facts["optimize_s"] = timed(lambda: settle(home, n))
            home.close()
            home, more, found = phases(opened, folder, queries(**given), ways)
            _, facts["digests_s"] = timed(home.digests)
            facts |= {**more, "own_mb": own_memory()}
            home.close()
        print(json.dumps([{**facts, "disk_mb": disk(folder), "peak_mb": memory()}, found]))


def own_memory(process="self"):
    """Memory in MB that a process has for itself now: mapped files do not count."""
    text = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return int(next(line for line in text.splitlines() if line.startswith("RssAnon")).split()[1]) // 1024


def measured(options, engine, variant, documents):
    """Figures of one engine, in a process of its own, which is ended when it takes too much memory."""
    more = ["--scratch", options.scratch] if options.scratch else []
    more += ["--url", options.url] if options.url else []
    command = [sys.executable, __file__, "--one", "--engine", engine, "--variant", variant]
    command += ["--documents", str(documents), *more]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    most, begin = 0, time.monotonic()
    while child.poll() is None:
        with contextlib.suppress(OSError, StopIteration):
            most = max(most, own_memory(child.pid))
        if most > options.most_mb or time.monotonic() - begin > options.most_s:
            child.kill()
            child.wait()
            ended = f"at {most} MB after {time.monotonic() - begin:.0f} s"
            return {"documents": documents, "ended": ended}, None
        time.sleep(0.2)
    if child.returncode:
        return {"documents": documents, "ended": f"exit code {child.returncode}"}, None
    facts, found = json.loads(child.stdout.read().splitlines()[-1])
    return {**facts, "peak_own_mb": most}, found


def jobs_of(options):
    """(engine, setting, documents) of everything that is to be measured, small sizes first."""
    jobs = []
    for size in sorted(options.sizes):
        jobs += [(engine, USUAL, size) for engine in ("numpy", "bm25", "embedded") if engine in options.only]
        if "server" in options.only and options.url:
            jobs += [("server", variant, size) for variant in VARIANTS if variant != "with HNSW"]
    if "settings" in options.only:
        jobs += [("embedded", variant, options.few) for variant in VARIANTS]
    return jobs


def recorded(out):
    """What a record has; each row says of which commit and date it is."""
    if not out.exists():
        return {}
    found = load_json(out)
    of = {"run": {key: found[key] for key in ("commit", "date")}}
    return {name: {**of, **row} if isinstance(row, dict) else row for name, row in found["results"].items()}


def million(options):
    """Every engine at every size; saved after each."""
    out, plain = options.out / "million.json", {}
    for engine, variant, n in jobs_of(options):
        known = recorded(out)
        name = f"{engine}, {variant}, {n} documents"
        if name in known and not options.again and (variant != USUAL or "settings" not in options.only):
            continue
        before = os.getloadavg()[0]
        facts, found = measured(options, engine, variant, n)
        plain = found if variant == USUAL else plain
        if variant != USUAL and plain and found:
            facts["as_made"] = shared(found, plain)
        load, run = [round(before, 1), round(os.getloadavg()[0], 1)], circumstances()
        of = {"run": {key: run[key] for key in ("commit", "date")}, "load": load}
        made = {"server": NOT, **recorded(out), name: {"vectors": "made up", **of, **facts}}
        save_record(out, made | ({"server": "recorded"} if engine == "server" else {}))
        print(name, json.dumps(facts), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--sizes", type=int, nargs="+", default=[20_000, 200_000, 1_000_000])
    parts = ["numpy", "bm25", "embedded", "settings", "server"]
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--again", action="store_true", help="measure what is recorded already")
    parser.add_argument("--few", type=int, default=100_000, help="documents that the settings are tried with")
    parser.add_argument("--url", default=os.environ.get("QDRANT_URL", ""))
    parser.add_argument("--most-mb", type=int, default=8000, help="memory of its own that an engine may take")
    parser.add_argument("--most-s", type=int, default=3600, help="seconds that an engine may take")
    parser.add_argument("--scratch", default=None, help="folder for the collections")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--engine", default="numpy", help=argparse.SUPPRESS)
    parser.add_argument("--variant", default=USUAL, help=argparse.SUPPRESS)
    parser.add_argument("--documents", type=int, default=20_000, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one_engine(options)
        return
    if options.url:
        server_client(options.url).close()  # one that does not answer is noticed now
    million(options)


if __name__ == "__main__":
    main()
