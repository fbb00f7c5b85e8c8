"""What the smaller forms of a model keep: sense and search scores of each precision, of int8 document
vectors, and of Qdrant's
datatypes for sparse vectors; writes results/forms.json, which notebook 31 shows.

    python tests/bench/forms.py --model outputs/demo/23_model [--senses SENSES.jsonl.gz] [--beir scifact/]
    [--static]

    python tests/bench/forms.py --model MODEL --beir scifact/ --head CACHE --out results/head.json

Without arguments the bundled held-back sentences and queries are scored. `--static` also makes a statically
quantized transformer, in a temporary folder."""

import argparse
import json
import logging
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from record import save_record
from serving import ROOT

POINTS = 40_000  # so many, filled up with repeated documents, that the engine builds the compressed index


def scores_of(model, senses, beir, cache=None, **fixed):
    """Sense and search scores of a model, in percent."""
    from minicoil.retrieval.comparison import benchmark_retrieval
    from minicoil.retrieval.sense_scores import benchmark_senses

    sense = benchmark_senses(model, senses)["results"]["minicoil"]
    search = benchmark_retrieval(model, beir, ("bm25", "minicoil"), cache=cache)["results"]
    percent = {
        "nn1": sense["nn1"],
        "mauc": sense["mauc"],
        "ndcg@10": search["minicoil"]["ndcg@10"],
        "bm25 ndcg@10": search["bm25"]["ndcg@10"],
    }
    return {**fixed, **{name: round(100 * value, 2) for name, value in percent.items()}}


def megabytes(folder, *names):
    """Size of files together."""
    return round(sum((Path(folder) / name).stat().st_size for name in names) / 1e6, 2)


def speed(models, texts, rounds=3):
    """{name: texts a second}, timed by turns."""
    from serving import by_turns

    seconds = by_turns(
        {name: (lambda model=model: list(model.embed(texts))) for name, model in models.items()}, rounds
    )
    return {name: round(len(texts) / float(np.median(s)), 1) for name, s in seconds.items()}


