"""Words that mean nearly the same: what they are worth, on which side, and which half of the recipe earns it.

    python tests/bench/expansion.py --model outputs/en/23_model --beir ir/cranfield --beir ir/medline \\
                                    --cache outputs/cache --out results/expansion.json

All rules are scored exactly, by the one code path of the benchmark. Whole token embeddings (cosine²) say what
few numbers could reach at most. The curve is chosen on every second query and reported on the others.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from record import save_record

import minicoil.retrieval.expanded_documents as documents_side
from minicoil import MiniCOIL
from minicoil.retrieval.benchmark import rankings
from minicoil.retrieval.expanded_documents import added_postings, expanded_documents, expanded_scores
from minicoil.retrieval.expanded_queries import NEAR
from minicoil.retrieval.judged import read_judged
from minicoil.retrieval.retrieval import (
    build_index,
    gain_over,
    measure,
    postings_weights,
    score_all,
    term_vectors,
    terms_of,
)
from minicoil.retrieval.rivals import rm3_scores
from minicoil.retrieval.thesaurus import Thesaurus, names_of
from minicoil.runs.files import load_json
from minicoil.serving.windows import read_forms

RULES = ("bm25", "minicoil", "token_full_sharp")
BROUGHT = (8, 24)  # words that a query's word brings along
LOOKED_AT = 40  # words whose neighbours are kept, to be read by eye


class Read:
    """A judged collection with all that the rules need."""

    def __init__(self, model, folder, cache):
        self.model, self.found = model, read_judged(folder)
        texts = [[text for _, text in some] for some in self.found[:2]]
        self.forms, self.asked = (read_forms(model, some, cache, normalize=True) for some in texts)
        self.index = build_index(self.forms, model.vocabulary)
        self.average = float(self.index.lengths.mean())
        self.plain = score_all(model, self.index, self.asked, RULES, self.average)
        self.dense = self.asked.dense @ self.forms.dense.T
        self.thesaurus = Thesaurus.of_forms(model, self.forms, self.average)

    def added(self, **changed):
        """{rule: scores} of expanded documents; `changed` sets constants of the recipe."""
        before = {name: getattr(documents_side, name) for name in changed}
        for name, value in changed.items():
            setattr(documents_side, name, value)
        try:
            most = changed.get("KEPT", documents_side.KEPT)
            some = expanded_documents(self.thesaurus, self.model, self.forms, most)
            postings = added_postings(self.thesaurus, some)
        finally:
            for name, value in before.items():
                setattr(documents_side, name, value)
        return expanded_scores(self.thesaurus, self.model, self.index, self.asked, postings, self.plain)

    def one_source(self, source):
        """{rule: scores} where documents get words from one of the two sources only."""
        whole = self.thesaurus
        silent = np.zeros_like(whole.ridge if source == "words" else whole.centroids)
        self.thesaurus = replace(whole, **{"ridge" if source == "words" else "centroids": silent})
        try:
            return self.added()
        finally:
            self.thesaurus = whole


def widened(read, most, share=1.0, summed=False):
    """{rule: scores} where queries bring their neighbours along, by their plain weights.

    The best neighbour counts where the word is absent; with `summed` all count everywhere, as in an engine.
    """
    found = {rule: np.where(np.isinf(scores), 0, scores) for rule, scores in read.plain.items()}
    for q, terms in enumerate(terms_of(read.asked, read.model.vocabulary)):
        own = [read.thesaurus.rows[t] for t in terms if t in read.thesaurus.rows]
        for term, seen in terms.items():
            gain = gains_of(read, term, term_vectors(read.asked, [seen.rows])[0], own, most, summed)
            if term in read.index.postings and not summed:
                gain[[p.document for p in read.index.postings[term]]] = 0
            for scores in found.values():
                scores[q] += share * gain
    return found


def gains_of(read, term, embedding, own, most, summed):
    """What a query's word earns each document by its neighbours."""
    gain, cosines = np.zeros(len(read.index.lengths)), read.thesaurus.nearness(embedding[None])[0]
    for near in read.thesaurus.nearest(cosines, most, own):
        neighbour = read.thesaurus.terms[near.row]
        at, values = postings_weights(read.model, read.index, neighbour, read.average)
        weight = read.thesaurus.rarity(term) * (near.nearness - NEAR) / read.thesaurus.rarity(neighbour)
        gain[at] = gain[at] + weight * values if summed else np.maximum(gain[at], weight * values)
    return gain


def ways_of(read):
    """{system: scores (queries, documents)} of every way, dense apart."""
    found = dict(read.plain)
    for name, scores in {
        "documents": read.added(),
        "documents, near words only": read.one_source("words"),
        "documents, ridge only": read.one_source("ridge"),
        **{f"documents, {n} kept": read.added(KEPT=n) for n in (40, 160)},
        **{f"documents, threshold {x}": read.added(NEAR=x) for x in (0.2, 0.4)},
        **{f"queries, {n} words": widened(read, n) for n in BROUGHT},
        "queries, 8 words, summed, half": widened(read, 8, 0.5, summed=True),
    }.items():
        found |= {f"{rule} + {name}": some for rule, some in scores.items()}
    found["rm3"] = rm3_scores(read.model, read.index, read.asked, read.plain["bm25"], read.average)
    return {name: np.where(scores == 0, -np.inf, scores).astype(np.float32) for name, scores in found.items()}


