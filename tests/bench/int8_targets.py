"""Could the drawn sentences be encoded in whole numbers? ONNX Runtime's int8 form of the transformer against
today's arithmetic: speed, and the loss in senses and in a search; writes results/int8_targets.json.

    python tests/bench/int8_targets.py --run outputs/en --beir ir/cranfield --beir ir/medline \\
                                       --beir ir/scifact --senses coarsewsd10.jsonl.gz --cache outputs/cache

RUN is a finished run (`make model-en`). Weights are int8, a scale for each column, and each product's other
side is rounded to 8 bits as it comes, with one scale for the whole batch. The sentences of `TIMED` words are
encoded by torch in float32 and in bfloat16 and by ONNX Runtime in float32 and int8, by turns on one thread.
Processor seconds count, and the vectors of words are compared with those in float32. Then words are trained
from what int8 says of their drawn or labelled sentences, and serve as always. Beside them stand encoders from
today's arithmetic (see joint.py, whose cache this takes). `--words` trains only so many of the words that
queries ask.
"""

import json
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from cover_curve import DIM, OBJECTIVE, pooled_of
from joint import (
    INPUT,
    asked_rows,
    asked_samples,
    drawn_of,
    labelled_words,
    run_options,
    scores_by,
    small_collection,
    train_words,
)
from model_en import in_turns, runtime_session
from record import save_record
from search import ORDINARY
from search_trials import row_gains
from serving import ratio

from minicoil import MiniCOIL
from minicoil.learning.algebra import apply
from minicoil.learning.objectives import load_objective
from minicoil.retrieval.retrieval import gain_over, measure
from minicoil.retrieval.sense_scores import MEASURES, sense_scores
from minicoil.retrieval.systems import rankings
from minicoil.runs.files import one_thread
from minicoil.serving.sparse import unit_rows
from minicoil.stages.clusters import cosine_distances, nearest, sense_targets
from minicoil.stages.model import traced
from minicoil.stages.targets import word_rows
from minicoil.text.readers import DATA
from minicoil.text.transformer import (
    BATCH_TOKENS,
    ForwardPass,
    arithmetic,
    encode,
    equal_length_batches,
    load_transformer,
    model_inputs,
)
from minicoil.text.vocabulary import positions

TIMED = 20


class Beside:
    """A transformer whose token embeddings stand beside those of its last layer, for one graph with both."""

    def __init__(self, transformer):
        self.transformer = transformer

    def __getattr__(self, name):
        return getattr(self.transformer, name)

    def outputs(self, features, weights=None):
        """The `ForwardPass` as tensors, with token embeddings (n, longest, 2 hidden_size)."""
        import torch

        sentence, tokens, last = self.transformer.outputs(features, weights)
        return ForwardPass(sentence, torch.cat([tokens, last], 2), last)


def sessions(folder):
    """{form: ONNX Runtime's session of one thread} in float32 and in int8, whose graphs lie in a folder."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    files = {form: folder / f"{form}.onnx" for form in ("float32", "int8")}
    files["float32"].write_bytes(traced(Beside(load_transformer(INPUT))).SerializeToString())
    quantize_dynamic(
        files["float32"],
        files["int8"],
        per_channel=True,
        weight_type=QuantType.QInt8,
        extra_options={"MatMulConstBOnly": True},
    )
    return {form: runtime_session(str(file)) for form, file in files.items()}


def runtime_forward(session, model, rows):
    """What ONNX Runtime makes of rows of token ids: sentences, token embeddings, those of the last layer."""
    names = {given.name for given in session.get_inputs()}
    fed = {name: tensor.numpy() for name, tensor in model_inputs(model, rows).items() if name in names}
    both, sentences = session.run(None, fed)
    return sentences, both[..., : model.hidden_size], both[..., model.hidden_size :]


def runtime_encode(session, model, rows, last=True, precision=""):
    """As `encode`, by a session of ONNX Runtime, in whose precision it is."""
    for batch in equal_length_batches(rows, BATCH_TOKENS):
        yield batch, *runtime_forward(session, model, [rows[i] for i in batch])


def drawn_words(model, run, words):
    """(rows of token ids, for each row [(word, positions)]) of the sentences drawn for some words."""
    texts, pairs = drawn_of(Path(run) / "11_sentences", words)
    order = sorted(texts)
    rows, wanted = load_transformer(INPUT).tokenize([texts[i] for i in order]), {}
    for word, sentence in pairs.tolist():
        wanted.setdefault(sentence, []).append(word)
    found = []
    for row, sentence in zip(rows, order):
        places = positions(row, model.read.pieces, model.vocabulary)
        found.append([(word, places.get(word, [])) for word in wanted[sentence]])
    return rows, found


def of_words(encoded, places):
    """{word: its `WordRows`, a sentence each in their order, stacked as (n, hidden_size) arrays}."""
    found = {}
    for batch, _, tokens, lasts in encoded:
        for i, token, last in zip(batch, tokens, lasts):
            said = word_rows(token, last, [p for _, p in places[i]])
            for k, (word, _) in enumerate(places[i]):
                found.setdefault(word, {})[i] = [rows[k].astype(np.float32) for rows in said]
    in_order = {word: [some[i] for i in sorted(some)] for word, some in found.items()}
    return {word: [np.stack(kind) for kind in zip(*said)] for word, said in in_order.items()}


def neighbours(rows):
    """Each row's nearest others (n, k), of tokens, last layer and contexts (n, h) of a word."""
    tokens, _, contexts = rows
    return nearest(cosine_distances(sense_targets(contexts, tokens)))


def shared(one, other):
    """Share of the neighbours (n, k) that two lists have in common."""
    return float(np.mean([len(set(a) & set(b)) / len(a) for a, b in zip(one.tolist(), other.tolist())]))


