"""One map for senses and search: what the objectives and the parts of `joint` are worth on either side.

    python tests/bench/joint.py --run outputs/en --beir ir/cranfield --beir ir/medline --beir ir/scifact \\
                                --senses coarsewsd10.jsonl.gz --cache outputs/cache

RUN is a finished run (`make model-en`); without one only senses are measured. The sentences that it has drawn
for the words that queries ask are encoded here, in the last layer, and encoders are trained from them. Gains
are given on both halves of the queries too: choose on one, believe the other. For senses, the words of each
labelled file (and of the bundled sentences) are trained together on at most `TRAIN` sentences with the labels
hidden, and scored on at most `TEST` others.
"""

import argparse
import collections
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from record import save_record
from search_trials import row_gains

from minicoil import MiniCOIL
from minicoil.learning import joint
from minicoil.learning.algebra import apply
from minicoil.learning.objectives import WordSample, load_objective, train_group
from minicoil.retrieval.judged import read_judged
from minicoil.retrieval.retrieval import (
    add_scores,
    askers_of,
    build_index,
    measure,
    postings_weights,
    term_vectors,
    terms_of,
)
from minicoil.retrieval.sense_scores import MEASURES, sense_scores
from minicoil.retrieval.systems import rankings
from minicoil.runs.files import load_json, one_thread, progress
from minicoil.serving.batches import window_rows
from minicoil.serving.blocks import plain_texts
from minicoil.serving.windows import FormSum, pack_forms
from minicoil.stages.clusters import cosine_distances, nearest, sense_targets
from minicoil.stages.draw import read_draw
from minicoil.stages.targets import word_rows
from minicoil.stages.training import group_words
from minicoil.text.pieces import WordPieces
from minicoil.text.readers import DATA, read_senses
from minicoil.text.transformer import encode, load_transformer
from minicoil.text.vocabulary import make_vocabulary, positions

TRAIN, TEST, LEAST = 500, 150, 10   # sentences a word; LEAST that its second sense must have
LEARN = 250                         # training sentences that an encoder is learned from
KINDS = ("lasts", "contexts", "tokens")
INPUT = "all-MiniLM-L6-v2"
TAUGHT = ("joint, 8", "fit, 8", "graph, 8", "joint, 4")   # rows that a teacher is tried with


def with_weight(times):
    """The objective `joint` with another weight of the graph's view."""

    def train(group):
        before = joint.SENSE_WEIGHT
        joint.SENSE_WEIGHT = times * before
        try:
            return joint.train_joint(group)
        finally:
            joint.SENSE_WEIGHT = before

    return replace(joint.JOINT, train=train)


def ways():
    """{row: (objective, numbers)}."""
    found = {}
    for dim in (8, 4):
        for name in ("joint", "fit", "graph"):
            found[f"{name}, {dim}"] = load_objective(name), dim
    for times in (0, 4):
        found[f"joint, 8, graph × {times:g}"] = with_weight(times), 8
    return found


def train_words(samples, objective, dim, pooled, sharp=0.0):
    """Encoders (words, h, dim) of samples, in their order."""
    size = samples[0].tokens.shape[1]
    w = np.zeros((len(samples), size, dim), np.float32)
    for group in group_words([len(s.tokens) for s in samples], size, dim, objective):
        chosen = [samples[i] for i in group]
        w[group] = train_group(objective, chosen, dim, pooled, sharp=sharp)
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


def labelled(file, cache, name=INPUT, reading=encode):
    """Rows of a sense file and {kind: (rows, h)} of them, kept in `cache`; words not found are left out.

    `reading` runs the transformer, as `encode` does.
    """
    rows, of = drawn_rows(file), "" if name == INPUT else f"-{Path(name).name}"
    path = Path(cache) / f"senses-{Path(file).name.split('.')[0]}{of}.npz"
    if not path.exists():
        np.savez(path, **encoded(rows, name, reading))
    with np.load(path) as arrays:
        found = {kind: arrays[kind] for kind in (*KINDS, "there")}
    return [row for row, there in zip(rows, found["there"]) if there], {k: found[k] for k in KINDS}


