"""One map for senses and search: what the objectives and the parts of `joint` are worth on either side.

    python tests/bench/joint.py --run outputs/en --beir ir/cranfield --beir ir/medline --beir ir/scifact \\
                                --senses coarsewsd10.jsonl.gz --cache outputs/cache

RUN is a finished run of the objective `joint` or `fit` (token embeddings of the last layer); without one
only senses are measured. Encoders of the
words that queries ask are trained from its stored token embeddings and scored as in bench/search.py; gains
are given on both halves of the queries too: choose on one, believe the other. For senses, the words of each
labelled file (and of the bundled sentences) are trained together on at most `TRAIN` sentences with the
labels hidden, with a projection of their own, and scored on at most `TEST` others.
"""

import argparse
import collections
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from record import save_record
from search import asked_words, read, shards_of
from search_trials import per_query, row_gains

from minicoil import MiniCOIL
from minicoil.learning import joint
from minicoil.learning.fit import train_fit
from minicoil.learning.objectives import WordSample, apply, load_objective, train_group
from minicoil.retrieval.retrieval import build_index, score_all
from minicoil.retrieval.sense_scores import MEASURES, sense_scores
from minicoil.runs.files import load_npy, one_thread, progress
from minicoil.runs.run import open_run
from minicoil.stages.senses import cosine_distances, nearest, sense_targets
from minicoil.stages.targets import word_rows
from minicoil.stages.training import group_words
from minicoil.text.pieces import WordPieces
from minicoil.text.readers import DATA, read_senses
from minicoil.text.transformer import encode, load_transformer
from minicoil.text.vocabulary import make_vocabulary, positions

TRAIN, TEST, LEAST = 500, 150, 10   # sentences a word; LEAST that its second sense must have
LEARN = 250                         # training sentences that an encoder is learned from
KINDS = ("lasts", "contexts", "tokens")


def with_weights(sense, wider):
    """The objective `joint` with other weights of the graph's view and of the spread of cosines."""

    def train(group):
        before = joint.SENSE_WEIGHT, joint.wider
        joint.SENSE_WEIGHT, joint.wider = sense, lambda dim: wider
        try:
            return train_fit(group, joint.joint_goal)
        finally:
            joint.SENSE_WEIGHT, joint.wider = before

    return replace(joint.JOINT, train=train)


def ways():
    """{row: (objective, numbers, whether below a shared projection)}."""
    found = {}
    for dim in (4, 8):
        found |= {f"{name}, {dim}": (load_objective(name), dim, name == "joint") for name in
                  ("graph", "fit", "joint")}
        found[f"fit, {dim}, below the projection"] = load_objective("fit"), dim, True
        found[f"joint, {dim}, each word alone"] = load_objective("joint"), dim, False
        for sense in (0.5, 2.0, 4.0):
            found[f"joint, {dim}, senses × {sense:g}"] = with_weights(sense, joint.wider(dim)), dim, True
    for dim, wider in ((4, 2.0), (8, 1.0)):
        found[f"joint, {dim}, spread × {wider:g}"] = with_weights(joint.SENSE_WEIGHT, wider), dim, True
    return found


def train_words(samples, objective, dim, pooled, projection):
    """Encoders (words, h, dim) of samples, in their order."""
    size = samples[0].tokens.shape[1]
    w = np.zeros((len(samples), size, dim), np.float32)
    for group in group_words([len(s.tokens) for s in samples], size, dim, objective):
        chosen = [samples[i] for i in group]
        w[group] = train_group(objective, chosen, dim, pooled, projection=projection)
    return w


def drawn_rows(file):
    """Rows of a sense file: at most `TRAIN` and `TEST` of each word with two senses of `LEAST` sentences."""
    rows = [row for row in read_senses(file) if row["word"] and row["sense"]]
    by, rng, kept = collections.defaultdict(list), np.random.default_rng(0), []
    for row in rows:
        by[row["word"], "train" if row["split"] == "train" else "test"].append(row)
    for word in sorted({row["word"] for row in rows}):
        train, test = by[word, "train"], by[word, "test"]
        counts = collections.Counter(row["sense"] for row in train + test)
        several = len({row["sense"] for row in train}) > 1 and sum(n >= LEAST for n in counts.values()) > 1
        if test and several:
            for some, cap in ((train, TRAIN), (test, TEST)):
                kept += [some[i] for i in sorted(rng.permutation(len(some))[:cap].tolist())]
    return kept


def labelled(file, cache):
    """Rows of a sense file and {kind: (rows, h)} of them, kept in `cache`; words not found are left out."""
    rows, path = drawn_rows(file), Path(cache) / f"senses-{Path(file).name.split('.')[0]}.npz"
    if not path.exists():
        np.savez(path, **encoded(rows))
    with np.load(path) as arrays:
        found = {kind: arrays[kind] for kind in (*KINDS, "there")}
    return [row for row, there in zip(rows, found["there"]) if there], {k: found[k] for k in KINDS}


