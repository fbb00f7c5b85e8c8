"""How fast a model serves, beside FastEmbed on the same ONNX file, texts and threads; writes
results/serving.json.

    python tests/bench/serving.py --model outputs/demo/23_model [--corpus enwiki.txt.gz --beir scifact/]

Everything that is compared is timed by turns in one process, and medians are reported: a busy machine slows
all alike. Single queries are timed with a pause before each, because threads that spin after one system's
query would take the next one's time.
Without a corpus the texts are bundled sentences, every fifth of them twelve at once."""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from record import save_record

ROOT = Path(__file__).resolve().parents[2]
BATCHES = (1, 2, 4, 8, 16, 32, 64)


def by_turns(functions, rounds):
    """{name: seconds of each round} of functions called one after the other, in another order each round."""
    seconds, names = {name: [] for name in functions}, list(functions)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            begin = time.perf_counter()
            functions[name]()
            seconds[name].append(time.perf_counter() - begin)
    return seconds


def ratio(seconds, slow, fast):
    """Median over rounds of how many times longer `slow` took than `fast`."""
    return round(float(np.median(np.array(seconds[slow]) / np.array(seconds[fast]))), 3)


def plain_sentences(corpus):
    """Sentences of a text file with a document a line, or of the bundle; shuffled."""
    from minicoil.text.formats import read_documents
    from minicoil.text.readers import bundled_sentences

    if corpus:
        documents = [text for text, _ in zip(read_documents(corpus), range(2000))]
        found = [s for text in documents for s in re.split(r"(?<=[.!?]) +", text) if 15 < len(s) < 400]
    else:
        found = list(dict.fromkeys(row["sentence"] for row in bundled_sentences()))
    random.Random(0).shuffle(found)
    return found


def mixed_texts(corpus, beir, n):
    """`n` texts of mixed length.

    Four fifths sentences, one fifth abstracts (or twelve sentences at once), shuffled.
    """
    from minicoil.retrieval.judged import read_collection

    sentences, few = plain_sentences(corpus), n // 5
    long = (
        [text for _, text in read_collection(beir)[:few]]
        if beir
        else [" ".join(sentences[i * 12 : i * 12 + 12]) for i in range(few)]
    )
    texts = sentences[: n - few] + long
    random.Random(1).shuffle(texts)
    return texts


def prepared_batches(model, texts):
    """The inputs of the sorted batches that `embed` would run, ready for the graph."""
    from minicoil.serving.batches import feed, token_batches

    rows = [e.ids for e in model.tokenizer.encode_batch(texts)]
    return [
        feed(model, [rows[i] for i in batch])
        for batch in token_batches([len(r) for r in rows], 32, model.most_tokens)
    ]


def largest_difference(ours, theirs):
    """Largest difference of values; indexes must be the same."""
    worst = 0.0
    for a, b in zip(ours, theirs, strict=True):
        i, j = np.argsort(a.indices), np.argsort(b.indices)
        assert np.array_equal(a.indices[i], b.indices[j])
        worst = max(worst, float(np.abs(a.values[i] - b.values[j]).max(initial=0)))
    return worst


