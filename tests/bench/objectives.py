"""Senses and search pull apart: one broad vocabulary trained under each objective, scored on Word-in-Context
pairs and on search collections.

    python tests/bench/objectives.py --run outputs/en --wic mclwic_en.jsonl.gz --beir ir/cranfield --beir
    ir/scifact --out results/objectives.json

RUN is a run until stage `tokens` (`minicoil run --corpus … --top-words 4000 --until tokens`). All encoders
are trained from its
stored token embeddings; every sentence and document is encoded once and read by all of them.
"""

import argparse
import collections
import gzip
import json
import sys
from pathlib import Path

import numpy as np
from record import save_record

from minicoil.learning.algebra import apply
from minicoil.learning.objectives import train_group
from minicoil.retrieval.judged import beir_file, read_beir_rows, read_collection, read_judgements
from minicoil.retrieval.retrieval import measure, ranking
from minicoil.retrieval.sense_scores import area_under_curve
from minicoil.runs.files import load_npy, progress
from minicoil.runs.run import open_run
from minicoil.serving.sparse import Reader, bm25_weight, idf, unit_rows
from minicoil.stages.samples import supplied, word_samples
from minicoil.stages.sentences import trained_words
from minicoil.stages.training import group_words
from minicoil.text.pieces import WordPieces
from minicoil.text.transformer import encode, load_transformer
from minicoil.text.vocabulary import make_vocabulary

WAYS = {f"{objective}, {dim}": (objective, dim) for objective in ("graph", "fit", "joint") for dim in (4, 8)}


