"""How well do a few numbers tell senses apart? Every configuration tried, on sense-labelled sentences.

    python tests/bench/senses.py --data coarsewsd10.jsonl.gz --data homographs.jsonl.gz --out
    results/senses.json

A word's encoder is trained on sentences of its train split with the labels hidden; test sentences are
compared with all
train sentences. Each row: the mean over words and seeds (a seed draws which train sentences are learned
from), a 95 %
bootstrap interval over words, and the paired difference to the default with its interval. `--quick` is for
trying the script.
"""

import argparse
import collections
import sys
import time
from pathlib import Path

import numpy as np
from record import save_record

from minicoil.learning import graph as G
from minicoil.learning.algebra import apply
from minicoil.learning.objectives import WordSample, train_group
from minicoil.retrieval.retrieval import bootstrap
from minicoil.retrieval.sense_scores import MEASURES, reductions, sense_scores
from minicoil.runs.files import one_thread, progress
from minicoil.stages import clusters as C
from minicoil.stages.layouts import umap_layout
from minicoil.stages.targets import word_contexts, word_embeddings
from minicoil.stages.tokens import SNIPPET, snippet
from minicoil.text.pieces import WordPieces
from minicoil.text.readers import read_senses
from minicoil.text.transformer import encode as encode_rows
from minicoil.text.transformer import load_transformer
from minicoil.text.vocabulary import make_vocabulary, positions

DEFAULT = dict(
    objective="graph",
    dim=4,
    target="contexts",
    weight=C.TOKEN_WEIGHT,
    tokens="mean",
    neighbours=C.NEIGHBOURS,
    ridge=G.RIDGE,
    power=G.POWER,
    steps=G.TWO_STEPS,
    constant=G.CONSTANT,
    pool=G.POOLED_WEIGHT,
    samples=1000,
)
SWEEPS = dict(
    dim=[8, 16],
    target=["sentence", "contexts_mean", "both"],
    weight=[0.0, 0.2, 0.3, 0.6, 1.0],
    tokens=["last"],
    neighbours=[10, 15, 60, 100],
    ridge=[0.03, 0.1, 1.0, 3.0],
    power=[0, 1, 3],
    steps=[0.0, 1.0],
    constant=[0.0, 0.5, 1.5],
    pool=[0],
    samples=[50, 100, 250, 500],
    objective=["fit", "umap", "umap_original", "triplet"],
)


def encode(data, name, quick):
    """{word: {split: {view: rows}}} of a sense file.

    Tokens of mean and last layers, contexts, sentences, snippets, senses.
    """
    rows = [r for r in read_senses(data) if r["word"]]
    if quick:
        rows = [
            r
            for r in rows
            if r["word"] in dict(collections.Counter(r["word"] for r in rows).most_common()[-8:])
        ]
    model, vocabulary = load_transformer(name), make_vocabulary({r["word"]: [] for r in rows})
    pieces, texts = WordPieces(model.tokenizer), list(dict.fromkeys(r["sentence"] for r in rows))
    ids, number = model.tokenize(texts), {t: i for i, t in enumerate(texts)}
    wanted = collections.defaultdict(list)
    for k, r in enumerate(rows):
        wanted[number[r["sentence"]]].append(k)
    views, asked = (
        {
            v: [None] * len(rows)
            for v in ("mean", "last", "contexts", "contexts_mean", "sentence", "snippets")
        },
        [],
    )
    for batch in progress(encode_rows(model, ids, last=True), f"encode {Path(data).name}"):
        for i, sentence, mean, last in zip(*batch):
            found = positions(ids[i], pieces, vocabulary)
            for k in wanted[i]:
                at = found.get(vocabulary.ids[rows[k]["word"]])
                if at:
                    views["mean"][k], views["last"][k] = (
                        word_embeddings(mean, [at])[0],
                        word_embeddings(last, [at])[0],
                    )
                    views["contexts"][k], views["contexts_mean"][k], views["sentence"][k] = (
                        word_contexts(last, [at])[0],
                        word_contexts(mean, [at])[0],
                        sentence,
                    )
                    asked.append((k, *snippet(ids[i], at, SNIPPET)))
    short = [row for _, row, _ in asked]
    for batch in progress(encode_rows(model, short), "snippets"):
        for i, _, mean in zip(*batch):
            views["snippets"][asked[i][0]] = word_embeddings(mean, [asked[i][2]])[0]
    out = {}
    for word in sorted({r["word"] for r in rows}):
        for split in ("train", "test"):
            mine = [
                k
                for k, r in enumerate(rows)
                if r["word"] == word
                and (r["split"] == "train") == (split == "train")
                and views["mean"][k] is not None
            ]
            if mine:
                out.setdefault(word, {})[split] = {
                    v: np.array([x[k] for k in mine], np.float32) for v, x in views.items()
                } | {"sense": np.array([rows[k]["sense"] for k in mine])}
    return out


