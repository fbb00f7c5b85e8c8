"""Ways to train for a search and to score it that were tried and not taken, a row each, on judged
collections.

    python tests/bench/search_trials.py --run outputs/en --beir ir/cranfield --beir ir/medline --beir
    ir/scifact --cache outputs/cache

RUN is a finished run of the objective `fit`. Encoders are trained from its stored token embeddings for the
words that queries ask,
everything else is measured as in bench/search.py. Gains are given on both halves of the queries too: choose
on one, believe the other.
"""

import argparse
from collections import defaultdict
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from record import save_record
from search import ORDINARY, asked_words, halved, read, shards_of, train_ways

from minicoil import MiniCOIL
from minicoil.learning.algebra import apply, mean_cosine
from minicoil.learning.fit import FIT, Goal, own_goal, train_fit
from minicoil.learning.objectives import train_group
from minicoil.retrieval.retrieval import (
    build_index,
    factors,
    gain_over,
    measure,
    postings_weights,
    score_all,
    term_vectors,
    terms_of,
)
from minicoil.retrieval.systems import rankings
from minicoil.runs.run import open_run
from minicoil.serving.batches import window_passes, window_rows
from minicoil.serving.blocks import plain_texts
from minicoil.serving.sparse import unit_rows
from minicoil.stages.training import group_words

SHARED = 64  # directions of the projection that all words share in one trial
OTHER = (
    "fit, 8, nearest occurrence",
    "fit, 8, words beyond the first window at factor 1",
    "fit, 8, divided by the word's mean cosine",
    "fit, 8, unknown words at the mean factor",
    "fit, 8, in int8",
    "fit, 32, in int8",
)
NEAREST, BEYOND, DIVIDED, UNKNOWN, INT8, INT8_32 = OTHER  # ways to score encoders that are there
FAMILY, FAMILY_WEIGHT = (
    6,
    0.2,
)  # words with the same first letters count as forms of a query's word, each so much
EXPANDED = {"bm25, query expanded to other forms": "bm25", "fit, 8, query expanded to other forms": "fit, 8"}


def groups_of(run, needed, dim):
    """(word numbers, samples) of the words needed, in the groups that training would make."""
    for numbers, samples in shards_of(run, needed):
        for group in group_words(
            [len(s.tokens) for s in samples], run.stage("tokens").manifest["hidden_size"], dim, "fit"
        ):
            yield [numbers[i] for i in group], [samples[i] for i in group]


def shared_projection(run, needed, dim, words):
    """Encoders (words + 1, h, dim).

    One projection for all words, the `SHARED` main directions of all their rows, and a fit of each word below
    it.
    """
    groups, moment = list(groups_of(run, needed, dim)), 0
    for _, samples in groups:
        for sample in samples:
            rows = unit_rows(sample.tokens.astype(np.float64))
            moment = moment + rows.T @ rows / len(rows)
    main = np.linalg.eigh(moment)[1][:, -SHARED:].astype(np.float32)
    found = np.zeros((words + 1, len(main), dim), np.float32)
    for numbers, samples in groups:
        found[numbers] = main @ train_group("fit", [replace(s, tokens=s.tokens @ main) for s in samples], dim)
    return found


def documents_of(run):
    """{sentence id: document id} of a run."""
    import pyarrow.parquet as pq

    parts = [
        pq.read_table(p, columns=["sentence_id", "doc_id"]) for p in run.stage("sentences").parts("parquet")
    ]
    return {s: d for p in parts for s, d in zip(p["sentence_id"].to_pylist(), p["doc_id"].to_pylist())}


def pairs_of_one_document(sample, document):
    """(n, n): whether two different sentences of a word are of one document."""
    own = np.array([document[s] for s in sample.ids.tolist()])
    return (own[:, None] == own[None]) & ~np.eye(len(own), dtype=bool)


def same_document_goal(group, document):
    """The usual goal of `fit`, but two sentences of one document should be alike."""
    goal = own_goal(group).cosines
    for k, sample in enumerate(group.samples):
        n = len(sample.tokens)
        goal[k, :n, :n][torch.from_numpy(pairs_of_one_document(sample, document))] = 1
    return Goal(goal)


def same_document(run, needed, dim, words):
    """(Encoders whose fit asks two sentences of one document to be alike, share of pairs that are)."""
    document, shares = documents_of(run), []
    objective = replace(FIT, train=partial(train_fit, goal=partial(same_document_goal, document=document)))
    found = np.zeros((words + 1, run.stage("tokens").manifest["hidden_size"], dim), np.float32)
    for numbers, samples in groups_of(run, needed, dim):
        found[numbers] = train_group(objective, samples, dim)
        for same in (pairs_of_one_document(sample, document) for sample in samples):
            shares.append(same.sum() / max(same.size - len(same), 1))
    return found, float(np.mean(shares))


def trained(run, needed, words):
    """({row: encoders (words + 1, h, k)}, mean cosines (words + 1,) of `fit, 8`, facts)."""
    ways = train_ways(run, needed, {f"fit, {k}": ("fit", k) for k in (4, 8, 16, 32)})
    both = {w: ways[w] for w in ("fit, 4", "fit, 8")}
    one = train_ways(
        run,
        needed,
        {w: ("fit", int(w[-1])) for w in both},
        {w: {i: v[i] for i in needed} for w, v in both.items()},
    )
    ways |= {f"{w}, fit and graph in one loss": v for w, v in one.items()}
    ways["fit, 8, below one projection of 64"] = shared_projection(run, needed, 8, words)
    ways["fit, 8, contrast: same document"], share = same_document(run, needed, 8, words)
    level = np.ones(words + 1)
    for numbers, samples in shards_of(run, needed):
        for i, sample in zip(numbers, samples):
            level[i] = mean_cosine(apply(sample.tokens, ways["fit, 8"][i]))
    return ways, level, {"pairs_of_one_document": share, "mean_level": float(level[list(needed)].mean())}