def static_model(folder, texts, target):
    """A copy of the model folder whose transformer is statically quantized, calibrated on texts."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    from minicoil import MiniCOIL
    from minicoil.serving.batches import feed

    model = MiniCOIL.load(folder)

    class Texts(CalibrationDataReader):
        rows = iter([e.ids for e in model.tokenizer.encode_batch(texts)])

        def get_next(self):
            row = next(self.rows, None)
            return None if row is None else feed(model, [row])

    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*.onnx"))
    (target / "onnx").mkdir(exist_ok=True)
    logging.getLogger().setLevel(logging.ERROR)
    quantize_static(
        folder / "onnx/model.onnx",
        target / "onnx/model_int8.onnx",
        Texts(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        op_types_to_quantize=["MatMul"],
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        extra_options={"MatMulConstBOnly": True},
    )
    return MiniCOIL.load(target, precision="int8", threads=2)


def int8_vectors(model):
    """The model with unit vectors rounded to int8.

    Dim bytes and the BM25 weight as the scale, for each word of a document.
    """
    from minicoil.serving import batches, sparse

    plain = sparse.encode_rows
    sparse.encode_rows = lambda *given: np.round(plain(*given) * 127) / np.float32(127)
    batches.encode_rows = sparse.encode_rows
    try:
        yield model
    finally:
        sparse.encode_rows = batches.encode_rows = plain


def head_alone(folder, senses, beir, cache):
    """{form: scores, MB of the encoders} of float32 and of the int8 head on the same transformer.

    One pass over the texts, kept in `cache`, serves both.
    """
    from minicoil import MiniCOIL
    from minicoil.serving.directory import ENCODERS_FILE, INT8_FILE, SCALES_FILE

    files = {"float32": (ENCODERS_FILE,), "int8_head": (INT8_FILE, SCALES_FILE)}
    return {
        name: scores_of(
            MiniCOIL.load(folder, precision=name, threads=2),
            senses,
            beir,
            cache,
            encoders_MB=megabytes(folder, *files[name]),
        )
        for name in files
    }


def forms(folder, senses, beir, static):
    """Scores, sizes in MB and speed of each precision, of int8 vectors and of static quantization."""
    from minicoil import MiniCOIL
    from minicoil.serving.directory import ENCODERS_FILE, INT8_FILE, MODEL_FILES, SCALES_FILE
    from minicoil.stages.export import probe_texts

    texts, found = [t for t in probe_texts() if 20 < len(t) < 300][:150], {}
    encoders = {
        "float32": (ENCODERS_FILE,),
        "int8_head": (INT8_FILE, SCALES_FILE),
        "int8": (INT8_FILE, SCALES_FILE),
    }
    models = {name: MiniCOIL.load(folder, precision=name, threads=2) for name in MODEL_FILES}
    with tempfile.TemporaryDirectory() as temporary:
        if static:
            models["int8 static"] = static_model(folder, texts[:100], Path(temporary) / "model")
            encoders["int8 static"] = encoders["int8"]
        pace = speed(models, texts)
        for name, model in models.items():
            graph = MODEL_FILES.get(name, MODEL_FILES["int8"])
            found[name] = scores_of(
                model,
                senses,
                beir,
                graph_MB=megabytes(model.folder, graph),
                encoders_MB=megabytes(model.folder, *encoders[name]),
                texts_per_second=pace[name],
            )
            print(name, found[name], flush=True)
    for model in int8_vectors(models["float32"]):
        found["int8 vectors"] = scores_of(model, senses, beir)
    return found


def qdrant_scores(folder, vectors, queries, names, judged, kind):
    """nDCG@10 of the embedded engine with sparse vectors of one datatype, its seconds a query, and its scores
    (queries, 10)."""
    import qdrant_edge as q

    from minicoil.retrieval.retrieval import measure

    sparse = q.EdgeSparseVectorParams(
        modifier=q.Modifier.Idf, datatype=getattr(q.VectorStorageDatatype, kind)
    )
    shard = q.EdgeShard.create(
        str(folder),
        q.EdgeConfig(
            vectors={},
            sparse_vectors={"m": sparse},
            wal_enabled=True,
            optimizers=q.EdgeOptimizersConfig(indexing_threshold=1),
        ),
    )

    def as_query(v):
        return q.SparseVector(v.indices.tolist(), v.values.tolist())

    points = [
        q.Point(id=i, payload={}, vector={"m": as_query(vectors[i % len(vectors)])})
        for i in range(max(POINTS, len(vectors)))
    ]
    for a in range(0, len(points), 5000):
        shard.update(q.UpdateOperation.upsert_points(points[a : a + 5000]))
    shard.optimize()
    begin, found = time.perf_counter(), {}
    wide = 10 * (len(points) // len(vectors) + 1)
    hits = {
        name: shard.query(q.QueryRequest(limit=wide, query=q.Query.Nearest(as_query(v), using="m")))
        if len(v.indices)
        else []
        for name, v in queries.items()
    }
    seconds = (time.perf_counter() - begin) / len(queries)
    shard.close()
    for name, some in hits.items():
        found[name] = {}
        for hit in some:
            found[name].setdefault(names[hit.id % len(vectors)], hit.score)
    scores = measure({"m": {name: dict(list(f.items())[:10]) for name, f in found.items()}}, judged)[
        "results"
    ]["m"]["ndcg@10"]
    return {"ndcg@10": round(100 * scores, 2), "ms_a_query": round(1000 * seconds, 1)}, found


def qdrant(folder, beir):
    """{datatype: scores} of Qdrant's datatypes for sparse vectors, in the embedded engine."""
    from minicoil import MiniCOIL
    from minicoil.retrieval.judged import beir_file, read_beir_rows, read_collection, read_judgements
    from minicoil.text.readers import DATA

    at = DATA / "beir" if beir == "demo" else Path(beir)
    model, judged, documents = MiniCOIL.load(folder, threads=2), read_judgements(at), read_collection(at)
    queries = {
        r["_id"]: r["text"]
        for r in read_beir_rows(beir_file(at, "queries.jsonl"), ("_id", "text"))
        if r["_id"] in judged
    }
    vectors, asked = (
        list(model.embed([text for _, text in documents])),
        dict(zip(queries, model.query_embed(list(queries.values())))),
    )
    results, exact = {}, None
    for kind in ("Float32", "Float16", "Uint8"):
        with tempfile.TemporaryDirectory() as temporary:
            results[kind], found = qdrant_scores(
                temporary,
                vectors,
                asked,
                [name for name, _ in documents],
                {k: judged[k] for k in asked},
                kind,
            )
        exact = exact or found
        results[kind]["largest_score_difference"] = round(
            max(
                (abs(s - exact[k][d]) for k, f in found.items() for d, s in f.items() if d in exact[k]),
                default=0,
            ),
            4,
        )
        print(kind, results[kind], flush=True)
    return results


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--senses")
    parser.add_argument("--beir", default="demo")
    parser.add_argument("--static", action="store_true")
    parser.add_argument(
        "--head",
        metavar="CACHE",
        help="only the int8 head beside float32; what the transformer says is kept in this folder",
    )
    parser.add_argument("--out", default=ROOT / "results" / "forms.json", type=Path)
    given = parser.parse_args()
    from minicoil.runs.files import load_json
    from minicoil.text.readers import DATA

    data = {"senses": Path(given.senses).name if given.senses else "bundled", "beir": Path(given.beir).name}
    senses = given.senses or DATA / "sentences.jsonl"
    results = {"data": data, "words": len(load_json(given.model / "minicoil.json")["quality"])}
    if given.head:
        results["forms"] = head_alone(given.model, senses, given.beir, given.head)
    else:
        results["forms"] = forms(given.model, senses, given.beir, given.static)
        results["qdrant"] = qdrant(given.model, given.beir)
    save_record(given.out, results)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
