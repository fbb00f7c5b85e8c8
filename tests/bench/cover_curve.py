"""How many sentences does a word need? Encoders from 10 to 50 sentences a word, and from more where there are
labels; writes results/cover_curve.json.

    python tests/bench/cover_curve.py --run outputs/en --beir ir/cranfield --beir ir/medline \\
                                      --beir ir/scifact --senses coarsewsd10.jsonl.gz --cache outputs/cache

RUN is a finished run (`make model-en`) whose words drew 50 sentences each. A run with fewer draws the first
ones of these, so that what it would have to encode is counted and not estimated. The words that queries ask
are trained from each count of sentences (see joint.py, whose cache this takes) and gain in a search. Of `FEW`
of them the cosines of ten sentences that no count has learned from are compared with their goal. Labelled
words are trained from some of their sentences, `DRAWS` times each, and scored on others.
"""

import json
import sys
from pathlib import Path

import numpy as np
from joint import (
    LEARN,
    asked_rows,
    asked_samples,
    labelled_words,
    run_options,
    scores_by,
    small_collection,
    train_words,
)
from record import save_record
from search import ORDINARY
from search_trials import row_gains

from minicoil import MiniCOIL
from minicoil.learning.algebra import apply
from minicoil.learning.objectives import load_objective
from minicoil.learning.spending import goal_of, held_out_error, some_rows
from minicoil.retrieval.retrieval import gain_over, measure
from minicoil.retrieval.sense_scores import MEASURES, sense_scores
from minicoil.retrieval.systems import rankings
from minicoil.runs.files import one_thread
from minicoil.stages.draw import read_draw
from minicoil.text.readers import DATA

COUNTS, MORE = (10, 20, 30, 40, 50), (100, LEARN)   # sentences a word; MORE where there are labels
HELD_BACK, FEW, DRAWS = 10, 200, 2
OBJECTIVE, DIM = "joint", 8


def covers(folder):
    """{count: sentences to encode} of a run's draw, and of draws of fewer sentences a word."""
    word, ids, _ = read_draw(Path(folder) / "drawn.parquet")
    first = np.searchsorted(word, np.arange(word.max() + 1))
    rank = np.arange(len(word)) - first[word]
    return {str(count): len(np.unique(ids[rank < count])) for count in COUNTS}


def pooled_of(samples):
    """How token embeddings of any word vary: the mean over words."""
    return np.mean([np.cov(sample.tokens.T) for sample in samples], 0).astype(np.float32)


def errors(rows, objective):
    """{count: root of the mean squared error of cosines} on sentences that were held back from all counts."""
    whole = [s for s in asked_samples(rows).values() if len(s.tokens) == COUNTS[-1]]
    whole = [whole[i] for i in np.random.default_rng(0).permutation(len(whole))[:FEW].tolist()]
    pooled, last = pooled_of(whole), np.arange(COUNTS[-1] - HELD_BACK, COUNTS[-1])
    checked = [some_rows(sample, last) for sample in whole]
    goals = [goal_of(objective, sample, DIM, pooled) for sample in checked]
    names, found = [sample.word for sample in whole], {}
    for count in COUNTS[:-1]:
        few = asked_samples(rows, count)
        encoders = train_words([few[int(name)] for name in names], objective, DIM, pooled)
        each = [held_out_error(*told) for told in zip(goals, checked, encoders)]
        found[str(count)] = float(np.sqrt(np.mean(each)))
    return {"words": len(whole), "error": found}


def scored_search(smalls, rows, words, objective):
    """{count: gains over BM25, and over the largest count} of encoders from so many sentences a word."""
    whole = {w: s for w, s in asked_samples(rows).items() if w in words}
    pooled, per_query = pooled_of(list(whole.values())), {name: {} for name in smalls}
    for row in ("bm25", *COUNTS):
        encoders = None
        if row != "bm25":
            few = {w: s for w, s in asked_samples(rows, row).items() if w in words}
            encoders = dict(zip(few, train_words(list(few.values()), objective, DIM, pooled)))
        for name, small in smalls.items():
            scores = {str(row): scores_by(small, encoders)}
            runs = rankings(scores, [str(row)], small.documents, small.queries)
            per_query[name] |= measure(runs, small.judged)["per_query"]
        print(row, file=sys.stderr, flush=True)
    ordinary = [found for name, found in per_query.items() if name in ORDINARY] or list(per_query.values())
    most = str(COUNTS[-1])
    gains = {str(count): row_gains(per_query, str(count)) for count in COUNTS}
    for count in map(str, COUNTS[:-1]):
        gains[count]["over_most"] = gain_over(ordinary, count, base=most)
    return {"words": len(whole), "rows": gains}


def scored_senses(file, cache, objective):
    """{count: {measure: mean over draws and words}} of a sense file; `words` too."""
    pooled, found = pooled_of([word[0] for word in labelled_words(file, cache)]), {}
    for count in (*COUNTS, *MORE):
        scores = []
        for seed in range(1, 1 + DRAWS):
            words = labelled_words(file, cache, learn=count, seed=seed)
            encoders = train_words([word[0] for word in words], objective, DIM, pooled)
            scores += [
                sense_scores(apply(train, w), of_train, apply(test, w), of_test)
                for w, (_, train, of_train, test, of_test) in zip(encoders, words)
            ]
        found[str(count)] = {m: float(np.nanmean([score[m] for score in scores])) for m in MEASURES}
        print(Path(file).name, count, found[str(count)]["mauc"], file=sys.stderr, flush=True)
    return {"words": len(words), "rows": found}


def main():
    parser = run_options(__doc__)
    parser.add_argument("--out", default="results/cover_curve.json")
    args = parser.parse_args()
    one_thread()
    objective = load_objective(OBJECTIVE)
    model = MiniCOIL.load(Path(args.run) / "23_model", threads=1)
    smalls = {Path(f).name: small_collection(model, f, args.documents, args.cache) for f in args.beir}
    words = {term.word for small in smalls.values() for term in small.terms}
    rows = asked_rows(model, args.run, words, args.cache)
    files = [DATA / "sentences.jsonl", *args.senses]
    found = {
        "objective": OBJECTIVE,
        "dim": DIM,
        "draws": DRAWS,
        "documents": {name: len(small.documents) for name, small in smalls.items()},
        "sentences_to_encode": covers(Path(args.run) / "11_sentences"),
    }
    found["search"] = scored_search(smalls, rows, words, objective)
    save_record(args.out, found)
    found["held_back"] = errors(rows, objective)
    save_record(args.out, found)
    found["senses"] = {Path(f).name.split(".")[0]: scored_senses(f, args.cache, objective) for f in files}
    save_record(args.out, found)
    print(json.dumps(found["search"]["rows"], indent=1))


if __name__ == "__main__":
    main()