def fallen(read, scores, depth=10):
    """How many queries have, in the best ten, a document with some words above one with all of them."""
    queries, count, asked = terms_of(read.asked, read.model.vocabulary), 0, 0
    for q, terms in enumerate(queries):
        having = np.zeros(len(read.index.lengths), int)
        for term in terms:
            having[[p.document for p in read.index.postings.get(term, [])]] += 1
        full = np.flatnonzero(having == len(terms))
        best = np.argsort(-scores[q], kind="stable")[:depth]
        asked += len(full) > 0
        if len(full):
            partly = scores[q][best[having[best] < len(terms)]]
            count += bool(partly.max(initial=-np.inf) > scores[q][full].min())
    return {"queries with such a document": int(asked), "fallen": int(count)}


def measured(read):
    """{results, gain, mixes, per_query} of one collection, and how often a full match falls."""
    scores = ways_of(read)
    names, ids = [n for n, _ in read.found.documents], [q for q, _ in read.found.queries]
    runs = rankings(scores, scores, names, ids)
    runs |= rankings({"dense": read.dense}, ["dense"], names, ids)
    for name, some in scores.items():
        pair = rankings({"dense": read.dense, "bm25": some}, ("mix_bm25", "hybrid_bm25"), names, ids)
        runs |= {f"mix, {name}": pair["mix_bm25"], f"hybrid, {name}": pair["hybrid_bm25"]}
    found = measure(runs, read.found.judged)
    found["fallen"] = {name: fallen(read, scores[name]) for name in ("bm25", "bm25 + documents")}
    known = [isinstance(t, int) for ts in terms_of(read.asked, read.model.vocabulary) for t in ts]
    return found | {"documents": len(names), "queries": len(ids), "known": float(np.mean(known)),
                    "terms": len(read.thesaurus.terms)}


def looked_at(read, seed=0):
    """Neighbours of words drawn at random, and the words that thirty documents are given, to be read."""
    draw, thesaurus = np.random.default_rng(seed), read.thesaurus
    rows = draw.choice(len(thesaurus.names), min(LOOKED_AT, len(thesaurus.names)), replace=False)
    near = {thesaurus.names[row]: [f"{n.name} {n.nearness:.2f}" for n in
                                   thesaurus.neighbours(thesaurus.names[row], 5)] for row in rows}
    some = list(expanded_documents(thesaurus, read.model, read.forms, 10))
    given = {}
    for i in draw.choice(len(some), min(30, len(some)), replace=False):
        text = read.found.documents[i][1][:160]
        given[text] = names_of(read.model, [thesaurus.terms[row] for row in some[i].added.rows])
    return {"neighbours": near, "documents": given}


def halved(per_query, keep):
    """Every second query of {system: {query: value}}."""
    return {s: {q: v for k, (q, v) in enumerate(sorted(some.items())) if k % 2 == keep}
            for s, some in per_query.items()}


def chosen(found, base, among):
    """The best of some systems by macro gain on one half of the queries, its gain on the other, both ways."""
    rows = []
    for keep in (0, 1):
        first, other = ([halved(f["per_query"], k) for f in found] for k in (keep, 1 - keep))
        best = max(among, key=lambda name: gain_over(first, name, base)[0])
        rows.append({"chosen": best, "gain": gain_over(other, best, base)})
    return rows


def macro(found):
    """{system: gain over BM25, alone or in its mix} over collections, each counting the same."""
    scores, names = [f["per_query"] for f in found], found[0]["per_query"]
    base = {name: "mix, bm25" if name.startswith("mix") else "hybrid, bm25" if name.startswith("hybrid")
            else "bm25" for name in names}
    return {name: gain_over(scores, name, base[name]) for name in names}


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--model", required=True)
    options.add_argument("--beir", action="append", required=True)
    options.add_argument("--cache")
    options.add_argument("--out", default="results/expansion.json")
    given = options.parse_args()
    model, collections = MiniCOIL.load(given.model, threads=1), {}
    if Path(given.out).exists():
        collections = load_json(given.out)["results"]["collections"]
    for folder in given.beir:
        begin = time.perf_counter()
        read = Read(model, folder, given.cache)
        collections[Path(folder).name] = measured(read) | {"read": looked_at(read)}
        print(Path(folder).name, round(time.perf_counter() - begin, 1), "s", flush=True)
        found = list(collections.values())
        curve = [name for name in found[0]["per_query"] if name.startswith("bm25 + ")]
        results = {"collections": collections, "macro": macro(found), "model": Path(given.model).parent.name,
                   "dim": model.dim, "words": len(model.words), "halves": chosen(found, "bm25", curve)}
        save_record(given.out, results)
    for name, gain in results["macro"].items():
        print(f"{name:45} {100 * gain[0]:+.2f} [{100 * gain[1]:+.2f}, {100 * gain[2]:+.2f}]")


if __name__ == "__main__":
    main()