def encoded(rows):
    """{kind: (found rows, h) float16} and `there` (rows,): whether a row's word was found in it."""
    model, vocabulary = load_transformer("all-MiniLM-L6-v2"), make_vocabulary({r["word"]: [] for r in rows})
    pieces, texts = WordPieces(model.tokenizer), list(dict.fromkeys(row["sentence"] for row in rows))
    number, wanted, found = {t: i for i, t in enumerate(texts)}, collections.defaultdict(list), {}
    for k, row in enumerate(rows):
        wanted[number[row["sentence"]]].append(k)
    ids = model.tokenize(texts)
    batches = encode(model, ids, last=True, precision="auto")
    for batch, _, tokens, lasts in progress(batches, "labelled sentences"):
        for i, token, last in zip(batch, tokens, lasts):
            places = positions(ids[i], pieces, vocabulary)
            for k in wanted[i]:
                at = places.get(vocabulary.ids[rows[k]["word"]])
                if at:
                    found[k] = word_rows(token, last, [at])
    kinds = {kind: np.concatenate([getattr(found[k], kind) for k in sorted(found)]) for kind in KINDS}
    return {**kinds, "there": np.array([k in found for k in range(len(rows))])}


def labelled_words(file, cache):
    """(sample, training rows and senses, test rows and senses) of each word of a sense file."""
    rows, kinds = labelled(file, cache)
    kinds = {kind: values.astype(np.float32) for kind, values in kinds.items()}
    words, train = np.array([r["word"] for r in rows]), np.array([r["split"] == "train" for r in rows])
    senses, found = np.array([r["sense"] for r in rows]), []
    for word in dict.fromkeys(words.tolist()):
        a, b = np.flatnonzero((words == word) & train), np.flatnonzero((words == word) & ~train)
        drawn = np.sort(np.random.default_rng(1).permutation(a)[:LEARN])
        targets = sense_targets(kinds["contexts"][drawn], kinds["tokens"][drawn])
        sample = WordSample(word, kinds["lasts"][drawn], neighbours=nearest(cosine_distances(targets)))
        found.append((sample, kinds["lasts"][a], senses[a], kinds["lasts"][b], senses[b]))
    return found


def scored_senses(words, rows):
    """{row: {measure: mean over words}} of the words of a sense file."""
    samples = [word[0] for word in words]
    pooled = np.mean([np.cov(s.tokens.T) for s in samples], 0).astype(np.float32)
    projection, found = joint.shared_projection([samples]), {}
    for row, (objective, dim, below) in progress(rows.items(), "senses"):
        encoders = train_words(samples, objective, dim, pooled, projection if below else None)
        scores = [
            sense_scores(apply(train, w), of_train, apply(test, w), of_test)
            for w, (_, train, of_train, test, of_test) in zip(encoders, words)
        ]
        found[row] = {m: float(np.nanmean([score[m] for score in scores])) for m in MEASURES}
    return found


def scored_search(run, model, collections_, rows):
    """{words, samples, rows: {row: gains over BM25}, cpu_seconds_a_word: {row: seconds}}."""
    needed = asked_words(model, list(collections_.values()))
    numbers, samples = [], []
    for at, some in shards_of(run, needed):
        numbers += at
        samples += some
    pooled = load_npy(run.stage("tokens").path / "pooled.npy")
    projection, encoders, seconds = joint.shared_projection([samples]), {}, {}
    for row, (objective, dim, below) in progress(rows.items(), "train"):
        begin = time.process_time()
        w = np.zeros((len(model.words) + 1, samples[0].tokens.shape[1], dim), np.float32)
        w[numbers] = train_words(samples, objective, dim, pooled, projection if below else None)
        encoders[row], seconds[row] = w, (time.process_time() - begin) / len(samples)
    score = partial(score_all, rules=("bm25", *rows), more=encoders)
    found = {
        name: per_query(score(model, build_index(c[3], model.vocabulary), c[4]), c)
        for name, c in collections_.items()
    }
    gains = {row: row_gains(found, row) for row in rows}
    facts = {"words": len(samples), "samples": run.params.samples}
    return {**facts, "rows": gains, "cpu_seconds_a_word": seconds}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", help="a finished run; without one only senses are measured")
    parser.add_argument("--beir", action="append", default=[])
    parser.add_argument("--senses", action="append", default=[])
    parser.add_argument("--cache", required=True)
    parser.add_argument("--out", default="results/joint.json")
    args = parser.parse_args()
    one_thread()
    rows, found = ways(), {"learned_from": LEARN}
    files = [DATA / "sentences.jsonl", *args.senses]
    if args.senses or not args.run:
        words = {Path(f).name.split(".")[0]: labelled_words(f, args.cache) for f in files}
        found["senses"] = {name: scored_senses(some, rows) for name, some in words.items()}
        found["words"] = {name: len(some) for name, some in words.items()}
    if args.run:
        run = open_run(args.run)
        model = MiniCOIL.load(run.stage("model").path, threads=1)
        collections_ = {Path(f).name: read(model, f, args.cache) for f in args.beir}
        found["search"] = scored_search(run, model, collections_, rows)
    save_record(args.out, found)


if __name__ == "__main__":
    main()