def documents(model, rival, texts, rounds):
    """Documents a second of both, what the bare forward leaves to save, both embeddings at once, and whether
    the values agree."""
    from minicoil.serving.batches import lane_session

    bare, pool, lane = prepared_batches(model, texts), ThreadPoolExecutor(model.lanes), lane_session(model)

    def run(outputs):
        return list(
            pool.map(lambda inputs: lane.run(outputs, inputs), bare)
        )  # as `embed` does: a batch a thread

    run(None)  # opens and warms what the first call would have to
    trial = by_turns({b: (lambda b=b: list(rival.embed(texts, batch_size=b))) for b in BATCHES}, 1)
    best = min(trial, key=lambda b: trial[b][0])
    seconds = by_turns(
        {
            "minicoil": lambda: list(model.embed(texts)),
            "fastembed_default": lambda: list(rival.embed(texts)),
            "fastembed_best": lambda: list(rival.embed(texts, batch_size=best)),
            "bare_forward": lambda: run(None),
            "bare_forward_in_turn": lambda: [model.session.run(None, inputs) for inputs in bare],
            "tokenizer": lambda: model.tokenizer.encode_batch(texts),
            "both": lambda: model.embed_both(texts),
            "dense_alone": lambda: (model.tokenizer.encode_batch(texts), run(["sentence_embedding"])),
        },
        rounds,
    )

    def pair(name):
        return np.array(seconds["dense_alone"]) + np.array(seconds[name])

    separately = {
        name: round(float(np.median(pair(name) / np.array(seconds["both"]))), 3)
        for name in ("fastembed_default", "fastembed_best")
    }
    lengths = [len(e.ids) for e in model.tokenizer.encode_batch(texts)]
    return {
        "texts": len(texts),
        "tokens": {
            "mean": round(float(np.mean(lengths)), 1),
            "median": float(np.median(lengths)),
            "longest": max(lengths),
        },
        "documents_per_second": {
            name: round(len(texts) / float(np.median(s)), 1) for name, s in seconds.items()
        },
        "fastembed_trial": {str(b): round(len(texts) / s[0], 1) for b, s in trial.items()},
        "fastembed_best_batch": best,
        "times_faster_than_default": ratio(seconds, "fastembed_default", "minicoil"),
        "times_faster_than_best": ratio(seconds, "fastembed_best", "minicoil"),
        "over_bare_forward": ratio(seconds, "minicoil", "bare_forward"),
        "both_over_dense_alone": ratio(seconds, "both", "dense_alone"),
        "dense_and_fastembed_over_both": separately,
        "largest_difference": largest_difference(model.embed(texts), rival.embed(texts, batch_size=best)),
    }


PAUSE = 0.05  # seconds, longer than the threads of a system spin after its query


def one_by_one(functions, queries, pause=PAUSE):
    """{name: [(seconds, processor seconds)]} of queries asked by turns, with a pause before and after each.

    As a user's queries come: nobody's threads spin in the time of another system, and what they spin after
    their own query is counted.
    """
    spent = {name: [] for name in functions}
    for i, query in enumerate(queries):
        for name in list(functions)[:: 1 if i % 2 else -1]:
            time.sleep(pause)
            used, begin = time.process_time(), time.perf_counter()
            functions[name](query)
            seconds = time.perf_counter() - begin
            time.sleep(pause)
            spent[name].append((seconds, time.process_time() - used))
    return {name: np.array(pairs) for name, pairs in spent.items()}


