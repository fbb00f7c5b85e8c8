"""What training costs: our objectives, and the original's procedure, side by side on one thread; then 5,000
words at once.

    python tests/bench/training.py --data coarsewsd10.jsonl.gz --out results/training.json

Without `--data` the words are made of random numbers: the costs are the same, only their content is not.
"""

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
from record import save_record

from minicoil.learning.objectives import WordSample, train_group
from minicoil.runs.files import load_json, one_thread, save_json, save_npy
from minicoil.runs.run import open_run
from minicoil.stages.clusters import NEIGHBOURS, cosine_distances, nearest
from minicoil.stages.draw import save_draw
from minicoil.stages.layouts import umap_layout
from minicoil.stages.senses import WORDS_PER_SHARD

HIDDEN, SENTENCES, WORDS, EACH = 384, 1000, 5000, 300


def made_up(n, hidden, seed):
    """Token embeddings and unit targets of n sentences in three senses."""
    rng = np.random.default_rng(seed)
    sense = rng.integers(0, 3, n)
    x = rng.normal(size=(n, hidden)) + 3 * rng.normal(size=(3, hidden))[sense] + 5 * rng.normal(size=hidden)
    targets = rng.normal(size=(n, 2 * hidden)) + 2 * rng.normal(size=(3, 2 * hidden))[sense]
    return x.astype(np.float32), (targets / np.linalg.norm(targets, axis=1, keepdims=True)).astype(np.float32)


def real(data, words, n):
    """The same of real words, by the code of the sense benchmark."""
    from senses import encode

    from minicoil.stages.clusters import sense_targets

    parts = [
        d["train"] for d in encode(data, "all-MiniLM-L6-v2", False).values() if len(d["train"]["sense"]) >= n
    ][:words]
    targets = [sense_targets(p["contexts"][:n], p["mean"][:n]) for p in parts]
    return [
        (p["mean"][:n], (t / np.linalg.norm(t, axis=1, keepdims=True)).astype(np.float32))
        for p, t in zip(parts, targets)
    ]


