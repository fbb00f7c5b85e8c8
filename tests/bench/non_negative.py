"""What it costs a search that no number is negative, by several ways to get there; writes
results/non_negative.json.

    python tests/bench/non_negative.py --run outputs/en --cache outputs/cache --beir ir/cranfield \\
                                       --beir ir/medline --beir ir/scifact

RUN is a run until the model whose words are those of the queries. Its encoders are taken, and those of the
model `english` for the same words. Encoders with 4 numbers are trained here, with the objective `fit`, and so
are those that see the cut in training; all for the words that queries ask. Each is turned by the run's own
sentences, but for `english`, which is as it is shipped. What the transformer says of a collection is kept in
CACHE.

`error` needs no judgement: how far a way's products are from the cosines of a word's own sentences. The way
with the least error is the one that is built in. Halves of the queries say how much of a gain is chance.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from record import save_record
from search import halved, shards_of, train_ways
from sign_tries import TRAINED, cosine_errors, cuts, trained_with_cut, turn_for_cosines, word_vectors

from minicoil import MiniCOIL
from minicoil.learning.algebra import apply
from minicoil.learning.objectives import load_objective
from minicoil.retrieval.judged import read_judged
from minicoil.retrieval.retrieval import build_index, gain_over, measure, score_all, term_vectors, terms_of
from minicoil.retrieval.systems import rankings
from minicoil.runs.files import load_npy, one_thread
from minicoil.runs.run import open_run
from minicoil.serving.non_negative import negative_share, word_rotation
from minicoil.serving.windows import read_forms
from minicoil.stages.training import group_words

SMALL, PACKED, BY_COSINES = "4", "english", "turned by cosines"
FORMS = tuple(cuts(np.ones((1, 2)), np.ones((1, 2))))
SHOWN = {
    SMALL: FORMS[:2],
    BY_COSINES: FORMS[:4],
    **dict.fromkeys(TRAINED, FORMS[:4]),
}  # of some encoders, not all


def packed_encoders(words, needed):
    """{word id: encoder} of the model `english`, by the ids of other `words`."""
    model = MiniCOIL.load()
    ids = {word: i for i, word in enumerate(model.words, 1)}
    return {i: model.weights[np.array([ids[words[i - 1]]])][0] for i in needed}


def turned_alone(rows):
    """Maps (words, dim, dim) of rows [(n, dim)], as training makes them."""
    return np.stack([word_rotation(r) for r in rows])


def no_turn(rows):
    """Maps that change nothing."""
    return np.tile(np.eye(rows[0].shape[1]), (len(rows), 1, 1))


def means_of(rows):
    """{key: mean} of rows {key: number}."""
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


class Ways:
    """Encoders by name and word id, turned; and what their words' own sentences say of them."""

    def __init__(self):
        self.encoders, self.errors, self.negative = {}, {}, {}

    def add(self, name, ids, samples, encoders, find_maps=turned_alone):
        """Turn the encoders of some words, and keep them under a name."""
        rows = word_vectors(samples, encoders)
        maps = find_maps(rows).astype(np.float32)
        mine = self.encoders.setdefault(name, {})
        for i, w, turn, r in zip(ids, encoders, maps, rows):
            mine[i] = np.asarray(w), turn
            self.errors.setdefault(name, []).append(cosine_errors(r @ turn))
            self.negative.setdefault(name, []).append(negative_share(r.astype(np.float64), turn))

    def facts(self):
        """{name: share of negative squares, and {way: error}}, means over words."""
        return {name: {"negative": float(np.mean(self.negative[name])), "error": means_of(errors)}
                for name, errors in self.errors.items()}  # fmt: skip


