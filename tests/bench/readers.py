"""Which transformer should read, and which should teach? Senses, search, speed and size of a small and a
large reader, with themselves and with the large one as teacher; writes results/readers.json.

    python tests/bench/mpnet.py --out outputs/mpnet
    python tests/bench/readers.py --run outputs/en --large outputs/mpnet --cache outputs/readers \\
                                  --beir ir/cranfield --beir ir/medline --senses coarsewsd10.jsonl.gz

RUN is a finished run of the small model with itself as its teacher (`make model-en`): it has drawn sentences
for the words that the queries ask, and knows what the small model says of them. The large one reads the first
`--samples` sentences of each word here. Whatever it says is kept in CACHE, a block at a time, so a bench that
was stopped goes on. `--part` names what to measure; the other parts in OUT stay.
"""

import argparse
import functools
import hashlib
import os
import sys
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import joint
import numpy as np
from reader_tries import OWN, POWERS, document_rows, factors_of, held_out_errors, learn_together
from record import made_of, save_record
from search_trials import row_gains

from minicoil import MiniCOIL
from minicoil.learning.algebra import apply
from minicoil.learning.objectives import WordSample, load_objective, train_group
from minicoil.retrieval.judged import Judged, read_judged
from minicoil.retrieval.retrieval import build_index, gain_over, measure, score_all, terms_of
from minicoil.retrieval.sense_scores import MEASURES, sense_scores
from minicoil.retrieval.systems import rankings
from minicoil.runs.files import load_json, one_thread, progress
from minicoil.runs.run import open_run
from minicoil.serving.batches import make_cutter, token_batches, window_rows
from minicoil.serving.blocks import plain_texts
from minicoil.serving.windows import Forms, FormSum, pack_forms
from minicoil.stages.clusters import cosine_distances, nearest, sense_targets
from minicoil.stages.draw import read_draw
from minicoil.stages.sentences import sentence_texts, trained_words
from minicoil.stages.targets import gather_pairs, word_rows
from minicoil.stages.training import group_words
from minicoil.text.pieces import WordPieces
from minicoil.text.transformer import arithmetic, load_transformer, locate_model
from minicoil.text.vocabulary import make_vocabulary, positions

SMALL = "all-MiniLM-L6-v2"
DIMS = (4, 8, 16)
PAIRS = (("small", "small"), ("small", "large"), ("large", "large"))   # who reads, who teaches
WHOLE = {"token_full": "whole, cosine", "token_full_sharp": "whole, cosine²"}
PARTS = ("search", "more", "senses", "price", "sizes", "speed", "tries", "tries_more")
TRIED = (8, 16)                   # numbers of the tries
KINDS = ("lasts", "contexts", "tokens")
BLOCK, SENTENCES = 256, 512       # texts, and drawn sentences, that are kept together
BATCH_TOKENS, TRANCHE = 1024, 10  # tokens in a batch; sentences of a word that are read before others
PRICED_WORDS, PRICED_BLOCKS = 2000, 2   # words whose teaching is priced, and blocks that it is measured on
ROUNDS = 5                        # of each model's turns
VOCABULARY = 20_000               # words of the model whose size is told


def words_of(run):
    """The `Vocabulary` of a run."""
    return make_vocabulary(trained_words(run), run.params.language)


class Drawn(NamedTuple):
    """Sentences that a run has drawn for some words, a row a pair; sentences in the order they are read."""

    pairs: np.ndarray       # (n, 2) word id, sentence id
    rank: np.ndarray        # (n,) the how many-th sentence of its word, from 0
    sentences: np.ndarray   # (m,) sentence ids: those that come early for some word first


