"""Numbers spent where they pay: a budget against the same count for every word, at the same size of an index.

    python tests/bench/budget.py --run outputs/en --beir ir/cranfield --beir ir/medline --beir ir/scifact \\
                                 --senses coarsewsd10.jsonl.gz --cache outputs/cache

RUN is a finished run (`make model-en`). The words that queries ask are trained with 1, 2, 4, 8 and 16 numbers
each, from the sentences that the run has drawn (see joint.py, whose cache this takes). Held-out errors then
say which count each word gets: for a mean over words, and for an index that is as large as one with a fixed
count. As a control the same counts are given to the words at random. The size of an index counts the numbers
of these words in all documents.
"""

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from joint import (
    asked_rows,
    asked_samples,
    labelled_words,
    run_options,
    scores_by,
    small_collection,
    train_words,
)
from record import save_record
from search_trials import row_gains

from minicoil import MiniCOIL
from minicoil.learning.algebra import apply
from minicoil.learning.objectives import load_objective
from minicoil.learning.spending import halves, held_out_errors, numbers_at, price_for, steps_of
from minicoil.retrieval.retrieval import measure
from minicoil.retrieval.sense_scores import MEASURES, sense_scores
from minicoil.retrieval.systems import rankings
from minicoil.runs.files import one_thread
from minicoil.runs.parameters import NUMBERS
from minicoil.stages.training import group_words
from minicoil.text.readers import DATA

BUDGETS, FIXED, SHUFFLES = (2, 3, 4, 6, 8), (2, 4, 8, 16), 3


def errors_of(samples, objective, pooled, sharp):
    """Held-out errors (words, counts) of samples, measured as stage 22 does."""
    words = [halves(sample) for sample in samples]
    found = np.zeros((len(words), len(NUMBERS)))
    sizes = [len(word.learn.tokens) for word in words]
    for group in group_words(sizes, samples[0].tokens.shape[1], NUMBERS[-1], objective):
        some = [words[i] for i in group]
        found[group] = held_out_errors(objective, some, NUMBERS, sharp, pooled)
    return found


def learned(samples, objective, pooled, sharp, file=None):
    """{count: encoders (words, h, count)} of samples, and `errors` (words, counts); kept in `file`."""
    if file is None or not file.exists():
        found = {str(k): train_words(samples, objective, k, pooled, sharp) for k in NUMBERS}
        found["errors"] = errors_of(samples, objective, pooled, sharp)
        if file is None:
            return found
        np.savez(file, **found)
    with np.load(file) as arrays:
        return dict(arrays)


def by_sharpness(samples, objective, cache=None):
    """{mean: what `learned` gives} for means up to 4, whose goal is less sharp, and for higher ones."""
    pooled = np.mean([np.cov(s.tokens.T) for s in samples], 0).astype(np.float32)
    files = {s: cache and Path(cache) / f"budget-{objective.name}-{s}.npz" for s in (4, 8)}
    found = {s: learned(samples, objective, pooled, s, files[s]) for s in files}
    return {mean: found[4 if mean <= 4 else 8] for mean in sorted({*FIXED, *BUDGETS})}


def same_index(errors, frequency, most):
    """Counts (words,) at the lowest price where an index has at most `most` numbers."""
    for price in sorted({step.gain for row in errors for step in steps_of(row, NUMBERS)}):
        counts = numbers_at(errors, price)
        if counts @ frequency <= most:
            return counts
    return np.ones(len(errors), np.int64)


class Way(NamedTuple):
    """A way to give words their counts: the counts (words,), and what was learned for their mean."""

    counts: np.ndarray
    learned: dict

    def encoder(self, i):
        """The encoder (h, count) of the i-th word."""
        return self.learned[str(self.counts[i])][i]