def gather_ways(run, model, needed, dim=8):
    """The `Ways` of the words `needed`."""
    ways, words = Ways(), list(model.words)
    small = train_ways(run, needed, {SMALL: ("fit", int(SMALL))})[SMALL]
    packed, pooled = packed_encoders(words, needed), load_npy(run.stage("tokens").path / "pooled.npy")
    for ids, samples in shards_of(run, needed):
        own = [model.weights[i] for i in ids]
        ways.add(str(model.dim), ids, samples, own)
        ways.add(SMALL, ids, samples, small[ids])
        ways.add(PACKED, ids, samples, [packed[i] for i in ids], no_turn)
        ways.add(BY_COSINES, ids, samples, own, turn_for_cosines)
        lengths, width = [len(s.tokens) for s in samples], samples[0].tokens.shape[1]
        for group in group_words(lengths, width, dim, load_objective("joint")):
            some, at = [samples[k] for k in group], [ids[k] for k in group]
            for way, encoders in trained_with_cut(some, dim, pooled).items():
                ways.add(way, at, some, encoders, no_turn)
    return ways


def named_rules(ways):
    """The rules of all ways: signed ones, and without a sign."""
    return [f"{form}, {name}" for name in ways.encoders for form in ("signed", *SHOWN.get(name, FORMS))]


def of_ways(ways):
    """A function for `score_all` that gives the factors of every rule."""

    def found(model, index, term, asked, rng, more):
        if not isinstance(term, int):
            return {}
        full, given = term_vectors(index.forms, [p.rows for p in index.postings[term]]), {}
        for name, encoders in ways.encoders.items():
            w, turn = encoders[term]
            mine, theirs = (apply(x, w).astype(np.float32) @ turn for x in (asked, full))
            given[f"signed, {name}"] = mine @ theirs.T
            given |= {f"{form}, {name}": factors for form, factors in cuts(mine, theirs).items()}
        return given

    return found


def one_collection(model, collection, ways):
    """Results and gains over BM25 of every rule on a collection."""
    (documents, queries, judged), forms, asked = collection
    index, rules = build_index(forms, model.vocabulary), named_rules(ways)
    scores = score_all(model, index, asked, ("bm25", *rules), of_rules=of_ways(ways))
    runs = rankings(scores, ["bm25", *rules], [n for n, _ in documents], [q for q, _ in queries])
    return {"documents": len(documents), "queries": len(queries), **measure(runs, judged)}


def costs(per_query, ways):
    """{rule: its gain over the signed numbers it comes from, on all queries and on either half}."""
    found = {}
    for rule in named_rules(ways):
        form, name = rule.split(", ", 1)
        signed = f"signed, {name}"
        if form != "signed":
            parts = [[halved(c, keep, (rule, signed)) for c in per_query] for keep in (0, 1)]
            found[rule] = {"all": gain_over(per_query, rule, signed),
                           "halves": [gain_over(part, rule, signed) for part in parts]}  # fmt: skip
    return found


def bench(run, model, folders, cache):
    """What is recorded."""
    collections = {}
    for folder in folders:
        judged = read_judged(folder)
        texts = [[text for _, text in some] for some in judged[:2]]
        forms, asked = (read_forms(model, some, cache, normalize=True) for some in texts)
        collections[Path(folder).name] = judged, forms, asked
    asked_for = {t for _, _, asked in collections.values() for terms in terms_of(asked, model.vocabulary)
                 for t in terms if isinstance(t, int)}  # fmt: skip
    ways = gather_ways(run, model, asked_for, model.dim)
    found = {n: one_collection(model, c, ways) for n, c in collections.items()}
    per_query = [f.pop("per_query") for f in found.values()]
    return {
        "words": len(asked_for),
        "encoders": ways.facts(),
        "collections": found,
        "macro": {rule: gain_over(per_query, rule) for rule in named_rules(ways)},
        "cost": costs(per_query, ways),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True)
    parser.add_argument("--cache")
    parser.add_argument("--beir", action="append", required=True)
    parser.add_argument("--out", default="results/non_negative.json")
    given = parser.parse_args()
    one_thread()
    begin, opened = time.time(), open_run(given.run)
    results = bench(opened, MiniCOIL.load(opened.stage("model").path), given.beir, given.cache)
    save_record(given.out, {**results, "seconds": round(time.time() - begin)})
    for name, gain in results["cost"].items():
        mean, low, high = (100 * value for value in gain["all"])
        print(f"{name:40} {mean:+.2f} [{low:.2f}, {high:.2f}]")
