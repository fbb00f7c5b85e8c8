"""Words that mean nearly the same: what they are worth, on which side, and which half of the recipe earns it.

    python tests/bench/expansion.py --beir ir/cranfield --beir ir/medline --beir ir/scifact \\
                                    --run outputs/en --cache outputs/cache --out results/expansion.json

All rules are scored exactly, by the one code path of the benchmark. The curve is that of BM25, whose queries
need no transformer; it is measured on the collections of at most `CURVE` documents, chosen on every second
query and reported on the others. With --run, the centroids of a finished run say what general text is worth.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from record import save_record

import minicoil.retrieval.expanded_documents as documents_side
import minicoil.retrieval.thesaurus as thesaurus_side
from minicoil import MiniCOIL
from minicoil.retrieval.benchmark import rankings
from minicoil.retrieval.expanded_documents import (
    Expanded,
    added_postings,
    added_words,
    expanded_documents,
    expanded_scores,
    meaning_factors,
)
from minicoil.retrieval.expanded_feedback import feedback_scores, weighed
from minicoil.retrieval.expanded_queries import ASKED
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
from minicoil.retrieval.thesaurus import Thesaurus
from minicoil.serving.centroids import half, main_directions
from minicoil.serving.sparse import unit_rows
from minicoil.serving.windows import read_forms
from minicoil.stages.centroids import general_centroids

RULES = ("bm25", "minicoil")
MAIN = ("bm25", "minicoil", "bm25 + documents", "minicoil + documents", "rm3",
        "bm25 + documents, rm3", "minicoil + documents, rm3")
CURVE = 2000  # documents of a collection that the curve is measured on, at most
DEPTH = 100  # of each list that a mix takes


class Read:
    """A judged collection with all that the rules need."""

    def __init__(self, model, folder, cache):
        self.model, self.found = model, read_judged(folder)
        texts = [[text for _, text in some] for some in self.found[:2]]
        self.forms, self.asked = (read_forms(model, some, cache, normalize=True) for some in texts)
        self.index = build_index(self.forms, model.vocabulary)
        self.average = float(self.index.lengths.mean())
        given = (model, self.index, self.asked, RULES, self.average)
        self.plain = score_all(*given, of_rules=meaning_factors)
        self.dense = self.asked.dense @ self.forms.dense.T
        self.queries = terms_of(self.asked, model.vocabulary)
        self.thesaurus = Thesaurus.of_forms(model, self.forms, self.average)
        self.documents = list(expanded_documents(self.thesaurus, model, self.forms))

    def scores(self, documents, rules=("bm25",), thesaurus=None):
        """{rule: scores} of expanded documents."""
        thesaurus = thesaurus or self.thesaurus
        plain = {rule: self.plain[rule] for rule in rules}
        added = added_postings(thesaurus, documents)
        return expanded_scores(thesaurus, self.model, self.index, self.asked, added, plain)

    def again(self, thesaurus=None, most=documents_side.KEPT, own=documents_side.OWN, units=None, ridge=True):
        """Every document expanded in another way; `units` gives a document's terms other embeddings."""
        thesaurus = thesaurus or self.thesaurus
        for document, dense in zip(self.documents, self.forms.dense):
            expected = thesaurus.expected(dense) * (1.0 if ridge else 0.0)
            placed = document.own if units is None else document.own._replace(embeddings=units(document.own))
            rows = [thesaurus.rows.get(t) for t in document.own.terms]
            more = own * np.array([0 if row is None else expected[row] for row in rows])
            given = (thesaurus, placed, document.weights, expected, most)
            added = added_words(*given) if document.own.terms else document.added
            yield Expanded(document.own, document.weights, more, added)

    def variant(self, near=None, **given):
        """Scores of BM25 where documents are expanded in another way."""
        before = documents_side.NEAR
        documents_side.NEAR = before if near is None else near
        try:
            some = list(self.again(**given))
        finally:
            documents_side.NEAR = before
        return self.scores(some, thesaurus=given.get("thesaurus"))["bm25"]


def hub_free(thesaurus, share):
    """The same thesaurus, where words in more than this share of the documents stand for none."""
    before = thesaurus_side.COMMON
    thesaurus_side.COMMON = share
    found = replace(thesaurus)
    found.wordlike  # noqa: B018 - it is computed once, with the constant as it is now
    thesaurus_side.COMMON = before
    return found


def with_numbers(thesaurus):
    """The same thesaurus, where a number may stand for another one."""
    found = replace(thesaurus)
    found.__dict__["wordlike"] = thesaurus.counts <= thesaurus_side.COMMON * thesaurus.documents
    return found


