"""What a stage's threads burn beside other work; writes results/busy.json.

    python tests/bench/busy.py --run outputs/demo [--busy 0 2] [--threads 1 2] [--objective fit]
    python tests/bench/busy.py --run outputs/demo --stage [--tree before=FOLDER]

The first form trains the words of a finished run under an objective, as stage 33 does for its table, with
one number of threads for torch and then with another, in processes of their own, alone and beside processes
that count. The second does the whole stage again, in a copy of the run, for this checkout and for others.
Kept are seconds of the processor, which say what was burnt, and seconds on the clock."""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import save_record

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "support"))
from settings import busy  # noqa: E402

TRAINS = """
import sys
import torch
from minicoil.learning.objectives import train_group
from minicoil.runs.files import load_npy
from minicoil.runs.run import open_run
from minicoil.stages.samples import word_samples
from minicoil.stages.training import group_words
run, name = open_run(sys.argv[1]), sys.argv[2]
samples, pooled = list(word_samples(run)), load_npy(run.stage("tokens").path / "pooled.npy")
torch.set_num_threads(int(sys.argv[3]))
for group in group_words([len(s.tokens) for s in samples], samples[0].tokens.shape[1], run.params.dim, name):
    train_group(name, [samples[i] for i in group], run.params.dim, pooled, run.params.seed)
"""


def seconds_of(command, environment=None):
    """{processor, clock} seconds of a command and its children."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    clock, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"processor": round(used, 1), "clock": round(clock, 1)}


def trained(run, objective, threads):
    """What training a run's words under an objective takes with a number of threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    free = {name: value for name, value in os.environ.items() if name not in names}
    return seconds_of([sys.executable, "-c", TRAINS, str(run), objective, str(threads)], free)


def stage_again(run, tree):
    """What stage 33 takes, done again by the package in `tree` in a copy of a run."""
    with tempfile.TemporaryDirectory(prefix="minicoil-busy-") as folder:
        copy = Path(folder) / "run"
        shutil.copytree(run, copy)
        command = [sys.executable, "-m", "minicoil", "run", "--out", str(copy), "--from", "benchmark"]
        return seconds_of(command, {**os.environ, "PYTHONPATH": str(tree), "HF_HUB_OFFLINE": "1"})


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", required=True, type=Path)
    parser.add_argument("--busy", nargs="+", type=int, default=[0, 2], help="processes that count beside it")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--objective", default="fit")
    parser.add_argument("--stage", action="store_true", help="the whole stage, not its training alone")
    parser.add_argument("--tree", action="append", default=[], help="NAME=FOLDER of another checkout")
    parser.add_argument("--out", default=ROOT / "results" / "busy.json", type=Path)
    given = parser.parse_args()
    found = {}
    for others in given.busy:
        with busy(others):
            if given.stage:
                trees = dict(named.split("=", 1) for named in given.tree) | {"now": str(ROOT)}
                row = {name: stage_again(given.run, tree) for name, tree in trees.items()}
            else:
                row = {f"{n} threads": trained(given.run, given.objective, n) for n in given.threads}
        found[f"beside {others}"] = row
        print(f"beside {others}", json.dumps(row), flush=True)
    what = "stage 33" if given.stage else f"training under {given.objective}"
    save_record(given.out, {"what": what, "cores": os.cpu_count(), "seconds": found})


if __name__ == "__main__":
    main()