def drawn_of(run, words):
    """The `Drawn` of some words of a run."""
    word, ids, _ = read_draw(run.stage("sentences").path / "drawn.parquet")
    first = np.searchsorted(word, np.arange(word[-1] + 1))
    rank = np.arange(len(word)) - first[word]
    mine = np.isin(word + 1, sorted(words))
    pairs, rank = np.stack([word[mine].astype(np.int64) + 1, ids[mine]], axis=1), rank[mine]
    sentences, at = np.unique(pairs[:, 1], return_inverse=True)
    earliest = np.full(len(sentences), 10**6)
    np.minimum.at(earliest, at, rank)
    return Drawn(pairs, rank, sentences[np.argsort(earliest // TRANCHE, kind="stable")])


def early(drawn, samples):
    """How many of the sentences hold all the first `samples` of each word."""
    within = np.unique(drawn.pairs[drawn.rank < samples, 1])
    return int(np.flatnonzero(np.isin(drawn.sentences, within))[-1]) + 1


class Passed(NamedTuple):
    """Token embeddings (n, h) of a row: the mean of several layers, and the last layer."""

    tokens: np.ndarray
    last: np.ndarray


class Reading:
    """A transformer as a reader of texts of any length, in windows."""

    def __init__(self, name, vocabulary):
        self.transformer, self.vocabulary = load_transformer(name), vocabulary
        self.cutter = make_cutter(self.transformer.tokenizer)
        self.read = SimpleNamespace(pieces=WordPieces(self.transformer.tokenizer))

    def passes(self, rows):
        """(number of a row, its `Passed`) of rows of token ids, shortest first."""
        bf16 = arithmetic("auto", self.transformer.device) == "bf16"
        for batch in token_batches([len(row) for row in rows], 64, BATCH_TOKENS):
            found = self.transformer.forward_all([rows[i] for i in batch], bf16)
            for i, tokens, last in zip(batch, found.tokens, found.last):
                yield i, Passed(tokens[: len(rows[i])], last[: len(rows[i])])

    def forms(self, texts):
        """The `Forms` of texts; they have no dense vectors."""
        flat = [(i, row) for i, rows in enumerate(window_rows(self, texts)) for row in rows]
        found, pieces = [{} for _ in texts], self.read.pieces
        for k, passed in self.passes([row for _, row in flat]):
            text, row = flat[k]
            ends = pieces.spans(row).tolist()
            for a, b in zip(ends[:-1], ends[1:]):
                form = pieces.glue(row[a:b])
                if self.vocabulary.look_up(form) != (0, ()):
                    found[text].setdefault(form, FormSum()).add(passed.last[a:b])
        return pack_forms(found, np.zeros((len(texts), 1), np.float32), self.transformer.hidden_size)


def join_forms(parts):
    """The `Forms` of texts that were read in parts."""
    names = {name: None for part in parts for name in part.names}
    number = {name: k for k, name in enumerate(names)}
    starts = np.cumsum([0, *(len(part.dense) for part in parts)])
    text = np.concatenate([part.text + start for part, start in zip(parts, starts)])
    form = np.concatenate([np.array([number[n] for n in part.names], np.int32)[part.form] for part in parts])
    rest = ("count", "pieces", "vectors", "dense")
    columns = (np.concatenate([getattr(part, field) for part in parts]) for field in rest)
    return Forms(list(names), text, form, *columns)


def read_texts(open_reader, texts, kept):
    """The `Forms` of texts, a block at a time; blocks are kept in files that begin with `kept`."""
    parts, fields = [], ("text", "form", "count", "pieces", "vectors", "dense")
    for start in progress(range(0, len(texts), BLOCK), f"read {kept.name}"):
        path = kept.with_name(f"{kept.name}-{start:05d}.npz")
        if not path.exists():
            forms = open_reader().forms(texts[start : start + BLOCK])
            keep_arrays(path, {**{f: getattr(forms, f) for f in fields}, "names": np.array(forms.names)})
        with np.load(path) as arrays:
            parts.append(Forms(arrays["names"].tolist(), *(arrays[field] for field in fields)))
    return join_forms(parts)


def read_block(reading, run, drawn, block):
    """{kind: (pairs, h) float16}, `at`: which pairs of `drawn`, of a block of sentence ids; and its price."""
    texts, begin, wanted = sentence_texts(run, block), time.process_time(), defaultdict(list)
    for k in np.flatnonzero(np.isin(drawn.pairs[:, 1], block)).tolist():
        wanted[int(drawn.pairs[k, 1])].append(k)
    order = sorted(wanted)
    ids, found = reading.transformer.tokenize([texts[i] for i in order]), {}
    for i, passed in reading.passes(ids):
        places, mine = positions(ids[i], reading.read.pieces, reading.vocabulary), wanted[order[i]]
        said = word_rows(passed.tokens, passed.last, [places.get(int(drawn.pairs[k, 0]), []) for k in mine])
        found |= {k: [getattr(said, kind)[n] for kind in KINDS] for n, k in enumerate(mine)}
    at = sorted(found)
    kinds = {kind: np.stack([found[k][n] for k in at]) for n, kind in enumerate(KINDS)}
    return {**kinds, "at": np.array(at), "cost": np.array([time.process_time() - begin, len(order)])}


def read_drawn(given, name, run, drawn, most):
    """{kind: (n, h)} and `at` (n,) of the pairs in the first `most` sentences; milliseconds a sentence."""
    opened, parts = functools.cache(lambda: Reading(given.models[name], words_of(run))), []
    key = digest_of(given.models[name], drawn.sentences.tolist(), drawn.pairs.tolist())
    for start in progress(range(0, most, SENTENCES), f"{name}: drawn sentences"):
        path = given.cache / f"{name}-{key}-{start:06d}.npz"
        if not path.exists():
            keep_arrays(path, read_block(opened(), run, drawn, drawn.sentences[start : start + SENTENCES]))
        with np.load(path) as arrays:
            parts.append({kind: arrays[kind] for kind in arrays.files})
    seconds, sentences = np.sum([part.pop("cost") for part in parts], axis=0)
    return {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}, 1000 * seconds / sentences


def digest_of(*parts):
    """Eight letters that stand for texts and numbers."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:8]


def keep_arrays(path, arrays):
    """Write arrays into a file, whole or not at all."""
    temporary = path.with_suffix(".tmp.npz")
    np.savez(temporary, **arrays)
    os.replace(temporary, path)


def read_pairs(given, run, drawn):
    """{model: {kind: (n, h) float32}} of the pairs (n, 2) that all models have read, and the pairs."""
    kept, found = np.flatnonzero(drawn.rank < given.samples), {}
    for name in given.readers:
        if name == "small":
            kinds = {kind: gather_pairs(run, drawn.pairs[kept], kind) for kind in KINDS}
        else:
            kinds, _ = read_drawn(given, name, run, drawn, early(drawn, given.samples))
            order = np.searchsorted(kinds["at"], kept, sorter=np.argsort(kinds["at"]))
            order = np.argsort(kinds["at"])[order]
            kinds = {kind: kinds[kind][order] for kind in KINDS}
        found[name] = {kind: kinds[kind].astype(np.float32) for kind in KINDS}
    return found, drawn.pairs[kept]


def word_sample(reader, teacher, at):
    """The `WordSample` of rows `at` of what two models say; of one model where both are the same."""
    targets = sense_targets(teacher["contexts"][at], teacher["tokens"][at])
    near = nearest(cosine_distances(targets))
    taught = None if teacher is reader else teacher["lasts"][at]
    return WordSample(str(at[0]), reader["lasts"][at], neighbours=near, teacher=taught)


def group_encoders(samples, objective, dim):
    """Encoders (words, h, dim) of samples, in their order, with the mean covariance of their words."""
    size = samples[0].tokens.shape[1]
    pooled = sum(np.cov(s.tokens.T) / len(samples) for s in samples).astype(np.float32)
    found = np.zeros((len(samples), size, dim), np.float32)
    for group in group_words([len(s.tokens) for s in samples], size, dim, objective):
        found[group] = train_group(objective, [samples[i] for i in group], dim, pooled)
    return found


def pairs_of(given):
    """The (reader, teacher) whose models are given."""
    return [pair for pair in PAIRS if set(pair) <= set(given.readers)]


def read_few(given, folder):
    """A judged collection with at most `--queries` queries, and `--documents` documents: all relevant ones,
    and others at random."""
    found = read_judged(folder)
    chosen = np.random.default_rng(0).permutation(len(found.queries))[: given.queries]
    queries = [found.queries[i] for i in sorted(chosen.tolist())]
    judged = {name: found.judged[name] for name, _ in queries}
    return Judged(joint.few_documents(found.documents, judged, given.documents), queries, judged)


def judged_forms(given, name, vocabulary, folder, kinds=("documents", "queries")):
    """(documents, queries, judgements, and the `Forms` of both kinds, as a model reads them)."""
    found, forms = read_few(given, folder), []
    open_reader = functools.cache(lambda: Reading(given.models[name], vocabulary))
    for kind in kinds:
        texts = plain_texts([text for _, text in getattr(found, kind)], normalize=True)
        key = digest_of(given.models[name], vocabulary.words, texts)
        forms.append(read_texts(open_reader, texts, given.cache / f"{name}-{Path(folder).name}-{kind}-{key}"))
    return (*found, *forms)


def trained_ways(given, run, needed, words):
    """{(reader, row): encoders (words + 1, h, dim)}, {row: processor seconds a word}, and counts."""
    drawn, found, seconds = drawn_of(run, needed), {}, {}
    said, pairs = read_pairs(given, run, drawn)
    numbers = np.unique(pairs[:, 0]).tolist()
    places = [np.flatnonzero(pairs[:, 0] == number) for number in numbers]
    for reader, teacher in pairs_of(given):
        samples = [word_sample(said[reader], said[teacher], at) for at in places]
        for name, dim in ((name, dim) for name in given.objectives for dim in DIMS):
            row, begin = f"{reader}, {teacher}, {dim}, {name}", time.process_time()
            encoders = group_encoders(samples, load_objective(name), dim)
            seconds[row] = (time.process_time() - begin) / len(samples)
            found[reader, row] = np.zeros((words + 1, *encoders.shape[1:]), np.float32)
            found[reader, row][numbers] = encoders
            print(row, f"{1000 * seconds[row]:.1f} ms a word", file=sys.stderr, flush=True)
    counts = {"words": len(numbers), "pairs": len(pairs), "sentences": len(np.unique(pairs[:, 1]))}
    return found, seconds, counts


def scores_by(vocabulary, ways, documents, asked):
    """{row: scores (queries, documents)} of BM25, of ways {row: encoders}, and of whole token embeddings."""
    weights = next(iter(ways.values()))
    model = SimpleNamespace(vocabulary=vocabulary, k=1.2, b=0.75, weights=weights)
    rules = ("bm25", *WHOLE, *ways)
    return score_all(model, build_index(documents, vocabulary), asked, rules, more=ways)


def better_half(gains, rows):
    """The row that is better on one half of the queries and its gain on the other, both ways round."""
    found = []
    for half in (0, 1):
        best = max(rows, key=lambda row: gains[row]["halves"][half][0])
        found.append({"chosen": best, "gain": gains[best]["halves"][1 - half]})
    return found


def scored_collection(given, name, vocabulary, ways, folder):
    """({row: {query: nDCG@10}}, terms that the queries ask, (documents, queries)) of a reader."""
    documents, queries, judged, forms, asked = judged_forms(given, name, vocabulary, folder)
    scores = scores_by(vocabulary, ways, forms, asked)
    renamed = {f"{name}, {WHOLE[row]}" if row in WHOLE else row: s for row, s in scores.items()}
    runs = rankings(renamed, list(renamed), [d for d, _ in documents], [q for q, _ in queries])
    return measure(runs, judged)["per_query"]


def asked_terms(given, vocabulary, folder):
    """The terms that the queries of a collection ask: word ids, and stems of unknown words."""
    asked = judged_forms(given, "small", vocabulary, folder, ("queries",))[-1]
    return [term for query in terms_of(asked, vocabulary) for term in query]


def known_words(terms):
    """The word ids among terms."""
    return {term for term in terms if isinstance(term, int)}


def searched_collection(given, folder):
    """({row: {query: nDCG@10}} of a collection, {row: seconds a word}, and what is recorded of it)."""
    run = open_run(given.run)
    vocabulary, per_query, bm25 = words_of(run), {}, {}
    terms = asked_terms(given, vocabulary, folder)
    ways, seconds, counts = trained_ways(given, run, known_words(terms), len(vocabulary.words))
    for name in given.readers:
        mine = {row: encoders for (reader, row), encoders in ways.items() if reader == name}
        found = scored_collection(given, name, vocabulary, mine, folder)
        per_query = found | per_query    # BM25 of the small one, which reads first
        bm25[name] = float(np.mean(list(found["bm25"].values())))
    read, known = read_few(given, folder), sum(isinstance(term, int) for term in terms)
    counts |= {"documents": len(read.documents), "queries": len(read.queries)}
    return per_query, seconds, {**counts, "known": known / len(terms), "bm25": bm25}


def searched(given):
    """What is recorded of the search; each collection's words are trained for themselves."""
    per_query, facts = {}, {}
    for folder in given.beir:
        name = Path(folder).name
        per_query[name], seconds, facts[name] = searched_collection(given, folder)
    gains = {row: row_gains(per_query, row) for row in next(iter(per_query.values())) if row != "bm25"}
    pairs = sorted({row.rsplit(", ", 1)[0] for row in seconds})
    return {
        "samples": given.samples,
        "precision": arithmetic("auto"),
        "collections": facts,
        "rows": gains,
        "chosen": {p: better_half(gains, [f"{p}, {o}" for o in given.objectives]) for p in pairs},
        "cpu_seconds_a_word": seconds,
    }


def searched_with_more(given):
    """The search once more with the small reader alone, and all sentences that the run has drawn."""
    own = {"readers": ("small",), "samples": open_run(given.run).params.samples}
    return searched(argparse.Namespace(**{**vars(given), **own}))


def rows_of_words(said, pairs):
    """{word id: token embeddings (n, h)} of a reader's pairs."""
    return {n: said["lasts"][pairs[:, 0] == n] for n in np.unique(pairs[:, 0]).tolist()}


def tried_ways(rows, kind):
    """{row: {term: encoder}} of ways to learn from rows {term: (n, h)}, a row for each."""
    found = {}
    for dim, power in ((dim, power) for dim in TRIED for power in POWERS):
        for name, encoders in learn_together(list(rows.values()), dim, power, OWN).items():
            found[f"{dim}, {kind}, cosine^{power}, {name}"] = dict(zip(rows, encoders))
    return found


def joint_ways(said, pairs):
    """{row: {word id: encoder}} of the objective `joint`."""
    numbers = np.unique(pairs[:, 0]).tolist()
    samples = [word_sample(said, said, np.flatnonzero(pairs[:, 0] == n)) for n in numbers]
    trained = {dim: group_encoders(samples, load_objective("joint"), dim) for dim in TRIED}
    return {f"{dim}, joint": dict(zip(numbers, encoders)) for dim, encoders in trained.items()}


def tried_collection(given, name, folder):
    """({row: {query: nDCG@10}}, counts) of a reader's tries on a collection."""
    run = open_run(given.run)
    vocabulary = words_of(run)
    documents, queries, judged, forms, asked = judged_forms(given, name, vocabulary, folder)
    terms, index = {t for q in terms_of(asked, vocabulary) for t in q}, build_index(forms, vocabulary)
    read = argparse.Namespace(**{**vars(given), "readers": (name,)})
    said, pairs = read_pairs(read, run, drawn_of(run, known_words(terms)))
    rows, own = rows_of_words(said[name], pairs), document_rows(index, terms)
    ways = joint_ways(said[name], pairs) | tried_ways(rows, "together")
    ways |= tried_ways({t: x for t, x in own.items() if isinstance(t, int)}, "own documents")
    ways |= tried_ways(own, "own documents, all words")
    whole = [f"whole, cosine^{power}, words with numbers" for power in POWERS]
    model = SimpleNamespace(vocabulary=vocabulary, k=1.2, b=0.75)
    scores = score_all(model, index, asked, ("bm25", *whole, *ways), of_rules=factors_of(ways))
    runs = rankings(scores, list(scores), [d for d, _ in documents], [q for q, _ in queries])
    errors = {f"{dim}, cosine^{p}, {n}": error for dim in TRIED for p in POWERS
              for n, error in held_out_errors(list(rows.values()), dim, p, OWN).items()}
    counts = {"words": len(rows), "pairs": len(pairs), "own": len(own), "held_out_errors": errors}
    return measure(runs, judged)["per_query"], counts


def kind_of(row):
    """What a try's row has in common with the rows that it is chosen from."""
    return row.split(", cosine^")[0]


def tried_reader(given, name):
    """What is recorded of a reader's tries."""
    per_query, facts, kinds = {}, {}, {}
    for folder in given.beir:
        per_query[Path(folder).name], facts[Path(folder).name] = tried_collection(given, name, folder)
    gains = {row: row_gains(per_query, row) for row in next(iter(per_query.values())) if row != "bm25"}
    for row in gains:
        kinds.setdefault(kind_of(row), []).append(row)
    chosen = {kind: better_half(gains, rows) for kind, rows in kinds.items() if len(rows) > 1}
    over = {row: over_joint(per_query, row) for row in gains if row[0].isdigit()}
    return {"collections": facts, "rows": gains, "chosen": chosen, "over_joint": over}


def over_joint(per_query, row):
    """A row's macro gain over `joint` with as many numbers."""
    return gain_over(per_query.values(), row, f"{row.split(',')[0]}, joint")


def tried(given):
    """What is recorded of the tries, of each reader."""
    return {"samples": given.samples, "readers": {name: tried_reader(given, name) for name in given.readers}}


def tried_with_more(given):
    """The tries once more, with all sentences that the run has drawn."""
    more = {"samples": open_run(given.run).params.samples}
    return tried(argparse.Namespace(**{**vars(given), **more}))


def priced(given):
    """What is recorded of a teacher's price: milliseconds a sentence of all models, and how many it reads."""
    run = open_run(given.run)
    needed = known_words(asked_terms(given, words_of(run), given.beir[0]))
    drawn, most = drawn_of(run, needed), PRICED_BLOCKS * SENTENCES
    sentences = early(drawn_of(run, range(1, PRICED_WORDS + 1)), run.params.samples)
    return {
        "words": PRICED_WORDS,
        "samples": run.params.samples,
        "sentences": sentences,
        "measured_sentences": most,
        "cpu_ms_a_sentence": {name: read_drawn(given, name, run, drawn, most)[1] for name in given.readers},
    }


def both_see(given, file, names):
    """(rows, {model: {kind: (rows, h)}}) of a labelled file: the rows whose word all models find."""
    seen, key = {}, ("word", "sentence", "start")
    for name in names:
        rows, kinds = joint.labelled(file, given.cache, given.models[name])
        seen[name] = {tuple(row[k] for k in key): (row, n) for n, row in enumerate(rows)}, kinds
    shared = [k for k in next(iter(seen.values()))[0] if all(k in numbers for numbers, _ in seen.values())]
    rows = [next(iter(seen.values()))[0][k][0] for k in shared]
    kinds = {}
    for name, (numbers, arrays) in seen.items():
        at = [numbers[k][1] for k in shared]
        kinds[name] = {kind: values[at].astype(np.float32) for kind, values in arrays.items()}
    return rows, kinds


def scored_senses(given, file, names):
    """{row: {measure: mean over words}} of a labelled file, and its counts."""
    rows, kinds = both_see(given, file, names)
    word, sense = np.array([r["word"] for r in rows]), np.array([r["sense"] for r in rows])
    train = np.array([r["split"] == "train" for r in rows])
    places = [(word == w) & some for w in np.unique(word) for some in (train, ~train)]
    parts = [tuple(map(np.flatnonzero, two)) for two in zip(places[::2], places[1::2])]
    found = {}
    for reader, teacher in pairs_of(given):
        mine, learned = kinds[reader]["lasts"], [np.sort(a[: given.learn]) for a, _ in parts]
        samples = [word_sample(kinds[reader], kinds[teacher], at) for at in learned]
        known, asked = [[mine[some] for some in side] for side in zip(*parts)]
        for name, dim in ((name, dim) for name in given.objectives for dim in DIMS):
            encoders = group_encoders(samples, load_objective(name), dim)
            scores = [
                sense_scores(apply(x, w), sense[a], apply(y, w), sense[b])
                for w, x, y, (a, b) in zip(encoders, known, asked, parts)
            ]
            row = f"{reader}, {teacher}, {dim}, {name}"
            found[row] = {m: float(np.nanmean([score[m] for score in scores])) for m in MEASURES}
            print(row, found[row], file=sys.stderr, flush=True)
        if reader == teacher:
            scores = [sense_scores(x, sense[a], y, sense[b]) for x, y, (a, b) in zip(known, asked, parts)]
            whole = {m: float(np.nanmean([score[m] for score in scores])) for m in MEASURES}
            found[f"{reader}, whole, cosine"] = whole
    return {"words": len(parts), "sentences": len(rows), "rows": found}


def measured_senses(given):
    """What is recorded of senses: of every labelled file, for the models that have read it."""
    found = {}
    for file in given.senses:
        found[Path(file).name.split(".")[0]] = scored_senses(given, file, given.readers)
    return {"learned_from": given.learn, "scored_on": given.test, "files": found}


def reader_model(given, name):
    """A finished model directory that reads with a model, of two words: for its speed, and its size."""
    both = dict.fromkeys(("input_model", "target_model"), given.models[name])
    learned = dict(words=["bat", "bank"], samples=50, objective="joint", dim=8, pictures=0)
    run = open_run(given.cache / f"run-{name}", **learned, **both)
    replace(run, throw_away=True).need("model")    # all stages before it, too
    return run.stage("model").path


def seconds_by_turns(models, texts):
    """{name: processor seconds for all texts in each round} of models that take turns, on one thread."""
    seconds = {name: [] for name in models}
    for turn in range(ROUNDS):
        for name in list(models)[:: 1 if turn % 2 else -1]:
            begin = time.process_time()
            list(models[name].embed(texts, windows=True))
            seconds[name].append(time.process_time() - begin)
    return seconds


def compared(models, texts):
    """Median milliseconds a text of each model, and how many times the small one's, with extremes."""
    seconds = seconds_by_turns(models, texts)
    times = {name: np.array(took) / np.array(seconds["small"]) for name, took in seconds.items()}
    return {
        "texts": len(texts),
        "words_a_text": round(float(np.mean([len(text.split()) for text in texts])), 1),
        "ms": {name: round(1000 * float(np.median(took)) / len(texts), 2) for name, took in seconds.items()},
        "times": {n: [round(float(f(t)), 2) for f in (np.median, np.min, np.max)] for n, t in times.items()},
    }


def directory_of(folder):
    """Bytes of a finished model directory, its words and the shape of a word's matrix."""
    model = MiniCOIL.load(folder, threads=1)
    size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    return {"bytes": size, "words": len(model.words), "matrix": list(model.weights.shape[1:])}


def numbers_a_document(texts, dim):
    """Numbers that the sparse vector of a text has in the mean, under the vocabulary of `english`."""
    model, total = MiniCOIL.load(threads=1), 0
    for rows in window_rows(model, plain_texts(texts, normalize=True)):
        known, others = set(), set()
        for row in rows:
            read = model.read(row)
            known, others = known | set(read.counts), others | set(read.stems)
        total += dim * len(known) + len(others)
    return total / len(texts)


def measured_speed(given):
    """What is recorded of serving: the time of finished model directories, side by side, and their sizes."""
    folders = {name: reader_model(given, name) for name in given.readers}
    models = {name: MiniCOIL.load(folder, threads=1) for name, folder in folders.items()}
    read = read_few(given, given.beir[0])
    documents, queries = ([text for _, text in some] for some in (read.documents, read.queries))
    some = documents[:: max(1, len(documents) // given.texts)][: given.texts]
    for model in models.values():
        list(model.embed(some[:2]))
    return {
        "rounds": ROUNDS,
        "documents": compared(models, some),
        "queries": compared(models, queries[: given.texts]),
        "directories": {name: directory_of(folder) for name, folder in folders.items()},
    }


def measured_sizes(given):
    """What is recorded of sizes: of the transformers' weights in float32, of encoders, and of the index."""
    folders = {name: Path(locate_model(model)) for name, model in given.models.items()}
    texts = [text for _, text in read_few(given, given.beir[0]).documents]
    weights = {name: (folder / "model.safetensors").stat().st_size for name, folder in folders.items()}
    return {
        "hidden_size": {n: load_json(folder / "config.json")["hidden_size"] for n, folder in folders.items()},
        "transformer_bytes": weights,
        "vocabulary": VOCABULARY,
        "numbers_a_document": {str(dim): round(numbers_a_document(texts, dim), 1) for dim in (1, *DIMS)},
        "documents": Path(given.beir[0]).name,
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--large", help="the larger model; without it only the small one is measured")
    parser.add_argument("--run", required=True, type=Path)
    parser.add_argument("--beir", action="append", default=[])
    parser.add_argument("--senses", action="append", default=[])
    parser.add_argument("--cache", required=True, type=Path)
    parser.add_argument("--objective", action="append", dest="objectives", help="joint, if none is named")
    parser.add_argument("--samples", type=int, default=50, help="sentences a word, for the search")
    parser.add_argument("--queries", type=int, default=10**9, help="at most so many of a collection")
    parser.add_argument("--documents", type=int, default=10**9, help="the same; relevant ones all stay")
    parser.add_argument("--learn", type=int, default=250, help="sentences a labelled word is learned from")
    parser.add_argument("--test", type=int, default=150, help="sentences a labelled word is scored on")
    parser.add_argument("--texts", type=int, default=40, help="texts whose embedding is timed")
    parser.add_argument("--part", action="append", choices=PARTS)
    parser.add_argument("--out", default="results/readers.json")
    given = parser.parse_args()
    one_thread()
    given.cache.mkdir(parents=True, exist_ok=True)
    given.models = {"small": SMALL} | ({"large": given.large} if given.large else {})
    given.readers, given.objectives = tuple(given.models), given.objectives or ["joint"]
    joint.TRAIN, joint.TEST = given.learn, given.test
    found = load_json(given.out)["results"] if Path(given.out).exists() else {}
    work = {"search": searched, "more": searched_with_more, "senses": measured_senses}
    work |= {"price": priced, "sizes": measured_sizes, "speed": measured_speed}
    work |= {"tries": tried, "tries_more": tried_with_more}
    for part in given.part or PARTS:
        found[part] = {**work[part](given), "run": made_of()}
        named = {name: Path(path).name for name, path in given.models.items()}
        save_record(given.out, {**found, "models": found.get("models", {}) | named})


if __name__ == "__main__":
    main()
