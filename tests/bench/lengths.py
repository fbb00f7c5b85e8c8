"""Texts a second at three lengths, beside ONNX Runtime and FastEmbed on the same file; writes
results/lengths.json.

    python tests/bench/lengths.py --model outputs/demo/23_model [--threads 1 2] [--words 20 100 250]

Everything is timed by turns in one process, in another order each round, and the ratios are medians over
rounds: a busy machine slows all alike. ONNX Runtime gets the batches of ids that `embed` runs, sorted and
padded already: once as `embed` runs them, a batch a thread, and once in turn, all threads on each.
The texts are bundled sentences put together, cut at the given number of words."""

import argparse
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from record import save_record
from serving import by_turns, largest_difference, plain_sentences, prepared_batches, ratio

ROOT = Path(__file__).resolve().parents[2]
BATCHES = (1, 4, 16)  # FastEmbed's batches of which the best counts
WORDS_IN_ALL = 2000  # of the texts of one length, but for long ones
OURS = dict(normalize=True, windows=True)  # as a collection reads them


def texts_of(words, sentences):
    """Texts of so many words each, `WORDS_IN_ALL` words together; sixteen at least, four batches of ours."""
    stream = " ".join(sentences).split()
    starts = range(0, max(16, WORDS_IN_ALL // words) * words, words)
    return [" ".join(stream[start : start + words]) for start in starts]


def bare_ways(model, texts):
    """{name: function} of ONNX Runtime alone on the batches of `embed`."""
    from minicoil.serving.batches import lane_session

    bare, pool, lane = prepared_batches(model, texts), ThreadPoolExecutor(model.lanes), lane_session(model)
    return {
        "a batch a thread": lambda: list(pool.map(lambda inputs: lane.run(None, inputs), bare)),
        "in turn": lambda: [model.session.run(None, inputs) for inputs in bare],
    }


def own_ways(model, int8, texts, expansion):
    """{name: function} of what `embed` can be asked for."""
    return {
        "embed": lambda: list(model.embed(texts)),
        "int8": lambda: list(int8.embed(texts)),
        "windows": lambda: list(model.embed(texts, **OURS)),
        "expansion": lambda: list(model.embed(texts, expansion=expansion, **OURS)),
    }


def best_batch(rival, texts):
    """The batch with which FastEmbed was fastest, of one round."""
    trial = by_turns({b: (lambda b=b: list(rival.embed(texts, batch_size=b))) for b in BATCHES}, 1)
    return min(trial, key=lambda b: trial[b][0])


def one_length(model, int8, rival, texts, expansion, rounds):
    """Texts a second of all ways at one length, and the ratios that the issue is about."""
    ways = bare_ways(model, texts) | own_ways(model, int8, texts, expansion)
    for way in ways.values():
        way()  # opens and warms what the first call would have to
    best = best_batch(rival, texts)
    ways["FastEmbed, default"] = lambda: list(rival.embed(texts))
    ways["FastEmbed, best batch"] = lambda: list(rival.embed(texts, batch_size=best))
    seconds = by_turns(ways, rounds)
    lengths = [len(e.ids) for e in model.tokenizer.encode_batch(texts)]
    return {
        "texts": len(texts),
        "tokens": round(float(np.mean(lengths)), 1),
        "texts_per_second": {name: round(len(texts) / float(np.median(s)), 1) for name, s in seconds.items()},
        "best_batch": best,
        "embed_over_runtime": ratio(seconds, "embed", "a batch a thread"),
        "embed_over_runtime_in_turn": ratio(seconds, "embed", "in turn"),
        "default_over_embed": ratio(seconds, "FastEmbed, default", "embed"),
        "best_over_embed": ratio(seconds, "FastEmbed, best batch", "embed"),
        "embed_over_int8": ratio(seconds, "embed", "int8"),
        "windows_over_embed": ratio(seconds, "windows", "embed"),
        "expansion_over_windows": ratio(seconds, "expansion", "windows"),
        "largest_difference": largest_difference(model.embed(texts), rival.embed(texts, batch_size=best)),
    }


def with_threads(folder, threads, lengths, rounds):
    """{words of a text: what `one_length` finds} with so many threads."""
    from fastembed import SparseTextEmbedding

    from minicoil import MiniCOIL
    from minicoil.retrieval.expansion import Expansion

    sentences = plain_sentences(None)
    model = MiniCOIL.load(folder, threads=threads)
    int8 = MiniCOIL.load(folder, threads=threads, precision="int8")
    rival = SparseTextEmbedding(
        "Qdrant/minicoil-v1", specific_model_path=str(folder), threads=threads, local_files_only=True
    )
    expansion = Expansion.fit(model, sentences[-400:])
    return {
        str(words): one_length(model, int8, rival, texts_of(words, sentences), expansion, rounds)
        for words in lengths
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=ROOT / "outputs" / "demo" / "23_model", type=Path)
    parser.add_argument("--threads", type=int, nargs="+", default=(1, 2))
    parser.add_argument("--words", type=int, nargs="+", default=(20, 100, 250))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", default=ROOT / "results" / "lengths.json", type=Path)
    given = parser.parse_args()
    found = {str(n): with_threads(given.model, n, given.words, given.rounds) for n in given.threads}
    source = "bundled sentences, put together"
    load = round(os.getloadavg()[0], 1)
    save_record(given.out, {"rounds": given.rounds, "source": source, "threads": found, "load_at_end": load})
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
