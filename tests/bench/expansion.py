"""Words that mean nearly the same: what they are worth, on which side, and which half of the recipe earns it.

    python tests/bench/expansion.py --beir ir/cranfield --beir ir/medline --beir ir/scifact \\
                                    --run outputs/en --cache outputs/cache --out results/expansion.json

All rules are scored exactly, by the one code path of the benchmark. The curve is that of BM25, whose queries
need no transformer. What is chosen on every second query is reported on the others. With --run, the centroids
of a finished run say what general text is worth. With --kept, what was measured of a collection is kept in a
folder and not measured again; with --measure-only, nothing is put together yet.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from expansion_ways import (
    ONLY_SMALL,
    WAYS,
    Asking,
    Measure,
    Postings,
    by_general_text,
    by_input_embeddings,
    document_ways,
    in_int8,
    input_embeddings,
    query_ways,
    replace,
    widened,
)
from mixes import RULES, mixed_runs
from record import save_record

from minicoil import MiniCOIL
from minicoil.retrieval.expanded_documents import (
    added_postings,
    expanded_documents,
    expanded_scores,
    meaning_factors,
)
from minicoil.retrieval.expanded_feedback import feedback_scores, weighed
from minicoil.retrieval.judged import read_judged
from minicoil.retrieval.retrieval import build_index, gain_over, measure, score_all, terms_of
from minicoil.retrieval.rivals import rm3_scores
from minicoil.retrieval.systems import rankings
from minicoil.retrieval.thesaurus import Thesaurus
from minicoil.runs.files import load_json, save_json
from minicoil.serving.windows import read_forms
from minicoil.stages.centroids import general_centroids

LEXICAL = ("bm25", "minicoil")
MAIN = ("bm25", "minicoil", "bm25 + documents", "minicoil + documents", "rm3",
        "bm25 + documents, rm3", "minicoil + documents, rm3",
        "bm25 + queries", "minicoil + queries")  # fmt: skip
GOALS = MAIN[1:]  # what the mix is chosen for
CURVE = 2000  # documents of a collection that the whole curve is measured on, at most


class Read:
    """A judged collection with all that the rules need."""

    def __init__(self, model, folder, cache):
        self.model, self.found = model, read_judged(folder)
        texts = [[text for _, text in some] for some in self.found[:2]]
        self.forms, self.asked = (read_forms(model, some, cache, normalize=True) for some in texts)
        self.index = build_index(self.forms, model.vocabulary)
        self.average = float(self.index.lengths.mean())
        given = (model, self.index, self.asked, LEXICAL, self.average)
        self.plain = score_all(*given, of_rules=meaning_factors)
        self.dense = self.asked.dense @ self.forms.dense.T
        self.queries = terms_of(self.asked, model.vocabulary)
        self.thesaurus = Thesaurus.of_forms(model, self.forms, self.average)
        self.documents = list(expanded_documents(self.thesaurus, model, self.forms))

    def expanded(self):
        """{rule: scores} of expanded documents, as the benchmark has them."""
        plain = {rule: self.plain[rule] for rule in LEXICAL}
        added = added_postings(self.thesaurus, self.documents)
        return expanded_scores(self.thesaurus, self.model, self.index, self.asked, added, plain)


def main_systems(read):
    """{system: scores (queries, documents)} of what a search offers, dense apart."""
    found = dict(read.plain)
    for rule, scores in read.expanded().items():
        found[f"{rule} + documents"] = scores
    found["rm3"] = rm3_scores(read.model, read.index, read.asked, read.plain["bm25"], read.average)
    rows, postings = weighed(read.thesaurus, read.documents), Postings(read)
    words = [sum(term in rows.columns for term in terms) for terms in read.queries]
    for rule in LEXICAL:
        found[f"{rule} + documents, rm3"] = feedback_scores(rows, found[f"{rule} + documents"], words)
        found[f"{rule} + queries"] = widened(read, Asking(), postings, rule)
    return found


def curve(read, centroids, static):
    """{system: scores} of BM25 where one thing is changed at a time."""
    own, large = read.thesaurus, len(read.documents) > CURVE
    measures = {"own": Measure(own)}
    if not large:
        in_bytes = replace(own, centroids=in_int8(own.centroids), basis=in_int8(own.basis.T).T)
        measures |= {"input": by_input_embeddings(own, static), "int8": Measure(in_bytes)}
    if centroids is not None and not large:
        measures["general"] = Measure(by_general_text(own, centroids))
    ways = {name: way for name, way in WAYS.items() if not (large and name in ONLY_SMALL)}
    found = document_ways(read, measures, ways)
    theirs = read.expanded()["bm25"]
    theirs[np.isinf(theirs)] = 0
    assert np.allclose(found["as in the package"], theirs, atol=1e-2), "the curve is not the package's"
    sides = {"documents": found, "queries": query_ways(read)}
    return {f"{side}, {name}": scores for side, some in sides.items() for name, scores in some.items()}


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


def measured(read, systems):
    """{results, per_query, …} of one collection: systems alone, and each mixed with dense by rules."""
    scores = {n: np.where(s == 0, -np.inf, s).astype(np.float32) for n, s in systems.items()}
    names, ids = [n for n, _ in read.found.documents], [q for q, _ in read.found.queries]
    runs = rankings(scores, scores, names, ids) | rankings({"dense": read.dense}, ["dense"], names, ids)
    for name, some in scores.items():
        pair = rankings({"dense": read.dense, "bm25": some}, ("mix_bm25",), names, ids)
        runs[f"mix, {name}"] = pair["mix_bm25"]
        for rule in RULES if name in MAIN else ():
            runs[f"{rule}, {name}"] = mixed_runs(rule, read.dense, some, names, ids)
    found = measure(runs, read.found.judged)
    found["fallen"] = {n: fallen(read, s) for n, s in scores.items() if n in MAIN}
    found["known"] = float(np.mean([isinstance(t, int) for ts in read.queries for t in ts]))
    return found | {"documents": len(names), "queries": len(ids), "terms": len(read.thesaurus.terms)}


def halved(per_query, keep):
    """Every second query of {system: {query: value}}."""
    return {s: {q: v for k, (q, v) in enumerate(sorted(some.items())) if k % 2 == keep}
            for s, some in per_query.items()}  # fmt: skip


def chosen(found, base, among):
    """The best of some systems by macro gain on one half of the queries, its gain on the other, both ways."""
    rows = []
    for keep in (0, 1):
        first, other = ([halved(f["per_query"], k) for f in found] for k in (keep, 1 - keep))
        best = max(among, key=lambda name: gain_over(first, name, base)[0])
        ours = f"{best.split(', ')[0]}, as in the package"
        rows.append({"chosen": best, "gain": gain_over(other, best, base)})
        rows[-1] |= {"as in the package": gain_over(other, ours, base)} if ours in among else {}
    return rows


def chosen_mix(found):
    """The rule of mixing that is best for a system on one half of the queries, on the other, both ways."""
    rows = []
    for name in GOALS:
        for keep in (0, 1):
            first, other = ([halved(f["per_query"], k) for f in found] for k in (keep, 1 - keep))
            value = {r: np.mean([np.mean(list(f[f"{r}, {name}"].values())) for f in first]) for r in RULES}
            best = max(value, key=value.get)
            gain = {r: gain_over(other, f"{r}, {name}", f"{r}, bm25") for r in {best, "mix"}}
            over = gain_over(other, f"{best}, {name}", f"mix, {name}")
            rows.append({"system": name, "chosen": best, "gain": gain[best], "over the product's": over})
    return rows


def macro(found):
    """{system: gain over BM25, alone or in the same mix} over collections, each counting the same."""
    scores = [f["per_query"] for f in found]
    names = [name for name in scores[0] if all(name in some for some in scores)]
    first = {name: name.split(", ")[0] for name in names}
    base = {name: f"{first[name]}, bm25" if first[name] in ("mix", *RULES) else "bm25" for name in names}
    return {name: gain_over(scores, name, base[name]) for name in names}


def put_together(collections):
    """The record's results of {collection: what was measured}; single queries are left out."""
    found = list(collections.values())
    names = [name for name in found[0]["per_query"] if all(name in f["per_query"] for f in found)]
    sides = {side: [n for n in names if n.startswith(f"{side}, ")] for side in ("documents", "queries")}
    halves = {side: chosen(found, "bm25", some) for side, some in sides.items()}
    halves |= {f"mix, {side}": chosen(found, "mix, bm25", [f"mix, {n}" for n in some])
               for side, some in sides.items()}  # fmt: skip
    few = {name: f for name, f in collections.items() if f["documents"] <= CURVE}
    gains = macro(list(few.values())) if few else {}
    small = {name: gain for name, gain in gains.items() if name not in names}
    lean = {name: {k: v for k, v in f.items() if k != "per_query"} for name, f in collections.items()}
    curves = {side: {name.split(", ", 1)[1]: name for name in some} for side, some in sides.items()}
    return {"collections": lean, "macro": macro(found), "curves": curves, "halves": halves,
            "mixes": chosen_mix(found), "rules": list(RULES),
            "small": {"collections": list(few), "macro": small}}  # fmt: skip


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--model", default="english")
    options.add_argument("--run")
    options.add_argument("--beir", action="append", required=True)
    options.add_argument("--cache")
    options.add_argument("--kept")
    options.add_argument("--measure-only", action="store_true")
    options.add_argument("--out", default="results/expansion.json")
    given = options.parse_args()
    model, collections = MiniCOIL.load(given.model, threads=1), {}
    centroids = general_centroids(given.run) if given.run else None
    static = input_embeddings(model)
    for folder in given.beir:
        begin, name = time.process_time(), Path(folder).name
        kept = Path(given.kept) / f"{name}.json" if given.kept else None
        if kept and kept.exists():
            collections[name] = load_json(kept)
            continue
        read = Read(model, folder, given.cache)
        collections[name] = measured(read, main_systems(read) | curve(read, centroids, static))
        print(name, round(time.process_time() - begin, 1), "s of the processor", flush=True)
        if kept:
            save_json(kept, collections[name])
    if given.measure_only:
        return
    facts = {"model": given.model, "dim": model.dim, "words": len(model.words)}
    results = put_together(collections) | facts
    save_record(given.out, results)
    for name, gain in results["macro"].items():
        print(f"{name:60} {100 * gain[0]:+.2f} [{100 * gain[1]:+.2f}, {100 * gain[2]:+.2f}]")


if __name__ == "__main__":
    main()