def usable(words, least):
    """Words whose train split has two senses of at least `least` sentences in all of the data, and test
    sentences."""
    kept = {}
    for word, d in words.items():
        if len(d) == 2:
            counts = collections.Counter(np.concatenate([d["train"]["sense"], d["test"]["sense"]]).tolist())
            if len(set(d["train"]["sense"])) > 1 and sum(n >= least for n in counts.values()) > 1:
                kept[word] = d
    return kept


def train(part, c, pooled, seed):
    """W (h, dim) of one word under configuration `c`."""
    x, contexts = part[c["tokens"]], part[c["target"] if c["target"] != "both" else "contexts"]
    C.TOKEN_WEIGHT, G.RIDGE, G.POWER, G.TWO_STEPS, G.CONSTANT, G.POOLED_WEIGHT = (
        c["weight"],
        c["ridge"],
        c["power"],
        c["steps"],
        c["constant"],
        c["pool"],
    )
    if c["target"] == "both":
        contexts = np.concatenate([C.centred_units(part["sentence"]), C.centred_units(contexts)], 1)
    targets = (
        C.centred_units(contexts) if c["target"] == "sentence" else C.sense_targets(contexts, part["mean"])
    )
    distances, objective = C.cosine_distances(targets), c["objective"]
    needs = dict(neighbours=C.nearest(distances, c["neighbours"]))
    if objective.startswith("umap"):
        if objective == "umap_original":
            unit = part["sentence"] / np.linalg.norm(part["sentence"], axis=1, keepdims=True)
            distances, objective = np.clip(unit @ unit.T, 0, None), "umap"
        needs["layout"] = umap_layout(distances, c["dim"], seed)
    if objective == "triplet":
        unit = targets / np.linalg.norm(targets, axis=1, keepdims=True)
        needs |= dict(targets=unit.astype(np.float32), snippets=part["snippets"])
    sample = WordSample("", x, **needs)
    return train_group(objective, [sample], c["dim"], pooled if c["pool"] else None, seed)[0]


def score_word(d, c, pooled, seed, cap):
    """{measure: value} of a word.

    Trained on a seeded draw of its train split, scored on (at most `cap` of) its test split.
    """
    rng = np.random.default_rng(seed)
    drawn = np.sort(rng.permutation(len(d["train"]["sense"]))[: c["samples"]])
    w = train({v: x[drawn] for v, x in d["train"].items()}, c, pooled, seed)
    test = np.sort(rng.permutation(len(d["test"]["sense"]))[:cap])
    return sense_scores(
        apply(d["train"][c["tokens"]], w),
        d["train"]["sense"],
        apply(d["test"][c["tokens"]][test], w),
        d["test"]["sense"][test],
    )