def ways(found, frequency):
    """{row: `Way`}: fixed counts, budgets, indexes as large as with fixed counts, and controls."""
    rows = {f"fixed {k}": Way(np.full(len(frequency), k), found[k]) for k in FIXED}
    for mean in BUDGETS:
        errors = found[mean]["errors"]
        rows[f"budget {mean}"] = Way(numbers_at(errors, price_for(errors, mean)), found[mean])
    for k in (4, 8):
        most = k * frequency.sum()
        rows[f"index of {k}"] = Way(same_index(found[k]["errors"], frequency, most), found[k])
        for seed in range(SHUFFLES):
            shuffled = np.random.default_rng(seed).permutation(rows[f"budget {k}"].counts)
            rows[f"budget {k}, at random {seed}"] = Way(shuffled, found[k])
    return rows


def spread(counts):
    """{count: share of the words that have it}."""
    return {str(count): float((counts == count).mean()) for count in NUMBERS}


def frequencies(smalls, words):
    """In how many documents (words,) each word is."""
    found = dict.fromkeys(words, 0)
    for small in smalls.values():
        for term in small.terms:
            found[term.word] = found.get(term.word, 0) + len(term.documents)
    return np.array([found[word] for word in words])


def scored_search(model, run, folders, most, objective, cache):
    """{words, documents, errors, rows, gains} of a search."""
    smalls = {Path(folder).name: small_collection(model, folder, most, cache) for folder in folders}
    words = {term.word for small in smalls.values() for term in small.terms}
    drawn = asked_samples(asked_rows(model, run, words, cache))
    samples = {w: s for w, s in drawn.items() if w in words}
    found, frequency = by_sharpness(list(samples.values()), objective, cache), frequencies(smalls, samples)
    per_query, rows = {name: {} for name in smalls}, {}
    for row, way in {"bm25": None, **ways(found, frequency)}.items():
        mine = None if way is None else {word: way.encoder(i) for i, word in enumerate(samples)}
        for name, small in smalls.items():
            runs = rankings({row: scores_by(small, mine)}, [row], small.documents, small.queries)
            per_query[name] |= measure(runs, small.judged)["per_query"]
        if way is not None:
            size, mean = int(way.counts @ frequency), float(way.counts.mean())
            rows[row] = {"mean": mean, "index": size, "share": spread(way.counts)}
        print(row, file=sys.stderr, flush=True)
    return {
        "words": len(samples),
        "documents": {name: len(small.documents) for name, small in smalls.items()},
        "errors": {str(m): found[m]["errors"].mean(0).tolist() for m in (4, 8)},
        "rows": rows,
        "gains": {row: row_gains(per_query, row) for row in rows},
    }


def scored_senses(words, objective):
    """{row: {measure: mean over words, and the counts' mean}} of the words of a sense file."""
    found = by_sharpness([word[0] for word in words], objective)
    scored = {}
    for row, way in ways(found, np.ones(len(words), int)).items():
        if "random" in row or "index" in row:
            continue
        scores = []
        for i, (_, train, of_train, test, of_test) in enumerate(words):
            w = way.encoder(i)
            scores.append(sense_scores(apply(train, w), of_train, apply(test, w), of_test))
        scored[row] = {m: float(np.nanmean([score[m] for score in scores])) for m in MEASURES}
        scored[row]["mean"] = float(way.counts.mean())
    return scored


def main():
    parser = run_options(__doc__)
    parser.add_argument("--objective", default="joint")
    parser.add_argument("--out", default="results/budget.json")
    args = parser.parse_args()
    one_thread()
    objective = load_objective(args.objective)
    files = [DATA / "sentences.jsonl", *args.senses]
    labelled = {Path(f).name.split(".")[0]: labelled_words(f, args.cache) for f in files}
    senses = {name: scored_senses(words, objective) for name, words in labelled.items()}
    model = MiniCOIL.load(Path(args.run) / "23_model", threads=1)
    search = scored_search(model, args.run, args.beir, args.documents, objective, args.cache)
    counts = {name: len(words) for name, words in labelled.items()}
    save_record(
        args.out,
        {"objective": args.objective, "senses": senses, "labelled_words": counts, "search": search},
    )


if __name__ == "__main__":
    main()
