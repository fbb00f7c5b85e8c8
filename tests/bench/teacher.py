"""What a larger teacher costs in training: clock, processor seconds and memory of every stage of whole runs.

    python tests/bench/mpnet.py --out outputs/mpnet
    python tests/bench/teacher.py --corpus enwiki.txt.gz --large outputs/mpnet --scratch outputs/teacher

Writes results/teacher.json. The small model reads in all runs; it teaches itself in one, and the large one
teaches it in the other. Each run ends with its model and stands in a new folder of SCRATCH. Kernels count
their cells' processor seconds, as in chain.py, and the run's log has each stage's memory. `encoding` is the
share of a run's processor seconds that the transformers take: the stages `targets` and `tokens`. The record
is saved after each run, and `--only` measures one of them, so that a bench that was stopped goes on."""

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

from chain import ROOT, counting_environment, stage_rows
from record import made_of, save_record

from minicoil.runs.files import load_json
from minicoil.runs.run import STAGES

ENCODING = ("targets", "tokens")  # stages in which transformers read
TEACHERS = ("itself", "large")
DONE = re.compile(r"^\S+ (\w+) pid=\d+ done peak=(\d+)MB$", re.M)


def clock_of(lines):
    """{stage: seconds on the clock} of what the kernels wrote, from a kernel's start to its last cell."""
    times = {}
    for pid, *_, now in lines:
        times.setdefault(pid, []).append(now)
    return {stage: some[-1] - some[0] for stage, some in zip(STAGES, times.values())}


def stages_of(lines, log):
    """{stage: clock and processor seconds, megabytes} of the counted cells and the log of a run."""
    peaks, clock = dict(DONE.findall(log)), clock_of(lines)
    return {
        stage: {
            "clock": round(clock[stage], 1),
            "processor": round(sum(parts.values()), 1),
            "peak_mb": int(peaks[stage]),
        }
        for stage, parts in stage_rows(lines).items()
    }


def encoding_share(stages, processor):
    """The share of a run's processor seconds that the transformers take."""
    return round(sum(stages[name]["processor"] for name in ENCODING) / processor, 3)


def one_run(options, folder):
    """What is recorded of a run with these options in a new folder."""
    folder.mkdir(parents=True)
    environment = counting_environment(folder, ROOT)
    command = [sys.executable, "-m", "minicoil", "run", *options, "--out", str(folder / "run")]
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    load = os.getloadavg()[0]
    subprocess.run(command, check=True, env=environment, cwd=ROOT)
    clock, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    lines = [json.loads(line) for line in (folder / "counts.jsonl").read_text().splitlines()]
    stages = stages_of(lines, (folder / "run" / "log.txt").read_text())
    sentences = load_json(folder / "run" / STAGES["targets"][0] / "manifest.json")["rows"]
    return {
        "stages": stages,
        "sentences": sentences,
        "clock": round(clock, 1),
        "processor": round(processor, 1),
        "encoding": encoding_share(stages, processor),
        "load": [round(load, 1), round(os.getloadavg()[0], 1)],
    }


def options_of(given, teacher):
    """The options of a run that this teacher teaches."""
    asked = ["--corpus", given.corpus, "--top-words", given.words, "--samples", given.samples]
    asked += ["--objective", "joint", "--dim", 8, "--pictures", 0, "--until", "model"]
    return [str(part) for part in asked] + (["--target-model", given.large] if teacher == "large" else [])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--large", required=True, help="the larger model")
    parser.add_argument("--scratch", required=True, type=Path, help="a folder for the runs")
    parser.add_argument("--words", type=int, default=2000)
    parser.add_argument("--samples", type=int, default=50)
    parser.add_argument("--only", choices=TEACHERS)
    parser.add_argument("--out", default=ROOT / "results" / "teacher.json", type=Path)
    given = parser.parse_args()
    for teacher in [given.only] if given.only else TEACHERS:
        row = one_run(options_of(given, teacher), given.scratch / teacher)
        row["run"] = made_of()
        runs = load_json(given.out)["results"]["runs"] if given.out.exists() else {}
        facts = {"words": given.words, "samples": given.samples, "corpus": Path(given.corpus).name}
        save_record(given.out, {**facts, "large": Path(given.large).name, "runs": {**runs, teacher: row}})
        print(teacher, row["clock"], row["processor"], row["encoding"], file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
