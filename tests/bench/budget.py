"""Numbers spent where they pay: a budget against the same count for every word, at the same size of an index.

    python tests/bench/budget.py --run outputs/en --beir ir/cranfield --beir ir/medline --beir ir/scifact \\
                                 --senses coarsewsd10.jsonl.gz --cache outputs/cache

RUN is a finished run (`make model-en`). The words that queries ask are trained with 1, 2, 4, 8 and 16 numbers
each, from the sentences that the run has drawn (see joint.py, whose cache this takes). Held-out errors then
say which count each word gets: for a mean over words, and for an index that is as large as one with a fixed
count. As a control the same counts are given to the words at random. The size of an index counts the numbers
of these words in all documents.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from joint import (
    asked_rows,
    asked_samples,
    labelled_words,
    scores_by,
    small_collection,
    train_words,
)
from record import save_record
from search_trials import row_gains

from minicoil import MiniCOIL
from minicoil.learning.objectives import apply, load_objective
from minicoil.learning.spending import halves, held_out_errors, numbers_at, price_for, steps_of
from minicoil.retrieval.benchmark import rankings
from minicoil.retrieval.retrieval import measure
from minicoil.retrieval.sense_scores import MEASURES, sense_scores
from minicoil.runs.files import one_thread
from minicoil.runs.run import NUMBERS
from minicoil.stages.training import group_words
from minicoil.text.readers import DATA

BUDGETS, FIXED, SHUFFLES = (2, 3, 4, 6, 8), (2, 4, 8, 16), 3


def errors_of(samples, objective, pooled):
    """Held-out errors (words, counts) of samples, measured as stage 22 does."""
    words = [halves(sample) for sample in samples]
    found = np.zeros((len(words), len(NUMBERS)))
    sizes = [len(word.learn.tokens) for word in words]
    for group in group_words(sizes, samples[0].tokens.shape[1], NUMBERS[-1], objective):
        found[group] = held_out_errors(objective, [words[i] for i in group], NUMBERS, pooled)
    return found


def encoders_of(samples, objective, pooled):
    """{count: encoders (words, h, count)} of samples."""
    return {count: train_words(samples, objective, count, pooled) for count in NUMBERS}


def same_index(errors, frequency, most):
    """Counts (words,) at the lowest price where an index has at most `most` numbers."""
    for price in sorted({step.gain for row in errors for step in steps_of(row, NUMBERS)}):
        counts = numbers_at(errors, price)
        if counts @ frequency <= most:
            return counts
    return np.ones(len(errors), np.int64)


def chosen_counts(errors, frequency):
    """{row: counts (words,)}: fixed ones, budgets, indexes as large as with fixed counts, and controls."""
    found = {f"fixed {count}": np.full(len(errors), count) for count in FIXED}
    for mean in BUDGETS:
        found[f"budget {mean}"] = numbers_at(errors, price_for(errors, mean))
    for count in (4, 8):
        found[f"index of {count}"] = same_index(errors, frequency, count * frequency.sum())
    for mean in (4, 8):
        for seed in range(SHUFFLES):
            shuffled = np.random.default_rng(seed).permutation(found[f"budget {mean}"])
            found[f"budget {mean}, at random {seed}"] = shuffled
    return found


def spread(counts):
    """{count: share of the words that have it}."""
    return {str(count): float((counts == count).mean()) for count in NUMBERS}


def scored_search(model, run, folders, most, objective, cache):
    """{words, documents, rows, gains, cpu_seconds_a_word} of a search."""
    smalls = {Path(folder).name: small_collection(model, folder, most, cache) for folder in folders}
    words = {term.word for small in smalls.values() for term in small.terms}
    drawn = asked_samples(asked_rows(model, run, words, cache))
    samples = {w: s for w, s in drawn.items() if w in words}
    listed = list(samples.values())
    pooled = np.mean([np.cov(s.tokens.T) for s in listed], 0).astype(np.float32)
    begin = time.process_time()
    errors = errors_of(listed, objective, pooled)
    measured = (time.process_time() - begin) / len(listed)
    frequency = dict.fromkeys(samples, 0)
    for small in smalls.values():
        for term in small.terms:
            frequency[term.word] = frequency.get(term.word, 0) + len(term.documents)
    frequency = np.array([frequency[word] for word in samples])
    encoders, per_query, rows = encoders_of(listed, objective, pooled), {name: {} for name in smalls}, {}
    for row, counts in {"bm25": None, **chosen_counts(errors, frequency)}.items():
        numbered = None if counts is None else enumerate(zip(samples, counts))
        mine = None if numbered is None else {w: encoders[k][i] for i, (w, k) in numbered}
        for name, small in smalls.items():
            runs = rankings({row: scores_by(small, mine)}, [row], small.documents, small.queries)
            per_query[name] |= measure(runs, small.judged)["per_query"]
        if counts is not None:
            size = int(counts @ frequency)
            rows[row] = {"mean": float(counts.mean()), "index": size, "share": spread(counts)}
        print(row, file=sys.stderr, flush=True)
    return {
        "words": len(listed),
        "documents": {name: len(small.documents) for name, small in smalls.items()},
        "errors": {str(count): float(e) for count, e in zip(NUMBERS, errors.mean(0))},
        "rows": rows,
        "gains": {row: row_gains(per_query, row) for row in rows},
        "cpu_seconds_a_word": measured,
    }


def scored_senses(words, objective):
    """{row: {measure: mean over words, and the counts' mean}} of the words of a sense file."""
    samples = [word[0] for word in words]
    pooled = np.mean([np.cov(s.tokens.T) for s in samples], 0).astype(np.float32)
    errors, found = errors_of(samples, objective, pooled), {}
    encoders = encoders_of(samples, objective, pooled)
    rows = {f"fixed {count}": np.full(len(words), count) for count in FIXED}
    rows |= {f"budget {mean}": numbers_at(errors, price_for(errors, mean)) for mean in (4, 8)}
    for row, counts in rows.items():
        scores = []
        for i, (_, train, of_train, test, of_test) in enumerate(words):
            w = encoders[counts[i]][i]
            scores.append(sense_scores(apply(train, w), of_train, apply(test, w), of_test))
        found[row] = {m: float(np.nanmean([score[m] for score in scores])) for m in MEASURES}
        found[row]["mean"] = float(counts.mean())
    return found


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", required=True, help="a finished run")
    parser.add_argument("--beir", action="append", required=True)
    parser.add_argument("--documents", type=int, default=10**9, help="at most so many of a collection")
    parser.add_argument("--senses", action="append", default=[])
    parser.add_argument("--objective", default="joint")
    parser.add_argument("--cache", required=True)
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
