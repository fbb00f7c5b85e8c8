"""What it costs a search that no number is negative: signed, turned and cut vectors of 4 and 8 numbers.

    python tests/bench/non_negative.py --run outputs/broad --cache outputs/cache --beir ir/cranfield \\
                                       --beir ir/medline --out results/non_negative.json

RUN is a run until the model, with the objective `fit`, whose words are those of the queries. Its own encoders
are taken; those of other sizes are trained for the words that queries ask. The maps come from the run's token
embeddings. What the transformer says of a collection is kept in CACHE.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from record import save_record
from search import train_ways

from minicoil import MiniCOIL
from minicoil.learning.algebra import apply
from minicoil.retrieval.judged import read_judged
from minicoil.retrieval.retrieval import (
    build_index,
    gain_over,
    measure,
    score_all,
    term_vectors,
    terms_of,
)
from minicoil.retrieval.systems import rankings
from minicoil.runs.run import open_run
from minicoil.serving.non_negative import closest_non_negative
from minicoil.serving.windows import read_forms
from minicoil.stages.rotation import word_rotations
from minicoil.stages.sentences import trained_words
from minicoil.stages.tokens import word_tokens

FORMS = ("signed", "turned", "non_negative")


def maps_of(run, encoders, needed):
    """The maps (words + 1, dim, dim) of the words `needed`, and what is known of them."""
    words = list(trained_words(run))
    rows = ((w, apply(found.tokens, encoders[i]))
            for i, (w, found) in enumerate(zip(words, word_tokens(run)), 1) if i in needed)  # fmt: skip
    maps, facts = word_rotations(words, encoders.shape[2], rows)
    return np.concatenate([np.eye(encoders.shape[2])[None], maps]), facts


def of_forms(encoders, maps, moved):
    """A function for `score_all` that gives the factors of every form of every size.

    How far cosines move when the map is in the encoder is appended to `moved`.
    """

    def found(model, index, term, asked, rng, more):
        if not isinstance(term, int):
            return {}
        full, given = term_vectors(index.forms, [p.rows for p in index.postings[term]]), {}
        for dim, matrices in encoders.items():
            w, turn = matrices[term], maps[dim][term].astype(np.float32)
            signed, turned = ([apply(x, v) for x in (asked, full)] for v in (w, w @ turn))
            cut = [closest_non_negative(y) for y in turned]
            for form, (mine, theirs) in zip(FORMS, (signed, turned, cut)):
                given[f"{form}, {dim}"] = mine @ theirs.T
            moved[dim].append(np.abs(given[f"signed, {dim}"] - given[f"turned, {dim}"]).mean())
        return given

    return found


def one_collection(model, collection, encoders, maps, moved):
    """Results and gains over BM25 of every form of every size on a collection."""
    (documents, queries, judged), forms, asked = collection
    index = build_index(forms, model.vocabulary)
    rules = [f"{form}, {dim}" for dim in encoders for form in FORMS]
    scores = score_all(model, index, asked, ("bm25", *rules), of_rules=of_forms(encoders, maps, moved))
    runs = rankings(scores, ["bm25", *rules], [n for n, _ in documents], [q for q, _ in queries])
    return {"documents": len(documents), "queries": len(queries), **measure(runs, judged)}


def bench(run, model, folders, cache, sizes):
    """What is recorded."""
    collections = {}
    for folder in folders:
        judged = read_judged(folder)
        texts = [[text for _, text in some] for some in judged[:2]]
        forms, asked = (read_forms(model, some, cache, normalize=True) for some in texts)
        collections[Path(folder).name] = judged, forms, asked
    words = list(trained_words(run))
    assert words == list(model.words)
    asked_for = {t for _, _, asked in collections.values() for terms in terms_of(asked, model.vocabulary)
                 for t in terms if isinstance(t, int)}  # fmt: skip
    others = {dim: ("fit", dim) for dim in sizes if dim != model.dim}
    trained = {**train_ways(run, asked_for, others), model.dim: np.asarray(model.weights)}
    made = {dim: maps_of(run, encoders, asked_for) for dim, encoders in trained.items()}
    maps, moved = {dim: found for dim, (found, _) in made.items()}, {dim: [] for dim in trained}
    found = {n: one_collection(model, c, trained, maps, moved) for n, c in collections.items()}
    per_query = [f.pop("per_query") for f in found.values()]
    systems = [system for system in per_query[0] if system != "bm25"]
    return {
        "words": len(asked_for),
        "turned": {str(dim): {**facts, "cosine_moved": float(np.mean(moved[dim]))}
                   for dim, (_, facts) in made.items()},
        "collections": found,
        "macro": {system: gain_over(per_query, system) for system in systems},
        "cost": {str(dim): gain_over(per_query, f"non_negative, {dim}", f"signed, {dim}") for dim in trained},
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True)
    parser.add_argument("--cache")
    parser.add_argument("--beir", action="append", required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--out", default="results/non_negative.json")
    given = parser.parse_args()
    begin, opened = time.time(), open_run(given.run)
    results = bench(opened, MiniCOIL.load(opened.stage("model").path), given.beir, given.cache, given.sizes)
    save_record(given.out, {**results, "seconds": round(time.time() - begin)})
    for name, gain in results["macro"].items():
        print(f"{name:20} {100 * gain[0]:+.2f} [{100 * gain[1]:.2f}, {100 * gain[2]:.2f}]")
