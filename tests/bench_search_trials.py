"""Ways to train for a search and to score it that were tried and not taken, a row each, on judged collections.

    python tests/bench_search_trials.py --run outputs/en --beir ir/cranfield --beir ir/medline --beir ir/scifact --cache outputs/cache

RUN is a finished run of the objective `fit`. Encoders are trained from its stored token embeddings for the words that queries ask,
everything else is measured as in bench_search.py. Gains are given on both halves of the queries too: choose on one, believe the other.
"""
import argparse
from pathlib import Path

import numpy as np
import torch
from bench_search import ORDINARY, read, train_ways
from record import save_record

from minicoil import MiniCOIL
from minicoil.benchmark import rankings
from minicoil.files import progress
from minicoil.objectives import apply, fit_projection, mean_cosine, sharpened, stack_rows, train_group
from minicoil.retrieval import bm25_weight, build_index, gain_over, measure, term_vectors, terms_of
from minicoil.run import open_run
from minicoil.tokens import word_tokens
from minicoil.training import group_words
from minicoil.windows import unit_rows, window_passes, window_rows

SHARED = 64  # directions of the projection that all words share in one trial


def groups_of(run, needed, dim):
    """[(word numbers, words, x (n, h), sentence ids)] of the words needed, in the groups that training would make."""
    for number, shard in enumerate(progress(run.stage("tokens").manifest["shards"], "read")):
        rows = [(i + shard["first_word"], *row) for i, row in enumerate(word_tokens(run, number)) if i + shard["first_word"] in needed]
        for group in group_words([len(x) for *_, x in rows], run.stage("tokens").manifest["hidden_size"], dim, "fit") if rows else []:
            numbers, words, ids, x = zip(*(rows[i] for i in group))
            yield list(numbers), words, [np.asarray(v) for v in x], ids


def shared_projection(run, needed, dim, words):
    """Encoders (words + 1, h, dim): one projection for all words, the `SHARED` main directions of all their rows, and a fit of each word below it."""
    groups = list(groups_of(run, needed, dim))
    moment = sum(unit_rows(x.astype(np.float64)).T @ unit_rows(x.astype(np.float64)) / len(x) for _, _, some, _ in groups for x in some)
    main = np.linalg.eigh(moment)[1][:, -SHARED:].astype(np.float32)
    found = np.zeros((words + 1, len(main), dim), np.float32)
    for numbers, names, x, _ in groups:
        found[numbers] = main @ train_group("fit", dim, [a.astype(np.float32) @ main for a in x], names=names)
    return found


def same_document(run, needed, dim, words):
    """(Encoders whose fit asks two sentences of one document to be alike, share of pairs that are)."""
    import pyarrow.parquet as pq
    parts = [pq.read_table(p, columns=["sentence_id", "doc_id"]) for p in sorted(run.stage("sentences").path.glob("part-*.parquet"))]
    ids, documents = (np.concatenate([p.column(c).to_numpy() for p in parts]) for c in ("sentence_id", "doc_id"))
    order = np.argsort(ids)
    found, pairs = np.zeros((words + 1, run.stage("tokens").manifest["hidden_size"], dim), np.float32), []
    for numbers, names, x, sentences in groups_of(run, needed, dim):
        stacked = stack_rows([a.astype(np.float32) for a in x])
        goal = sharpened(torch.nn.functional.normalize(stacked, dim=2), dim)
        for k, own in enumerate(sentences):
            d = documents[order[np.searchsorted(ids[order], np.asarray(own))]]
            same = (d[:, None] == d[None]) & ~np.eye(len(d), dtype=bool)
            pairs.append(same.sum() / max(same.size - len(d), 1))
            goal[k, : len(d), : len(d)][torch.from_numpy(same)] = 1
        w = fit_projection(stacked, dim, names=names, goal=goal)
        found[numbers] = (0.1 * w / (stacked.double() @ w).abs().amax((1, 2))[:, None, None]).numpy()
    return found, float(np.mean(pairs))


def trained(run, needed, words):
    """({row: encoders (words + 1, h, k)}, mean cosines (words + 1,) of `fit, 8`, facts)."""
    ways = train_ways(run, needed, {f"fit, {k}": ("fit", k) for k in (4, 8, 16, 32)})
    both = {w: ways[w] for w in ("fit, 4", "fit, 8")}
    one = train_ways(run, needed, {w: ("fit", int(w[-1])) for w in both}, {w: {i: v[i] for i in needed} for w, v in both.items()})
    ways |= {f"{w}, fit and graph in one loss": v for w, v in one.items()}
    ways["fit, 8, below one projection of 64"] = shared_projection(run, needed, 8, words)
    ways["fit, 8, contrast: same document"], share = same_document(run, needed, 8, words)
    level = np.ones(words + 1)
    for numbers, _, x, _ in groups_of(run, needed, 8):
        for i, a in zip(numbers, x):
            level[i] = mean_cosine(apply(a.astype(np.float32), ways["fit, 8"][i]))
    return ways, level, {"pairs_of_one_document": share, "mean_level": float(level[list(needed)].mean())}