def compared(one, other):
    """Cosines of two arithmetics' rows of words, mean and 1st percentile, and what neighbours they share."""
    lasts = [(unit_rows(one[w][1]) * unit_rows(other[w][1])).sum(1) for w in one]
    cosines, near = np.concatenate(lasts), [shared(neighbours(one[w]), neighbours(other[w])) for w in one]
    return {
        "cosine": float(cosines.mean()),
        "cosine_1_percent": float(np.percentile(cosines, 1)),
        "neighbours_shared": float(np.mean(near)),
    }


def timed(model, run, words, forms, rounds):
    """Tokens a second by each arithmetic, ratios, and agreement with float32, of some words' sentences."""
    rows, places = drawn_words(model, run, words)
    transformer, kept = load_transformer(INPUT), {}
    by = {
        "torch, float32": partial(encode, precision="float32", last=True),
        "torch, bf16": partial(encode, precision="bf16", last=True),
        "ONNX Runtime, float32": partial(runtime_encode, forms["float32"]),
        "ONNX Runtime, int8": partial(runtime_encode, forms["int8"]),
    }

    def run_way(way):
        kept[way] = list(by[way](transformer, rows))

    seconds, tokens = in_turns({way: partial(run_way, way) for way in by}, rounds), sum(map(len, rows))
    kept = {way: of_words(encoded, places) for way, encoded in kept.items()}
    others = [way for way in by if way != "torch, float32"]
    return {
        "words": len(words),
        "sentences": len(rows),
        "tokens": tokens,
        "rounds": rounds,
        "tokens_per_second": {way: round(tokens / float(np.median(took))) for way, took in seconds.items()},
        "times_int8": {way: ratio(seconds, way, "ONNX Runtime, int8") for way in by},
        "to_float32": {way: compared(kept["torch, float32"], kept[way]) for way in others},
    }


def senses_of(file, caches, int8, objective):
    """{arithmetic: {measure: mean over words}} of a sense file; all serve in today's arithmetic."""
    usual = labelled_words(file, caches["today"])
    words = {"today": usual, "int8": labelled_words(file, caches["int8"], reading=int8)}
    pooled, found = pooled_of([word[0] for word in usual]), {}
    for way, some in words.items():
        encoders = train_words([word[0] for word in some], objective, DIM, pooled)
        scores = [
            sense_scores(apply(train, w), of_train, apply(test, w), of_test)
            for w, (_, train, of_train, test, of_test) in zip(encoders, usual)
        ]
        found[way] = {m: float(np.nanmean([score[m] for score in scores])) for m in MEASURES}
    return {"words": len(usual), **found}


def scored_search(smalls, rows, words, objective):
    """Gains over BM25 of encoders from each arithmetic's rows, and of int8 over today's."""
    samples = {way: {w: s for w, s in asked_samples(r).items() if w in words} for way, r in rows.items()}
    pooled = pooled_of(list(samples["today"].values()))
    per_query = {name: {} for name in smalls}
    for row in ("bm25", *rows):
        encoders = None
        if row != "bm25":
            some = samples[row]
            encoders = dict(zip(some, train_words(list(some.values()), objective, DIM, pooled)))
        for name, small in smalls.items():
            runs = rankings({row: scores_by(small, encoders)}, [row], small.documents, small.queries)
            per_query[name] |= measure(runs, small.judged)["per_query"]
        print(row, file=sys.stderr, flush=True)
    ordinary = [found for name, found in per_query.items() if name in ORDINARY] or list(per_query.values())
    return {
        "words": len(samples["int8"]),
        "rows": {row: row_gains(per_query, row) for row in rows},
        "int8_over_today": gain_over(ordinary, "int8", base="today"),
    }


def main():
    parser = run_options(__doc__)
    parser.add_argument("--words", type=int, help="train only so many of the words that queries ask")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--int8-cache", help="where what int8 says is kept; a folder in CACHE if not given")
    parser.add_argument("--out", default="results/int8_targets.json")
    args = parser.parse_args()
    one_thread()
    objective, model = load_objective(OBJECTIVE), MiniCOIL.load(Path(args.run) / "23_model", threads=1)
    caches = {"today": Path(args.cache), "int8": Path(args.int8_cache or Path(args.cache) / "int8")}
    caches["int8"].mkdir(parents=True, exist_ok=True)
    smalls = {Path(f).name: small_collection(model, f, args.documents, args.cache) for f in args.beir}
    asked = sorted({term.word for small in smalls.values() for term in small.terms})
    words = set(np.random.default_rng(0).permutation(asked)[: args.words].tolist())
    some = set(np.random.default_rng(1).permutation(sorted(words))[:TIMED].tolist())
    with tempfile.TemporaryDirectory() as folder:
        forms = sessions(Path(folder))
        int8 = partial(runtime_encode, forms["int8"])
        found = {"arithmetic": arithmetic("auto"), "objective": OBJECTIVE, "dim": DIM}
        found["speed"] = timed(model, args.run, some, forms, args.rounds)
        save_record(args.out, found)
        print(json.dumps(found["speed"], indent=1), file=sys.stderr, flush=True)
        files = [DATA / "sentences.jsonl", *args.senses]
        found["senses"] = {Path(f).name.split(".")[0]: senses_of(f, caches, int8, objective) for f in files}
        save_record(args.out, found)
        print(json.dumps(found["senses"], indent=1), file=sys.stderr, flush=True)
        rows = {
            "today": asked_rows(model, args.run, set(asked), caches["today"]),
            "int8": asked_rows(model, args.run, words, caches["int8"], int8),
        }
        found["search"] = scored_search(smalls, rows, words, objective)
    save_record(args.out, found)
    print(json.dumps(found["search"], indent=1))


if __name__ == "__main__":
    main()