def word_pairs(file):
    """The rows of a file of words in context: word, sentence1, sentence2, and whether both mean the same."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def asked_words(model, read, args):
    """Ids of the words that the pairs are about or the queries hold: no other encoder can change a score."""
    texts, found = [], set()
    for folder in args.beir:
        texts += [
            r["text"] for r in read_beir_rows(beir_file(Path(folder), "queries.jsonl"), ("_id", "text"))
        ]
    if args.wic:
        found |= {read.vocabulary.id_of(row["word"]) for row in word_pairs(args.wic)}
    return (found | {w for ids in model.tokenize(texts) for w in read(ids).counts}) - {0}


def train_all(run, needed):
    """{way: W (words + 1, h, dim)}, zeros for no word (row 0) and for words that are not `needed`."""
    pooled, found = load_npy(run.stage("tokens").path / "pooled.npy"), {way: [] for way in WAYS}
    for shard, facts in enumerate(progress(run.stage("tokens").manifest["shards"], "train")):
        samples = list(word_samples(run, shard))
        mine = [i for i in range(len(samples)) if i + facts["first_word"] in needed]
        sizes, hidden_size = [len(samples[i].tokens) for i in mine], samples[0].tokens.shape[1]
        for way, (objective, dim) in WAYS.items():
            w = np.zeros((len(samples), hidden_size, dim), np.float32)
            for group in group_words(sizes, hidden_size, dim, objective):
                at = [mine[k] for k in group]
                chosen = supplied(run, [samples[i] for i in at], objective)
                w[at] = train_group(objective, chosen, dim, pooled)
            found[way].append(w)
    return {way: np.concatenate([np.zeros_like(w[0][:1]), *w]) for way, w in found.items()}


def read_texts(model, read, texts, title):
    """[({word id: [count, token embedding (h,) float16]}, {stem: count}, sentence embedding)] of texts."""
    import torch

    torch.set_num_threads(2)
    ids, found = model.tokenize(texts), [None] * len(texts)
    for batch in progress(encode(model, ids), title):
        for i, s, t in zip(*batch):
            words = read(ids[i])
            known = {
                w: [words.counts[w], t[at].mean(0).astype(np.float16)] for w, at in words.positions.items()
            }
            found[i] = known, words.stems, s / np.linalg.norm(s)
    return found


def wic(model, read, vocabulary, ways, file):
    """AUC of the cosine for pairs whose word the vocabulary covers, by way; the interval is over words."""
    rows = [row for row in word_pairs(file) if vocabulary.id_of(row["word"])]

    def side(n):
        return [r[f"sentence{n}"] for r in rows]

    first, second = (read_texts(model, read, side(n), "pairs") for n in (1, 2))
    kept = []
    for r, a, b in zip(rows, first, second):
        w = vocabulary.id_of(r["word"])
        if w and w in a[0] and w in b[0]:
            kept.append(
                (
                    w,
                    bool(r["label"]),
                    a[0][w][1].astype(np.float32),
                    b[0][w][1].astype(np.float32),
                    float(a[2] @ b[2]),
                )
            )
    same, words = np.array([k[1] for k in kept]), np.array([k[0] for k in kept])
    scores = {
        way: np.array([float(np.sum(apply(a[None], w[k]) * apply(b[None], w[k]))) for k, _, a, b, _ in kept])
        for way, w in ways.items()
    }
    scores |= {
        "full": np.array([float(unit_rows(a) @ unit_rows(b)) for _, _, a, b, _ in kept]),
        "sentence": np.array([k[4] for k in kept]),
    }

    def interval(s):
        rng, names = np.random.default_rng(0), np.unique(words)
        at = {w: np.flatnonzero(words == w) for w in names}
        draws = [np.concatenate([at[w] for w in rng.choice(names, len(names))]) for _ in range(500)]
        return [
            float(v) for v in np.percentile([area_under_curve(s[d], same[d]) for d in draws], [2.5, 97.5])
        ]

    return {
        "pairs": len(kept),
        "words": len(set(words.tolist())),
        "auc": {n: [area_under_curve(s, same), *interval(s)] for n, s in scores.items()},
    }


def search(model, read, ways, folder):
    """nDCG@10 and gain over BM25 of each way on one BEIR folder."""
    judged, documents = read_judgements(folder), read_collection(folder)
    queries = [
        (r["_id"], r["text"])
        for r in read_beir_rows(beir_file(folder, "queries.jsonl"), ("_id", "text"))
        if r["_id"] in judged
    ]
    texts = read_texts(model, read, [t for _, t in documents], Path(folder).name)
    asked = read_texts(model, read, [t for _, t in queries], "queries")
    lengths = np.array(
        [sum(n for n, _ in known.values()) + sum(unknown.values()) for known, unknown, _ in texts], float
    )
    index = collections.defaultdict(list)
    for i, (known, unknown, _) in enumerate(texts):
        for term, (n, x) in known.items():
            index[term].append((i, n, x))
        for term, n in unknown.items():
            index[term].append((i, n, None))
    names, runs, average = [n for n, _ in documents], {}, lengths.mean()
    for way in ("bm25", *ways, "full", "full squared"):
        rng, runs[way] = np.random.default_rng(0), {}
        for (q, _), (known, unknown, _) in zip(queries, asked):
            scores = np.full(len(names), -np.inf)
            for term, x in [*((w, x) for w, (_, x) in known.items()), *((s, None) for s in unknown)]:
                rows = index.get(term)
                if rows:
                    at, counts = np.array([r[0] for r in rows]), np.array([r[1] for r in rows], float)
                    meaning = similarity(way, ways, term, x, rows)
                    scores[at] = (
                        np.where(np.isinf(scores[at]), 0, scores[at])
                        + idf(len(at), len(names))
                        * bm25_weight(counts, lengths[at], avg_len=average)
                        * meaning
                    )
            runs[way][q] = ranking(scores, names, rng)
    found = measure(runs, {q: judged[q] for q, _ in queries})
    print(
        Path(folder).name,
        {w: [round(100 * v, 2) for v in g] for w, g in found["gain"].items()},
        file=sys.stderr,
        flush=True,
    )
    return {"queries": len(queries), "documents": len(names), **found}


def similarity(way, ways, term, x, rows):
    """Similarity of meaning of a query's word with each posting, 1 where the word is unknown or the way is
    BM25."""
    if way == "bm25" or x is None or rows[0][2] is None:
        return 1.0
    theirs, mine = np.stack([r[2] for r in rows]).astype(np.float32), x.astype(np.float32)[None]
    if way.startswith("full"):
        cosine = (unit_rows(theirs) @ unit_rows(mine).T)[:, 0]
        return cosine**2 if way == "full squared" else cosine
    return apply(theirs, ways[way][term]) @ apply(mine, ways[way][term])[0]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", required=True)
    parser.add_argument("--wic")
    parser.add_argument("--beir", action="append", default=[])
    parser.add_argument("--out", default="results/objectives.json")
    args = parser.parse_args()
    run = open_run(args.run)
    forms, model = trained_words(run), load_transformer(run.params.input_model)
    vocabulary = make_vocabulary(forms, run.params.language)
    read = Reader(WordPieces(model.tokenizer), vocabulary)
    needed = asked_words(model, read, args)
    ways = train_all(run, needed)
    found = {"words": len(forms), "asked": len(needed), "samples": run.params.samples}
    if args.wic:
        found["wic"] = wic(model, read, vocabulary, ways, args.wic)
        print(found["wic"], file=sys.stderr, flush=True)
    found["search"] = {Path(f).name: search(model, read, ways, Path(f)) for f in args.beir}

    def gains(way, but=()):
        return [g for n, f in found["search"].items() if n not in but for g in [f["gain"][way][0]]]

    found["macro"] = (
        {way: float(np.mean(gains(way))) for way in ("bm25", *WAYS, "full", "full squared")}
        if args.beir
        else {}
    )
    found["intervals"] = {way: macro_interval(found["search"], way) for way in found["macro"]}
    save_record(args.out, found)


def macro_interval(results, way, rounds=2000):
    """95 % interval of the macro gain over BM25: queries resampled within each collection, in pairs."""
    rng = np.random.default_rng(0)
    gains = [
        np.array([f["per_query"][way][q] - f["per_query"]["bm25"][q] for q in f["per_query"]["bm25"]])
        for f in results.values()
    ]
    draws = [np.mean([g[rng.integers(0, len(g), len(g))].mean() for g in gains]) for _ in range(rounds)]
    return [float(v) for v in np.percentile(draws, [2.5, 97.5])]


if __name__ == "__main__":
    main()