def by_general_text(thesaurus, centroids):
    """The thesaurus with the places of its words in general text alone; stems have none."""
    known = np.array([t - 1 if isinstance(t, int) else -1 for t in thesaurus.terms])
    rows = unit_rows(centroids.vectors)[known] * (known >= 0)[:, None]
    places = {"center": centroids.center, "basis": centroids.basis, "centroids": rows.astype(np.float32)}
    return replace(thesaurus, **places)


def input_embeddings(model):
    """{term: the mean of its pieces' input embeddings in the transformer}, a function of terms."""
    from onnx import load, numpy_helper

    from minicoil.serving.directory import graph_of
    graph = graph_of(model.folder, model.info)
    stored = load(graph) if isinstance(graph, Path) else load_weightless(graph)
    table = next(numpy_helper.to_array(t) for t in stored.graph.initializer if t.dims[:1] == [30522])
    known = {}

    def of(terms):
        for term in terms:
            if term not in known:
                name = model.words[term - 1] if isinstance(term, int) else term
                ids = model.tokenizer.encode(name, add_special_tokens=False).ids
                known[term] = table[ids].astype(np.float32).mean(0)
        return np.array([known[term] for term in terms])
    return of


def load_weightless(graph):
    """The graph of the box's transformer, with its weights."""
    import tempfile

    from onnx import load

    from minicoil.serving.graph import write_graph
    with tempfile.TemporaryDirectory() as folder:
        write_graph(Path(folder) / "model.onnx", graph)
        return load(Path(folder) / "model.onnx")


def static_scores(read, of):
    """Scores of BM25 where the transformer's input embeddings say which words are near."""
    rows = of(read.thesaurus.terms)
    center = half(np.average(rows, axis=0, weights=read.thesaurus.counts))
    basis = half(main_directions(unit_rows(rows - center)))
    theirs = replace(read.thesaurus, center=center, basis=basis, centroids=unit_rows((rows - center) @ basis))
    return read.variant(thesaurus=theirs, units=lambda own: of(own.terms), own=0.0, ridge=False)


def widened(read, most, share=1.0, summed=False):
    """Scores of BM25 where queries bring their neighbours along.

    The best neighbour counts where the word is absent; with `summed` all count everywhere, as in an engine.
    """
    found = np.where(np.isinf(read.plain["bm25"]), 0, read.plain["bm25"])
    for q, terms in enumerate(read.queries):
        own = [read.thesaurus.rows[t] for t in terms if t in read.thesaurus.rows]
        for term, seen in terms.items():
            gain = gains_of(read, term, term_vectors(read.asked, [seen.rows])[0], own, most, summed)
            if term in read.index.postings and not summed:
                gain[[p.document for p in read.index.postings[term]]] = 0
            found[q] += share * gain
    return found


def gains_of(read, term, embedding, own, most, summed):
    """What a query's word earns each document by its neighbours."""
    gain, cosines = np.zeros(len(read.index.lengths)), read.thesaurus.nearness(embedding[None])[0]
    for near in read.thesaurus.nearest(cosines, most, own):
        neighbour = read.thesaurus.terms[near.row]
        at, values = postings_weights(read.model, read.index, neighbour, read.average)
        pull = max(near.nearness - ASKED, 0)
        weight = read.thesaurus.rarity(term) * pull / read.thesaurus.rarity(neighbour)
        gain[at] = gain[at] + weight * values if summed else np.maximum(gain[at], weight * values)
    return gain


def main_systems(read):
    """{system: scores (queries, documents)} of what a search offers, dense apart."""
    found = dict(read.plain)
    for rule, scores in read.scores(read.documents, RULES).items():
        found[f"{rule} + documents"] = scores
    found["rm3"] = rm3_scores(read.model, read.index, read.asked, read.plain["bm25"], read.average)
    rows = weighed(read.thesaurus, read.documents)
    words = [sum(term in rows.columns for term in terms) for terms in read.queries]
    for rule in RULES:
        found[f"{rule} + documents, rm3"] = feedback_scores(rows, found[f"{rule} + documents"], words)
    return found