def occurrences(model, texts, wanted):
    """Where and how the terms wanted occur in texts.

    Two dicts by (text, term): token embeddings (h,) float16 of the occurrences, and how many of these lie in
    the first window.
    """
    pieces, vectors, first, seen = model.read.pieces, {}, {}, {}
    for i, ids, token, _ in window_passes(
        model, window_rows(model, plain_texts(texts, normalize=True)), title="occurrences"
    ):
        window = seen[i] = seen.get(i, -1) + 1
        ends = pieces.spans(ids).tolist()
        for a, b in zip(ends[:-1], ends[1:]):
            term, _ = model.vocabulary.look_up(pieces.glue(ids[a:b]))
            if term in wanted:
                vectors.setdefault((i, term), []).append(token[a:b].mean(0).astype(np.float16))
                first[i, term] = first.get((i, term), 0) + (window == 0)
    return vectors, first


def of_other_forms(model, index, queries):
    """BM25 scores (queries, documents) of the collection's words that begin with the first `FAMILY` letters
    of a query's word, but are not in the query themselves; `queries` as `terms_of` gives them."""
    family, average = defaultdict(list), float(index.lengths.mean())

    def start(term):
        return (model.words[term - 1] if isinstance(term, int) else term)[:FAMILY]

    for term in index.postings:
        family[start(term)].append(term)
    scores = np.zeros((len(queries), len(index.lengths)), np.float32)
    for q, terms in enumerate(queries):
        for other in dict.fromkeys(
            o for t in terms if len(start(t)) == FAMILY for o in family[start(t)] if o not in terms
        ):
            at, weight = postings_weights(model, index, other, average)
            scores[q, at] += weight
    return scores


def more_factors(ways, level, mean_level, texts):
    """What `score_all` asks for a term's factors.

    Those of `ways`, of `fit, 8` scored in other ways, and of vectors in int8.
    """
    vectors, first = texts

    def small(y):
        return np.round(127 * y) / 127

    def of_term(model, index, term, mine, rng, more):
        if not isinstance(term, int):
            return {UNKNOWN: np.full((len(mine), len(index.postings[term])), mean_level)}
        found, w, at = (
            factors(model, index, term, mine, rng, more),
            ways["fit, 8"][term],
            [d for d, *_ in index.postings[term]],
        )
        usual, y = found["fit, 8"], apply(mine, w)

        def nearest(j, d):
            return (
                (y @ apply(np.stack(vectors[d, term]).astype(np.float32), w).T).max(1)
                if (d, term) in vectors
                else usual[:, j]
            )

        full = term_vectors(index.forms, [rows for *_, rows in index.postings[term]])
        for row, way in ((INT8, "fit, 8"), (INT8_32, "fit, 32")):
            found[row] = small(apply(mine, ways[way][term])) @ small(apply(full, ways[way][term])).T
        return found | {
            NEAREST: np.stack([nearest(j, d) for j, d in enumerate(at)], 1),
            DIVIDED: usual / max(level[term], 0.1),
            UNKNOWN: usual,
            BEYOND: np.where([first.get((d, term), 1) > 0 for d in at], usual, 1.0),
        }

    return of_term


def scores_of(model, ways, level, facts, collection, known):
    """{row: scores (queries, documents)} of BM25 and all trials on one collection."""
    documents, _, _, forms, asked = collection
    texts, index = occurrences(model, [t for _, t in documents], known), build_index(forms, model.vocabulary)
    of_rules = more_factors(ways, level, facts["mean_level"], texts)
    scores = score_all(model, index, asked, ("bm25", *ways, *OTHER), more=ways, of_rules=of_rules)
    of_forms = FAMILY_WEIGHT * of_other_forms(model, index, terms_of(asked, model.vocabulary))
    for row, way in EXPANDED.items():
        alone = (of_forms > 0) & np.isinf(scores[way])
        scores[row] = np.where(alone, 0, scores[way]) + of_forms
    return scores


def per_query(scores, collection):
    """{row: {query: nDCG@10}} of scores on one collection."""
    documents, queries, judged, *_ = collection
    runs = rankings(scores, list(scores), [d for d, _ in documents], [q for q, _ in queries])
    return measure(runs, judged)["per_query"]


def row_gains(found, row):
    """A row's gain over BM25: of each collection, the macro, and of both halves of the queries."""
    ordinary = [f for name, f in found.items() if name in ORDINARY] or list(found.values())
    half = [[halved(f, keep, ("bm25", row)) for f in ordinary] for keep in (0, 1)]
    return {
        "collections": {name: gain_over([f], row) for name, f in found.items()},
        "macro": gain_over(ordinary, row),
        "halves": [gain_over(some, row) for some in half],
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", required=True)
    parser.add_argument("--beir", action="append", default=[])
    parser.add_argument("--cache", required=True)
    parser.add_argument("--out", default="results/search_trials.json")
    args = parser.parse_args()
    run = open_run(args.run)
    model = MiniCOIL.load(run.stage("model").path, threads=1)
    collections = {Path(f).name: read(model, f, args.cache) for f in args.beir}
    known = {name: asked_words(model, [c]) for name, c in collections.items()}
    needed = set().union(*known.values())
    ways, level, facts = trained(run, needed, len(model.words))
    found = {
        name: per_query(scores_of(model, ways, level, facts, c, known[name]), c)
        for name, c in collections.items()
    }
    rows = {row: row_gains(found, row) for row in (*ways, *OTHER, *EXPANDED)}
    save_record(args.out, {"words": len(needed), **facts, "rows": rows})


if __name__ == "__main__":
    main()