def as_the_original(x, targets, dim=4, epochs=60, per_epoch=64_000, batch=256, margin=0.2, seed=0):
    """One word, plainly.

    A linear layer and tanh, Adam, triplets whose target similarities differ by the margin. Not slowed, not
    helped.
    """
    import torch

    torch.manual_seed(seed)
    x, similar = torch.from_numpy(x), torch.from_numpy(targets @ targets.T)
    layer = torch.nn.Linear(x.shape[1], dim, bias=False)
    optimiser = torch.optim.Adam(layer.parameters(), lr=2e-3)
    for _ in range(epochs):
        for _ in range(per_epoch // batch):
            a, b, c = torch.randint(len(x), (3, batch))
            gap = similar[a, b] - similar[a, c]
            near, far, gap = torch.where(gap > 0, b, c), torch.where(gap > 0, c, b), gap.abs()
            y = [torch.nn.functional.normalize(torch.tanh(layer(x[i])), dim=1) for i in (a, near, far)]
            loss = ((gap - (y[0] * y[1]).sum(1) + (y[0] * y[2]).sum(1)).clamp(min=0) * (gap > margin)).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return layer.weight.detach().numpy().T


def cpu_seconds(f, times):
    """Median CPU seconds of f()."""
    taken = []
    for _ in range(times):
        begin = time.process_time()
        f()
        taken.append(time.process_time() - begin)
    return statistics.median(taken)


def costs(words):
    """CPU seconds a word on one thread, each objective from stored embeddings; by turns, medians."""
    plain = [WordSample(f"w{i}", x) for i, (x, _) in enumerate(words)]
    compared = [replace(sample, targets=t, snippets=sample.tokens) for sample, (_, t) in zip(plain, words)]

    def graphs():
        near = [nearest(cosine_distances(sample.targets), NEIGHBOURS) for sample in compared]
        return [replace(sample, neighbours=found) for sample, found in zip(compared, near)]

    def laid_out():
        return [replace(compared[0], layout=umap_layout(cosine_distances(compared[0].targets), 4))]

    ways = {
        "graph": lambda: train_group("graph", graphs(), 4),
        "graph, 8 numbers": lambda: train_group("graph", graphs(), 8),
        "fit": lambda: train_group("fit", plain, 4),
        "triplet": lambda: train_group("triplet", compared, 4),
    }
    ways["graph"]()  # warm
    found = {name: {"cpu_seconds_a_word": cpu_seconds(f, 3) / len(words)} for name, f in ways.items()}
    found["umap"] = {"cpu_seconds_a_word": cpu_seconds(lambda: train_group("umap", laid_out(), 4), 1)}
    found["the original's procedure"] = {
        "cpu_seconds_a_word": cpu_seconds(lambda: as_the_original(*words[0]), 1)
    }
    for name, row in found.items():
        row["ratio_to_graph"] = round(row["cpu_seconds_a_word"] / found["graph"]["cpu_seconds_a_word"], 1)
        print(
            f"{name:28}{row['cpu_seconds_a_word']:9.3f} CPU-s a word, {row['ratio_to_graph']:8.1f} × graph",
            file=sys.stderr,
            flush=True,
        )
    return found


def stored_run(folder, words, each):
    """A run folder whose stages up to `tokens` stand, with made-up embeddings: what stage 22 starts from."""
    run = open_run(str(folder), words=["bat"], jobs=os.cpu_count())
    names = [f"w{i}" for i in range(words)]
    facts = {"corpus": {}, "sentences": {}, "targets": {}, "store": {}}
    rng = np.random.default_rng(0)
    for name in facts:
        with run.working(name) as stage:
            if name == "sentences":
                save_json(
                    stage.path / "vocabulary.json",
                    {
                        "language": "english",
                        "words": names,
                        "vocabulary": {n: {"forms": {n: each}, "sentences": each} for n in names},
                        "left_out": {},
                    },
                )
            if name in ("sentences", "store"):
                save_draw(
                    stage.path / "drawn.parquet",
                    [(np.arange(each, dtype=np.int64), np.arange(each) / each)] * words,
                )
            stage.finish()
    shards = [names[a : a + WORDS_PER_SHARD] for a in range(0, words, WORDS_PER_SHARD)]
    x, t = made_up(each, HIDDEN, 0)
    near = nearest(cosine_distances(t), NEIGHBOURS)
    with run.working("senses") as stage:
        for i, shard in enumerate(shards):
            save_npy(stage.path / f"neighbours-{i:05d}.npy", np.tile(near, (len(shard), 1)))
            save_npy(stage.path / f"clusters-{i:05d}.npy", np.zeros(len(shard) * each, np.int16))
            save_npy(stage.path / f"picture-{i:05d}.npy", np.full((len(shard) * each, 2), np.nan, np.float32))
        stage.finish(shards=shards)
    with run.working("tokens") as stage:
        save_npy(stage.path / "pooled.npy", np.cov(x.T).astype(np.float32))
        listed = []
        for i, shard in enumerate(shards):
            rows = np.concatenate([x + rng.normal(size=(1, HIDDEN)).astype(np.float32) for _ in shard])
            save_npy(stage.path / f"part-{i:05d}.npy", rows.astype(np.float16))
            listed.append(
                {
                    "file": f"part-{i:05d}.npy",
                    "first_word": i * WORDS_PER_SHARD + 1,
                    "words": len(shard),
                    "rows": len(rows),
                }
            )
        stage.finish(hidden_size=HIDDEN, shards=listed)
    return run


def all_at_once(words, each):
    """Wall seconds and peak memory (this process and its workers) of stage 22 on a stored run."""
    from minicoil.stages.training import train_words

    with tempfile.TemporaryDirectory() as folder:
        run, peak, stop = stored_run(Path(folder) / "run", words, each), [0], threading.Event()

        def watch():
            me = psutil.Process()
            while not stop.wait(0.2):
                total = 0
                for p in [me, *me.children(recursive=True)]:
                    with contextlib.suppress(psutil.Error):
                        total += p.memory_full_info().pss
                peak[0] = max(peak[0], total)

        watcher = threading.Thread(target=watch)
        watcher.start()
        begin = time.perf_counter()
        train_words(run)
        wall = time.perf_counter() - begin
        stop.set()
        watcher.join()
        assert len(load_json(run.stage("training").path / "quality.json")) == words
    found = {
        "words": words,
        "sentences_each": each,
        "jobs": run.jobs,
        "wall_seconds": round(wall, 1),
        "peak_gigabytes": round(peak[0] / 1e9, 2),
    }
    print(found, file=sys.stderr, flush=True)
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data")
    parser.add_argument("--out", default="results/training.json")
    parser.add_argument("--words", type=int, default=WORDS)
    args = parser.parse_args()
    one_thread()
    words = real(args.data, 4, SENTENCES) if args.data else [made_up(SENTENCES, HIDDEN, i) for i in range(4)]
    save_record(
        args.out,
        {"sentences": SENTENCES, "one_word": costs(words), "all_at_once": all_at_once(args.words, EACH)},
    )


if __name__ == "__main__":
    main()