def encoded(rows, name, reading=encode):
    """{kind: (found rows, h) float16} and `there` (rows,): whether a row's word was found in it."""
    model, vocabulary = load_transformer(name), make_vocabulary({r["word"]: [] for r in rows})
    pieces, texts = WordPieces(model.tokenizer), list(dict.fromkeys(row["sentence"] for row in rows))
    number, wanted, found = {t: i for i, t in enumerate(texts)}, collections.defaultdict(list), {}
    for k, row in enumerate(rows):
        wanted[number[row["sentence"]]].append(k)
    ids = model.tokenize(texts)
    batches = reading(model, ids, last=True, precision="auto")
    for batch, _, tokens, lasts in progress(batches, "labelled sentences"):
        for i, token, last in zip(batch, tokens, lasts):
            places = positions(ids[i], pieces, vocabulary)
            for k in wanted[i]:
                at = places.get(vocabulary.ids[rows[k]["word"]])
                if at:
                    found[k] = word_rows(token, last, [at])
    kinds = {kind: np.concatenate([getattr(found[k], kind) for k in sorted(found)]) for kind in KINDS}
    return {**kinds, "there": np.array([k in found for k in range(len(rows))])}


def labelled_words(file, cache, teacher="", learn=LEARN, seed=1, reading=encode):
    """(sample, training rows and senses, test rows and senses) of each word of a sense file.

    A sample has at most `learn` of the training sentences. With a teacher, a model's name, the samples have
    its token embeddings, and neighbours in its space.
    """
    rows, kinds = labelled(file, cache, reading=reading)
    kinds = {kind: values.astype(np.float32) for kind, values in kinds.items()}
    taught = kinds
    if teacher:
        seen, of_teacher = labelled(file, cache, teacher)
        if seen != rows:
            raise SystemExit(f"{teacher} does not find the same words in {file}")
        taught = {kind: values.astype(np.float32) for kind, values in of_teacher.items()}
    words, train = np.array([r["word"] for r in rows]), np.array([r["split"] == "train" for r in rows])
    senses, found = np.array([r["sense"] for r in rows]), []
    for word in dict.fromkeys(words.tolist()):
        a, b = np.flatnonzero((words == word) & train), np.flatnonzero((words == word) & ~train)
        drawn = np.sort(np.random.default_rng(seed).permutation(a)[:learn])
        targets = sense_targets(taught["contexts"][drawn], taught["tokens"][drawn])
        sample = WordSample(word, kinds["lasts"][drawn], neighbours=nearest(cosine_distances(targets)))
        if teacher:
            sample = replace(sample, teacher=taught["lasts"][drawn])
        found.append((sample, kinds["lasts"][a], senses[a], kinds["lasts"][b], senses[b]))
    return found


def scored_senses(words, rows):
    """{row: {measure: mean over words}} of the words of a sense file."""
    samples = [word[0] for word in words]
    pooled = np.mean([np.cov(s.tokens.T) for s in samples], 0).astype(np.float32)
    found = {}
    for row, (objective, dim) in progress(rows.items(), "senses"):
        encoders = train_words(samples, objective, dim, pooled)
        scores = [
            sense_scores(apply(train, w), of_train, apply(test, w), of_test)
            for w, (_, train, of_train, test, of_test) in zip(encoders, words)
        ]
        found[row] = {m: float(np.nanmean([score[m] for score in scores])) for m in MEASURES}
    return found


def drawn_of(folder, words):
    """{sentence id: text} and the pairs (n, 2) of word id and sentence id that a run has drawn for words."""
    import pyarrow.parquet as pq

    found = read_draw(folder / "drawn.parquet")
    mine = np.isin(found.word + 1, sorted(words))
    pairs = np.stack([found.word[mine].astype(np.int64) + 1, found.ids[mine]], axis=1)
    texts = {}
    for part in sorted(folder.glob("part-*.parquet")):
        table = pq.read_table(part, columns=["sentence_id", "text"])
        at = np.flatnonzero(np.isin(table["sentence_id"].to_numpy(), pairs[:, 1]))
        texts |= zip(table["sentence_id"].take(at).to_pylist(), table["text"].take(at).to_pylist())
    return texts, pairs


def asked_rows(model, run, words, cache, reading=encode):
    """{kind: (pairs, h) float16} and `pairs` of the sentences that a run has drawn for words; kept.

    `reading` runs the transformer, as `encode` does.
    """
    path = Path(cache) / "asked.npz"
    if not path.exists():
        texts, pairs = drawn_of(Path(run) / "11_sentences", words)
        transformer, order = load_transformer(INPUT), sorted(texts)
        wanted, found = collections.defaultdict(list), {}
        for k, (word, sentence) in enumerate(pairs.tolist()):
            wanted[sentence].append((word, k))
        rows = transformer.tokenize([texts[i] for i in order])
        batches = reading(transformer, rows, last=True, precision="auto")
        for batch, _, tokens, lasts in progress(batches, "drawn sentences"):
            for i, token, last in zip(batch, tokens, lasts):
                places = positions(rows[i], model.read.pieces, model.vocabulary)
                some = wanted[order[i]]
                said = word_rows(token, last, [places.get(word, []) for word, _ in some])
                found |= {k: [getattr(said, kind)[n] for kind in KINDS] for n, (_, k) in enumerate(some)}
        stacked = [np.stack(kind) for kind in zip(*(found[k] for k in range(len(pairs))))]
        np.savez(path, pairs=pairs, **dict(zip(KINDS, stacked)))
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files}