def occurrences(model, texts, forms, wanted):
    """{(text, term): (occurrences, h) float16 of the terms wanted, first window's first} and {(text, term): how many of them lie in the first window}."""
    pieces, vectors, first, seen = model.read.pieces, {}, {}, {}
    for i, ids, token, _ in window_passes(model, window_rows(model, texts), title="occurrences"):
        window = seen[i] = seen.get(i, -1) + 1
        ends = pieces.spans(ids).tolist()
        for a, b in zip(ends[:-1], ends[1:]):
            term, _ = model.vocabulary.lookup(pieces.glue(ids[a:b]))
            if term in wanted:
                vectors.setdefault((i, term), []).append(token[a:b].mean(0).astype(np.float16))
                first[i, term] = first.get((i, term), 0) + (window == 0)
    return vectors, first


def scores_of(model, collection, ways, level):
    """{row: scores (queries, documents)}: every row's encoders scored as ever, and `fit, 8` scored in other ways."""
    documents, _, _, forms, asked = collection
    index, queries = build_index(forms, model.vocabulary), terms_of(asked, model.vocabulary)
    of_term = {}
    for q, terms in enumerate(queries):
        for term, (_, rows) in terms.items():
            if term in index.postings:
                of_term.setdefault(term, []).append((q, rows))
    texts = occurrences(model, [t for _, t in documents], forms, {t for t in of_term if isinstance(t, int)})
    n, average = len(index.lengths), float(index.lengths.mean())
    scores = {row: np.full((len(queries), n), -np.inf, np.float32) for row in ("bm25", *ways, *OTHER)}
    for term, having in of_term.items():
        at, counts = (np.array(column) for column in list(zip(*index.postings[term]))[:2])
        weight = np.log((n - len(at) + 0.5) / (len(at) + 0.5) + 1) * bm25_weight(counts.astype(float), index.lengths[at], model.k, model.b, average)
        found = factors_of(index, term, term_vectors(asked, [rows for _, rows in having]), at, ways, level, texts)
        for row, of_row in scores.items():
            for k, (q, _) in enumerate(having):
                of_row[q, at] = np.where(np.isinf(of_row[q, at]), 0, of_row[q, at]) + weight * (found[row][k] if row in found else 1.0)
    return scores


OTHER = ("fit, 8, nearest occurrence", "fit, 8, words beyond the first window at factor 1", "fit, 8, divided by the word's mean cosine", "fit, 8, unknown words at the mean factor", "fit, 8, in int8", "fit, 32, in int8")


def factors_of(index, term, mine, at, ways, level, texts):
    """{row: factors (queries, documents)} of one term for queries' mean embeddings (queries, h)."""
    if not isinstance(term, int):
        return {OTHER[3]: np.full((len(mine), len(at)), level[level < 1].mean())}
    full = term_vectors(index.forms, [rows for *_, rows in index.postings[term]])
    found = {row: apply(mine, w[term]) @ apply(full, w[term]).T for row, w in ways.items()}
    small = lambda y: np.round(127 * y) / 127
    for k, row in ((8, OTHER[4]), (32, OTHER[5])):
        w = ways[f"fit, {k}"][term]
        found[row] = small(apply(mine, w)) @ small(apply(full, w)).T
    w, (vectors, first) = ways["fit, 8"][term], texts
    y, every = apply(mine, w), [apply(np.stack(vectors[d, term]).astype(np.float32), w) if (d, term) in vectors else None for d in at.tolist()]
    found[OTHER[0]] = np.stack([found["fit, 8"][:, j] if e is None else (y @ e.T).max(1) for j, e in enumerate(every)], 1)
    found[OTHER[1]] = np.stack([found["fit, 8"][:, j] if first.get((d, term), 1) else np.ones(len(y)) for j, d in enumerate(at.tolist())], 1)
    found[OTHER[2]] = found["fit, 8"] / max(level[term], 0.1)
    return found


def halved(per_query, keep):
    """Every second query of {system: {query: value}}."""
    return {s: {q: v for k, (q, v) in enumerate(sorted(values.items())) if k % 2 == keep} for s, values in per_query.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True)
    parser.add_argument("--beir", action="append", default=[])
    parser.add_argument("--cache", required=True)
    parser.add_argument("--out", default="results/search_trials.json")
    args = parser.parse_args()
    run = open_run(args.run)
    model = MiniCOIL.load(run.stage("model").path, threads=1)
    collections = {Path(f).name: read(model, f, args.cache) for f in args.beir}
    needed = {t for c in collections.values() for terms in terms_of(c[4], model.vocabulary) for t in terms if isinstance(t, int)}
    ways, level, facts = trained(run, needed, len(model.words))
    found = {}
    for name, c in collections.items():
        scores = scores_of(model, c, ways, level)
        found[name] = measure(rankings(scores, list(scores), [d for d, _ in c[0]], [q for q, _ in c[1]]), c[2])["per_query"]
    ordinary = [f for n, f in found.items() if n in ORDINARY] or list(found.values())
    rows = {row: {"collections": {n: gain_over([f], row) for n, f in found.items()}, "macro": gain_over(ordinary, row),
                  "halves": [gain_over([halved(f, keep) for f in ordinary], row) for keep in (0, 1)]} for row in (*ways, *OTHER)}
    save_record(args.out, {"words": len(needed), **facts, "rows": rows})


if __name__ == "__main__":
    main()