def in_a_row(functions, queries, size=10):
    """{name: [(seconds, processor seconds) a query]} of `size` queries in a row, by turns."""
    spent = {name: [] for name in functions}
    for start in range(0, len(queries) - size + 1, size):
        some = queries[start : start + size]
        for name in list(functions)[:: 1 if start // size % 2 else -1]:
            time.sleep(PAUSE)
            used, begin = time.process_time(), time.perf_counter()
            for query in some:
                functions[name](query)
            seconds = time.perf_counter() - begin
            spent[name].append((seconds / size, (time.process_time() - used) / size))
    return {name: np.array(pairs) for name, pairs in spent.items()}


def told(spent):
    """Median milliseconds of each system, on the clock and of the processor, and FastEmbed's over ours."""
    ratios = np.median(spent["fastembed"] / spent["minicoil"], axis=0)
    medians = {name: (1000 * np.median(pairs, axis=0)).round(2).tolist() for name, pairs in spent.items()}
    return {
        "milliseconds": {name: wall for name, (wall, _) in medians.items()},
        "processor_milliseconds": {name: used for name, (_, used) in medians.items()},
        "fastembed_over_minicoil": round(float(ratios[0]), 3),
        "fastembed_over_minicoil_processor": round(float(ratios[1]), 3),
    }


def query_latency(model, rival, queries):
    """What one query takes in both, in ONNX Runtime fed the same ids, and on one thread.

    Single queries with pauses, and ten in a row. Whether the values agree.
    """
    from minicoil.serving.batches import feed, lane_session, token_ids

    fed = {q: feed(model, token_ids(model.tokenizer, [q])) for q in queries}
    lane = lane_session(type(model).load(model.folder, threads=2))
    functions = {
        "minicoil": lambda q: next(iter(model.query_embed(q))),
        "fastembed": lambda q: next(iter(rival.query_embed(q))),
        "bare_forward": lambda q: model.session.run(None, fed[q]),
        "bare_forward_one_thread": lambda q: lane.run(None, fed[q]),
    }
    for function in functions.values():
        function(queries[0])
    return {
        "queries": len(queries),
        "tokens": float(np.median([f["input_ids"].shape[1] for f in fed.values()])),
        **told(one_by_one(functions, queries)),
        "in_a_row": told(in_a_row(functions, queries)),
        "largest_difference": largest_difference(model.query_embed(queries), rival.query_embed(queries)),
    }


EMBED_LINES = """
import sys
from minicoil import MiniCOIL
model = MiniCOIL.load(sys.argv[1], threads=2)
n = sum(1 for _ in model.embed(line for line in open(sys.argv[2], encoding="utf-8")))
# getrusage would give the parent's
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(n, int(peak.split()[1]) // 1024)
"""


def peak_memory(model_folder, sentences, few, many):
    """Peak resident megabytes of a fresh process that embeds `few` and one that embeds `many` short lines
    (one or two words)."""
    words, rng, peaks = " ".join(sentences).split(), random.Random(2), {}
    with tempfile.TemporaryDirectory() as folder:
        for n in (few, many):
            file = Path(folder) / f"{n}.txt"
            with open(file, "w", encoding="utf-8") as f:
                for _ in range(n):
                    at = rng.randrange(len(words) - 5)
                    print(*words[at : at + rng.randint(1, 2)], file=f)
            done = subprocess.run(
                [sys.executable, "-c", EMBED_LINES, str(model_folder), str(file)],
                capture_output=True,
                text=True,
                check=True,
            )
            lines, peak = map(int, done.stdout.split())
            assert lines == n
            peaks[str(n)] = peak
    return {
        "lines": "one or two words each",
        "megabytes": peaks,
        "many_over_few": round(peaks[str(many)] / peaks[str(few)], 3),
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--corpus")
    parser.add_argument("--beir")
    parser.add_argument("--texts", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--lines", type=int, nargs=2, default=(20_000, 200_000))
    parser.add_argument("--out", default=ROOT / "results" / "serving.json", type=Path)
    given = parser.parse_args()
    from fastembed import SparseTextEmbedding

    from minicoil import MiniCOIL

    sentences = plain_sentences(given.corpus)
    model = MiniCOIL.load(given.model, threads=2)
    rival = SparseTextEmbedding(
        "Qdrant/minicoil-v1", specific_model_path=str(given.model), threads=2, local_files_only=True
    )
    mixed = given.corpus and given.beir
    source = (
        "enwiki sentences and abstracts" if mixed else "bundled sentences, every fifth text twelve of them"
    )
    results = {"threads": 2, "rounds": given.rounds, "source": source}
    # queries first: as a program that only asks, whose model has no session for many batches
    queries = [" ".join(s.split()[:6]) for s in sentences[-200:]]
    results["queries"] = query_latency(model, rival, queries)
    results["documents"] = documents(
        model, rival, mixed_texts(given.corpus, given.beir, given.texts), given.rounds
    )
    results["memory"] = peak_memory(given.model, sentences, *given.lines)
    results["load_at_end"] = round(os.getloadavg()[0], 1)
    save_record(given.out, results)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
