"""What is meaning worth inside a hybrid with dense search? Its ceiling: all numbers of the token embedding.

    python tests/bench/hybrid.py --model outputs/en/23_model --beir ir/cranfield --beir ir/medline \\
                                 --beir ir/scifact --cache outputs/cache

Each rule of meaning replaces BM25 in a fusion with dense: by rank, by the search's `mix` of scores, by
standardised scores, and on the head of the list alone: the best `HEAD` documents of BM25's hybrid are scored
again. Gains are over the same hybrid with BM25, also on both halves of the queries.
"""

import argparse
from pathlib import Path

import numpy as np
from record import save_record
from search import ORDINARY, halved, read

from minicoil import MiniCOIL
from minicoil.retrieval.retrieval import (
    best_of,
    build_index,
    fuse,
    gain_over,
    measure,
    mix,
    ranking,
    score_all,
    term_vectors,
)
from minicoil.serving.sparse import unit_rows

HEAD = 50
MEANINGS = ("cosine²", "centred cosine", "centred cosine²")


def of_meanings(middle):
    """A term's factors, as `score_all` asks for them: cosines of whole vectors, also less `middle`."""

    def of_term(model, index, term, mine, rng, more):
        full = term_vectors(index.forms, [rows for *_, rows in index.postings[term]])
        plain = unit_rows(mine) @ unit_rows(full).T
        centred = unit_rows(mine - middle) @ unit_rows(full - middle).T
        return {
            "cosine²": np.maximum(plain, 0) ** 2,
            "centred cosine": np.maximum(centred, 0),
            "centred cosine²": np.maximum(centred, 0) ** 2,
        }

    return of_term


def standardised(scores):
    """Scores (documents,) with mean 0 and deviation 1; what shares no term counts 0 before."""
    known = np.where(np.isfinite(scores), scores, 0)
    return (known - known.mean()) / max(known.std(), 1e-9)


def ways_to_fuse(dense, rule, base, names, rng):
    """{way: {document: falling rank score}} of one query: `rule`'s scores with dense, `base` is BM25's."""
    lists = [best_of(dense, names, rng), best_of(rule, names, rng)]
    usual = standardised(dense) + standardised(base)
    head = np.argsort(-usual, kind="stable")[:HEAD]
    again = np.full(len(names), -np.inf)
    again[head] = (standardised(dense) + standardised(rule))[head]
    fused = {"rank": fuse(lists), "mix": mix(lists)}
    found = {way: ranking(np.array(list(f.values())), list(f), rng) for way, f in fused.items()}
    found["standardised"] = ranking(standardised(dense) + standardised(rule), names, rng)
    return found | {"head": ranking(again, names, rng)}


def collection_scores(model, collection):
    """{"way, rule": {query: nDCG@10}} on one collection."""
    documents, queries, judged, forms, asked = collection
    index, dense = build_index(forms, model.vocabulary), asked.dense @ forms.dense.T
    rules = ("bm25", *MEANINGS)
    middle = np.asarray(forms.vectors, np.float32).mean(0)
    scores = score_all(model, index, asked, rules, of_rules=of_meanings(middle))
    names, runs = [name for name, _ in documents], {}
    for rule in rules:
        rng = np.random.default_rng(0)
        for i, (query, _) in enumerate(queries):
            found = ways_to_fuse(dense[i], scores[rule][i], scores["bm25"][i], names, rng)
            for way, ranked in found.items():
                runs.setdefault(f"{way}, {rule}", {})[query] = ranked
    return measure(runs, judged)["per_query"]


def counts(found):
    """{collection: its queries}."""
    return {name: len(next(iter(scores.values()))) for name, scores in found.items()}


def gains(found):
    """{"way, rule": gains over the way with BM25}: each collection, macro, halves."""
    ordinary = [scores for name, scores in found.items() if name in ORDINARY] or list(found.values())
    rows = {}
    for row in next(iter(found.values())):
        base = f"{row.split(', ')[0]}, bm25"
        if row != base:
            halves = [[halved(scores, keep, (base, row)) for scores in ordinary] for keep in (0, 1)]
            rows[row] = {
                "collections": {name: gain_over([scores], row, base=base) for name, scores in found.items()},
                "macro": gain_over(ordinary, row, base=base),
                "halves": [gain_over(some, row, base=base) for some in halves],
            }
    return rows


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--beir", action="append", required=True)
    parser.add_argument("--cache", required=True)
    parser.add_argument("--out", default="results/hybrid.json")
    args = parser.parse_args()
    model = MiniCOIL.load(args.model, threads=1)
    found = {Path(f).name: collection_scores(model, read(model, f, args.cache)) for f in args.beir}
    layers = model.info["layers"]
    save_record(args.out, {"layers": layers, "head": HEAD, "queries": counts(found), "rows": gains(found)})


if __name__ == "__main__":
    main()