def reference(d, dim):
    """{system: {measure: value}} of what needs no training of ours."""
    a, b = d["train"], d["test"]
    scores = {
        name: sense_scores(a[view], a["sense"], b[view], b["sense"])
        for name, view in dict(full_mean="mean", full_last="last", sentence="sentence").items()
    }
    scores |= {
        name: sense_scores(f(a["mean"]), a["sense"], f(b["mean"]), b["sense"])
        for name, f in reductions(a["mean"], a["sense"], dim).items()
    }
    return scores | {
        "majority": {
            "nn1": float((b["sense"] == collections.Counter(a["sense"].tolist()).most_common(1)[0][0]).mean())
        }
    }


def summary(values, base=None):
    """{measure: [mean, low, high]} over words, and `difference` to a baseline, paired by word."""
    row = {
        m: [float(np.nanmean(v)), *bootstrap(v)] for m in MEASURES if (v := [x[m] for x in values if m in x])
    }
    if base:
        row["difference"] = {
            m: [float(np.nanmean(v)), *bootstrap(v)]
            for m in row
            if (v := [x[m] - y[m] for x, y in zip(values, base) if m in x and m in y])
        }
    return row


def over_seeds(words, c, pooled, seeds, cap, title):
    """([{measure: mean over seeds}] a word, standard deviation over seeds of the mean over words)."""
    scores = [
        [score_word(d, c, pooled, seed, cap) for seed in range(seeds)]
        for d in progress(list(words.values()), title)
    ]
    spread = {
        m: float(np.std([np.nanmean([s[k][m] for s in scores]) for k in range(seeds)])) for m in MEASURES
    }
    return [{m: float(np.mean([x[m] for x in s])) for m in MEASURES} for s in scores], spread


def configurations():
    """{name: configuration}: the default first, then one change at a time.

    A test of 8 dims for each objective last.
    """
    found = {"default": DEFAULT}
    for key, values in SWEEPS.items():
        found |= {f"{key}={v}": {**DEFAULT, key: v} for v in values}
    return found | {
        f"objective={o}, dim=8": {**DEFAULT, "objective": o, "dim": 8} for o in ("fit", "triplet")
    }


def bench(data, args):
    """All rows of one sense file."""
    words = usable(encode(data, args.model, args.quick), args.least)
    pooled = np.mean([np.cov(d["train"]["mean"].T) for d in words.values()], 0).astype(np.float32)
    wanted = [d | {} for d in words.values()]
    table, base = {}, None
    references = [reference(d, DEFAULT["dim"]) for d in progress(wanted, "references")]
    for name in references[0]:
        table[name] = summary([r[name] for r in references])
    for name, c in configurations().items():
        if args.only and not any(o in name for o in args.only.split(";")) and name != "default":
            continue
        begin = time.process_time()
        cap = 10**9 if name in ("default", "dim=8") or name.startswith("objective") else args.cap
        values, spread = over_seeds(words, c, pooled, 1 if args.quick else args.seeds, cap, name)
        base = base or values
        table[name] = summary(values, base if name != "default" else None) | {
            "seeds": spread,
            "cpu_seconds": round(time.process_time() - begin, 1),
        }
        print(
            f"{Path(data).name[:12]:13}{name:26}"
            + "  ".join(f"{m} {100 * table[name][m][0]:.1f}" for m in MEASURES),
            file=sys.stderr,
            flush=True,
        )
    return {
        "words": list(words),
        "train": sum(len(d["train"]["sense"]) for d in wanted),
        "test": sum(len(d["test"]["sense"]) for d in wanted),
        "rows": table,
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", action="append", required=True)
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--out", default="results/senses.json")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--least", type=int, default=20, help="sentences that the second class of a word must have"
    )
    parser.add_argument(
        "--cap", type=int, default=250, help="test sentences a word in the sweeps; the main rows use all"
    )
    parser.add_argument("--only", help="names to run, separated by ';'")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    one_thread()
    save_record(args.out, {Path(d).name.split(".")[0]: bench(d, args) for d in args.data})


if __name__ == "__main__":
    main()
