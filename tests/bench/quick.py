"""What must not grow: a few ratios of things timed by turns in one process, so that they mean the same on a
busy machine; keeps those of the last three commits in results/quick.json and prints them.

    python tests/bench/quick.py [--model outputs/demo/23_model] [--texts 100] [--rounds 3]

Each ratio compares something of ours with something that we cannot make slower: ONNX Runtime fed with the
same sorted batches of ids, FastEmbed on the same files, a singular value decomposition of a word's rows, the
embedding of a query alone. The script never fails because of a ratio."""

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path

import numpy as np
from record import circumstances, save_record
from serving import by_turns, mixed_texts, plain_sentences, prepared_batches, ratio
from training import made_up

from minicoil import MiniCOIL
from minicoil.learning.objectives import WordSample, train_group
from minicoil.retrieval.collection import open_collection
from minicoil.retrieval.documents import add_documents, dense_width
from minicoil.retrieval.judged import read_collection
from minicoil.retrieval.search import search
from minicoil.runs.files import load_json, one_thread
from minicoil.stages.clusters import NEIGHBOURS, cosine_distances, nearest

ROOT = Path(__file__).resolve().parents[2]
KEPT = 3
BEST_OF = (1, 8, 32)  # FastEmbed's batches of which the best counts


def serving_ratios(model, rival, texts, rounds):
    """What serving takes, over ONNX Runtime alone, and what FastEmbed takes over serving."""
    from minicoil.serving.batches import lane_session

    bare, lane = prepared_batches(model, texts), lane_session(model)
    ways = {
        "ours": lambda: list(model.embed(texts)),
        "bare": lambda: [lane.run(None, inputs) for inputs in bare],
        "default": lambda: list(rival.embed(texts)),
    }
    ways |= {f"batch {b}": (lambda b=b: list(rival.embed(texts, batch_size=b))) for b in BEST_OF}
    list(model.embed(texts[:8])), ways["bare"]()  # opens what the first call would have to
    seconds = by_turns(ways, rounds)
    best = min((f"batch {b}" for b in BEST_OF), key=lambda way: statistics.median(seconds[way]))
    return {
        "embed over ONNX Runtime": ratio(seconds, "ours", "bare"),
        "FastEmbed over embed": ratio(seconds, "default", "ours"),
        "FastEmbed, best batch, over embed": ratio(seconds, best, "ours"),
    }


def training_ratios(rounds, words=4, sentences=300):
    """What a word's training takes, over a singular value decomposition of its rows."""
    made = [made_up(sentences, 384, seed) for seed in range(words)]
    near = [nearest(cosine_distances(targets), NEIGHBOURS) for _, targets in made]
    samples = [WordSample(f"w{i}", x, neighbours=n) for i, ((x, _), n) in enumerate(zip(made, near))]
    train_group("graph", samples, 4)
    ways = {
        "graph": lambda: train_group("graph", samples, 4),
        "fit": lambda: train_group("fit", samples, 4),
        "svd": lambda: [np.linalg.svd(x.astype(np.float64), full_matrices=False) for x, _ in made],
    }
    seconds = by_turns(ways, rounds)
    return {f"training, {way}, over an SVD": ratio(seconds, way, "svd") for way in ("graph", "fit")}


def search_ratios(model, rounds, documents=300):
    """What a search takes, over the embedding of its query."""
    some = read_collection("demo")[:documents]
    queries = [" ".join(sentence.split()[:4]) for sentence in plain_sentences(None)[:20]]
    with tempfile.TemporaryDirectory() as folder, open_collection(folder, dense_width(model)) as home:
        add_documents(home, model, some)
        ways = {
            "search": lambda: [search(home, model, query) for query in queries],
            "hybrid": lambda: [search(home, model, query, using="hybrid") for query in queries],
            "query": lambda: [list(model.query_embed([query])) for query in queries],
        }
        seconds = by_turns(ways, rounds)
    return {f"{way} over a query's embedding": ratio(seconds, way, "query") for way in ("search", "hybrid")}


def kept_with(path, found):
    """The record's rows, the newest first, with `found` as that of this commit, and not more than `KEPT`."""
    about = circumstances()
    row = {key: about[key] for key in ("commit", "date", "machine", "load")} | {"ratios": found}
    rows = load_json(path)["results"]["commits"] if path.exists() else []
    return [row, *(old for old in rows if old["commit"] != row["commit"])][:KEPT]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=ROOT / "outputs" / "demo" / "23_model", type=Path)
    parser.add_argument("--texts", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", default=ROOT / "results" / "quick.json", type=Path)
    given = parser.parse_args()
    from fastembed import SparseTextEmbedding

    one_thread()
    model = MiniCOIL.load(given.model, threads=1)
    options = dict(specific_model_path=str(given.model), threads=1, local_files_only=True)
    rival = SparseTextEmbedding("Qdrant/minicoil-v1", **options)
    found = serving_ratios(model, rival, mixed_texts(None, None, given.texts), given.rounds)
    found |= training_ratios(given.rounds) | search_ratios(model, given.rounds)
    rows = kept_with(given.out, found)
    save_record(given.out, {"commits": rows, "rounds": given.rounds, "texts": given.texts, "threads": 1})
    for name in found:
        print(f"{name:36}", *(f"{row['ratios'].get(name, float('nan')):8.2f}" for row in rows))
    print(f"{'commit':36}", *(f"{row['commit'][:8]:>8}" for row in rows))
    print(json.dumps({"load": round(os.getloadavg()[0], 1)}))


if __name__ == "__main__":
    main()