def asked_samples(rows, most=None):
    """{word id: `WordSample`} of what `asked_rows` gives; of a word's first `most` sentences, if given."""
    found = {}
    for word in np.unique(rows["pairs"][:, 0]).tolist():
        at = np.flatnonzero(rows["pairs"][:, 0] == word)[:most]
        contexts, tokens, lasts = (
            rows[k][at].astype(np.float32) for k in ("contexts", "tokens", "lasts")
        )
        near = nearest(cosine_distances(sense_targets(contexts, tokens)))
        found[word] = WordSample(str(word), lasts, neighbours=near)
    return found


def few_documents(documents, judged, most):
    """At most `most` documents: the relevant ones, and others at random."""
    relevant = {name for grades in judged.values() for name, grade in grades.items() if grade > 0}
    others = [i for i, (name, _) in enumerate(documents) if name not in relevant]
    n = max(0, most - len(relevant))
    kept = set(np.random.default_rng(0).permutation(others)[:n].tolist())
    return [row for i, row in enumerate(documents) if i in kept or row[0] in relevant]


def last_layer_forms(model, texts):
    """The `Forms` of texts in the last layer, by the run's arithmetic."""
    texts, transformer = plain_texts(texts, True), load_transformer(INPUT, 1)
    flat = [(i, row) for i, rows in enumerate(window_rows(model, texts)) for row in rows]
    pieces, known, found = model.read.pieces, model.vocabulary.look_up, [{} for _ in texts]
    batches = encode(transformer, [row for _, row in flat], precision="auto")
    for batch, _, tokens in progress(batches, "windows"):
        for k, token in zip(batch, tokens):
            text, row = flat[k]
            ends = pieces.spans(row).tolist()
            for a, b in zip(ends[:-1], ends[1:]):
                form = pieces.glue(row[a:b])
                if known(form) != (0, ()):
                    found[text].setdefault(form, FormSum()).add(token[a:b])
    return pack_forms(found, np.zeros((len(texts), 1), np.float32), transformer.hidden_size)


class Term(NamedTuple):
    """A word in a collection: who asks for it, who has it and with which weight, and its token embeddings."""

    word: int
    queries: np.ndarray
    asked: np.ndarray
    documents: np.ndarray
    weights: np.ndarray
    having: np.ndarray


class Small(NamedTuple):
    """What is needed of a collection to score it by any encoders."""

    documents: list
    queries: list
    judged: dict
    base: np.ndarray   # (queries, documents): BM25 of the words without an encoder; -inf: no shared word
    terms: list        # `Term`s


def small_collection(model, folder, most, cache):
    """A collection as a `Small`; kept in `cache`."""
    documents, queries, judged = read_judged(folder)
    documents, path = few_documents(documents, judged, most), Path(cache) / f"small-{Path(folder).name}.npz"
    if not path.exists():
        forms, asked = (last_layer_forms(model, [text for _, text in some]) for some in (documents, queries))
        index, base, arrays = build_index(forms, model.vocabulary), None, {}
        base = np.full((len(queries), len(documents)), -np.inf, np.float32)
        for term, askers in askers_of(index, terms_of(asked, model.vocabulary)).items():
            weights = postings_weights(model, index, term, float(index.lengths.mean()))
            for asker in askers:
                add_scores(base[asker.query], weights, float(not isinstance(term, int)))
            if isinstance(term, int):
                full = term_vectors(forms, [p.rows for p in index.postings[term]])
                mine = term_vectors(asked, [a.rows for a in askers])
                values = ([a.query for a in askers], mine, weights.documents, weights.values, full)
                kinds = (np.int32, np.float16, np.int32, np.float32, np.float16)
                arrays |= {f"{term}-{i}": np.asarray(v, k) for i, (v, k) in enumerate(zip(values, kinds))}
        np.savez(path, base=base, **arrays)
    with np.load(path) as arrays:
        numbers = sorted({int(name.split("-")[0]) for name in arrays.files if "-" in name})
        terms = [Term(n, *(arrays[f"{n}-{i}"] for i in range(5))) for n in numbers]
        return Small([d for d, _ in documents], [q for q, _ in queries], judged, arrays["base"], terms)