def curve(read, centroids, static):
    """{system: scores} of BM25 where one thing is changed at a time."""
    found = {
        "own words unchanged": read.variant(own=0.0), "own words by half": read.variant(own=0.5),
        "own words twice": read.variant(own=2.0), "near words only": read.variant(own=0.0, ridge=False),
        "ridge only, own words too": read.variant(near=2.0),
        "40 kept": read.variant(most=40), "160 kept": read.variant(most=160),
        "threshold .3": read.variant(near=0.3),
        "numbers too": read.variant(thesaurus=with_numbers(read.thesaurus)),
        "hubs too": read.variant(thesaurus=hub_free(read.thesaurus, 1.0)),
        "queries, 8 words": widened(read, 8), "queries, 24 words": widened(read, 24),
        "queries, 8 words, summed, half": widened(read, 8, 0.5, summed=True),
        "input embeddings": static_scores(read, static),
    }
    if centroids is not None:
        general = by_general_text(read.thesaurus, centroids)
        found["general text alone, near words only"] = read.variant(thesaurus=general, own=0.0, ridge=False)
        found["general text alone"] = read.variant(thesaurus=general)
    return {f"bm25 + {name}": scores for name, scores in found.items()}


def fallen(read, scores, depth=10):
    """How many queries have, in the best ten, a document with some words above one with all of them."""
    count, asked = 0, 0
    for q, terms in enumerate(read.queries):
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


def standardised(dense, scores, names, ids):
    """{query: {document: score}} of two lists added as they are spread, not stretched to 0…1."""
    found = {}
    for q, name in enumerate(ids):
        total = {}
        for some in (dense[q], scores[q]):
            best = np.argsort(-some, kind="stable")[:DEPTH]
            best = best[np.isfinite(some[best])]
            if not len(best):
                continue
            values = (some[best] - some[best].mean()) / max(some[best].std(), 1e-9)
            lists = dict(zip(best.tolist(), (values - values.min()).tolist()))
            total = {d: total.get(d, 0.0) + lists.get(d, 0.0) for d in {**total, **lists}}
        ranked = sorted(total, key=lambda d: (-total[d], d))
        found[name] = {names[d]: float(len(ranked) - rank) for rank, d in enumerate(ranked)}
    return found


def measured(read, systems):
    """{results, gain, per_query} of one collection: systems alone, and each mixed with dense in two ways."""
    scores = {n: np.where(s == 0, -np.inf, s).astype(np.float32) for n, s in systems.items()}
    names, ids = [n for n, _ in read.found.documents], [q for q, _ in read.found.queries]
    runs = rankings(scores, scores, names, ids) | rankings({"dense": read.dense}, ["dense"], names, ids)
    for name, some in scores.items():
        pair = rankings({"dense": read.dense, "bm25": some}, ("mix_bm25",), names, ids)
        runs[f"mix, {name}"] = pair["mix_bm25"]
        if name in MAIN:
            runs[f"standardised, {name}"] = standardised(read.dense, some, names, ids)
    found = measure(runs, read.found.judged)
    found["fallen"] = {n: fallen(read, s) for n, s in scores.items() if n in MAIN}
    found["known"] = float(np.mean([isinstance(t, int) for ts in read.queries for t in ts]))
    return found | {"documents": len(names), "queries": len(ids), "terms": len(read.thesaurus.terms)}


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
    """{system: gain over BM25, alone or in the same mix} over collections, each counting the same."""
    scores = [f["per_query"] for f in found]
    names = [name for name in scores[0] if all(name in some for some in scores)]
    base = {name: f"{name.split(', ')[0]}, bm25" if name.startswith(("mix", "standardised")) else "bm25"
            for name in names}
    return {name: gain_over(scores, name, base[name]) for name in names}


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--model", default="english")
    options.add_argument("--run")
    options.add_argument("--beir", action="append", required=True)
    options.add_argument("--cache")
    options.add_argument("--out", default="results/expansion.json")
    given = options.parse_args()
    model, collections, small = MiniCOIL.load(given.model, threads=1), {}, []
    centroids = general_centroids(given.run) if given.run else None
    static = input_embeddings(model)
    for folder in given.beir:
        begin, name = time.process_time(), Path(folder).name
        read = Read(model, folder, given.cache)
        systems = main_systems(read)
        if len(read.found.documents) <= CURVE:
            systems |= curve(read, centroids, static)
            small.append(name)
        collections[name] = measured(read, systems)
        print(name, round(time.process_time() - begin, 1), "s of the processor", flush=True)
        found, few = list(collections.values()), [collections[n] for n in small]
        results = {"collections": collections, "macro": macro(found), "curve": macro(few), "curve of": small,
                   "model": given.model, "dim": model.dim, "words": len(model.words),
                   "halves": chosen(few, "bm25", [n for n in few[0]["per_query"] if n.startswith("bm25 + ")])}
        save_record(given.out, results)
    for name, gain in {**results["curve"], **results["macro"]}.items():
        print(f"{name:45} {100 * gain[0]:+.2f} [{100 * gain[1]:+.2f}, {100 * gain[2]:+.2f}]")


if __name__ == "__main__":
    main()