def scores_by(small, encoders):
    """Scores (queries, documents) of a `Small` by {word: encoder}; by BM25 if `encoders` is None."""
    scores = small.base.copy()
    for term in small.terms:
        factors = np.ones((len(term.queries), len(term.documents)), np.float32)
        if encoders is not None and term.word in encoders:
            asked, having = (
                apply(rows.astype(np.float32), encoders[term.word]) for rows in (term.asked, term.having)
            )
            factors = asked @ having.T
        for query, mine in zip(term.queries, factors):
            scores[query, term.documents] += term.weights * mine
    return scores


def scored_search(model, run, folders, most, rows, cache):
    """{words, documents, rows: {row: gains over BM25}, cpu_seconds_a_word: {row: seconds}}."""
    smalls = {Path(folder).name: small_collection(model, folder, most, cache) for folder in folders}
    words = {term.word for small in smalls.values() for term in small.terms}
    samples = {w: s for w, s in asked_samples(asked_rows(model, run, words, cache)).items() if w in words}
    listed = list(samples.values())
    pooled = np.mean([np.cov(s.tokens.T) for s in listed], 0).astype(np.float32)
    per_query, seconds = {name: {} for name in smalls}, {}
    for row, (objective, dim) in {"bm25": (None, 0), **rows}.items():
        encoders, begin = None, time.process_time()
        if objective:
            found = train_words(listed, objective, dim, pooled)
            encoders = dict(zip(samples, found))
            seconds[row] = (time.process_time() - begin) / len(listed)
        for name, small in smalls.items():
            runs = rankings({row: scores_by(small, encoders)}, [row], small.documents, small.queries)
            per_query[name] |= measure(runs, small.judged)["per_query"]
        print(row, file=sys.stderr, flush=True)
    gains = {row: row_gains(per_query, row) for row in rows}
    counts = {name: len(small.documents) for name, small in smalls.items()}
    return {"words": len(listed), "documents": counts, "rows": gains, "cpu_seconds_a_word": seconds}



def run_options(description):
    """A parser with what each bench of a finished run on collections asks for; `--out` is its own."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", required=True, help="a finished run")
    parser.add_argument("--beir", action="append", required=True)
    parser.add_argument("--documents", type=int, default=10**9, help="at most so many of a collection")
    parser.add_argument("--senses", action="append", default=[])
    parser.add_argument("--cache", required=True)
    return parser


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", help="a finished run; without one only senses are measured")
    parser.add_argument("--beir", action="append", default=[])
    parser.add_argument("--documents", type=int, default=10**9, help="at most so many of a collection")
    parser.add_argument("--senses", action="append", default=[])
    parser.add_argument("--teacher", help="a larger model's folder: senses with it as the target, too")
    parser.add_argument("--cache", required=True)
    parser.add_argument("--only", action="append", help="rows to measure; the others in OUT stay")
    parser.add_argument("--out", default="results/joint.json")
    args = parser.parse_args()
    one_thread()
    rows = {row: way for row, way in ways().items() if row in (args.only or ways())}
    found = load_json(args.out)["results"] if Path(args.out).exists() else {}
    if (args.senses or not args.run) and not args.teacher:
        files = [DATA / "sentences.jsonl", *args.senses]
        words = {Path(f).name.split(".")[0]: labelled_words(f, args.cache) for f in files}
        before = found.get("senses", {})
        senses = {name: before.get(name, {}) | scored_senses(some, rows) for name, some in words.items()}
        found["senses"] = senses
        found["labelled_words"] = {name: len(some) for name, some in words.items()}
    if args.teacher:
        few = {row: rows[row] for row in TAUGHT}
        files = [DATA / "sentences.jsonl", *args.senses]
        words = {Path(f).name.split(".")[0]: labelled_words(f, args.cache, args.teacher) for f in files}
        found["taught"] = {name: scored_senses(some, few) for name, some in words.items()}
        found["teacher"] = Path(args.teacher).name
    if args.run:
        model = MiniCOIL.load(Path(args.run) / "23_model", threads=1)
        new = scored_search(model, args.run, args.beir, args.documents, rows, args.cache)
        old = found.get("search")
        for part in ("rows", "cpu_seconds_a_word") if old else ():
            new[part] = old[part] | new[part]
        found["search"] = new
    save_record(args.out, {**found, "learned_from": LEARN})


if __name__ == "__main__":
    main()
