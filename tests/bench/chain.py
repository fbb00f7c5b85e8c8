"""Where the chain of the demo spends its time: processor seconds of every stage, by what they are for; writes
results/chain.json.

    python tests/bench/chain.py [--tree before=FOLDER] [--rounds 1] [--words bat,bank] [--until tokens]

The checkouts named by `--tree` and this one take turns, so that a busy moment of the machine hits all of
them; medians over rounds are kept. A kernel says itself what each of its cells took: a start-up file of
IPython's counts, and the notebooks are those that are shipped. Of a stage `start` is the kernel until its
first cell, `import` the cells that the package is exported from, `work` the cell with the stage's function,
and `rest` the checks and pictures. What no kernel took is the chain's: its own process, and the one that
kernels are forked from. Where several processes want the processor, seconds on the clock say little;
processor seconds do."""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import save_record

from minicoil.runs.run import STAGES

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("start", "import", "work", "rest")
COUNTING = """
import json, os, resource, time
from IPython import get_ipython

def spent():
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in both)

def write(source):
    line = json.dumps([os.getpid(), os.getcwd(), source, spent(), time.time()])
    with open(os.environ["CHAIN_COUNTS"], "a", encoding="utf-8") as f:
        f.write(line + "\\n")

write("")
get_ipython().events.register("post_run_cell", lambda result: write(result.info.raw_cell))
"""


def counting_environment(folder, tree):
    """An environment in which kernels write into `folder` what each cell took, of the package in `tree`."""
    startup = folder / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00-count.py").write_text(COUNTING)
    counts = {"IPYTHONDIR": str(folder / "ipython"), "CHAIN_COUNTS": str(folder / "counts.jsonl")}
    return {**os.environ, **counts, "PYTHONPATH": str(tree), "HF_HUB_OFFLINE": "1"}


def part_of(source, function):
    """Which of `PARTS` a cell with this source belongs to."""
    if source.lstrip().startswith(("#| export", "#|export")):
        return "import"
    return "work" if f"{function}(run" in source else "rest"


def stage_rows(lines):
    """{stage: {part: processor seconds}} of what the kernels wrote, one kernel a stage, in order."""
    kernels = {}
    for pid, _, source, seconds, _ in lines:
        kernels.setdefault(pid, []).append((source, seconds))
    rows = {}
    for (stage, (_, target)), cells in zip(STAGES.items(), kernels.values()):
        row, before, function = dict.fromkeys(PARTS, 0.0), 0.0, target.split(":")[1]
        for number, (source, seconds) in enumerate(cells):
            part = "start" if number == 0 else part_of(source, function)
            if part == "work" and row["work"]:
                part = "rest"  # a check calls the function again
            row[part] += seconds - before
            before = seconds
        rows[stage] = row
    return rows


def one_chain(tree, options):
    """The chain in a new folder: {stages, all, chain, wall, load}, processor seconds but for `wall`."""
    with tempfile.TemporaryDirectory(prefix="minicoil-chain-") as name:
        folder = Path(name)
        environment = counting_environment(folder, tree)
        command = [sys.executable, "-m", "minicoil", "run", *options, "--out", str(folder / "run")]
        before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, check=True, env=environment, cwd=folder, stderr=subprocess.DEVNULL)
        wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
        lines = [json.loads(line) for line in (folder / "counts.jsonl").read_text().splitlines()]
    rows = stage_rows(lines)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    kernels = sum(sum(row.values()) for row in rows.values())
    return {"stages": rows, "all": used, "chain": used - kernels, "wall": wall, "load": os.getloadavg()[0]}


def median_of(found):
    """The same record with the medians of several, rounded to a tenth."""
    if isinstance(found[0], dict):
        return {key: median_of([one[key] for one in found]) for key in found[0]}
    return round(statistics.median(found), 1)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tree", action="append", default=[], help="NAME=FOLDER of another checkout")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--words", help="train these words instead of the demo's")
    parser.add_argument("--until", help="the last stage; all of them if it is not given")
    parser.add_argument("--out", default=ROOT / "results" / "chain.json", type=Path)
    given = parser.parse_args()
    trees = dict(named.split("=", 1) for named in given.tree) | {"now": str(ROOT)}
    asked = {"--words": given.words, "--until": given.until}
    options = ["--corpus", "demo", *(part for pair in asked.items() if pair[1] for part in pair)]
    found = {name: [] for name in trees}
    for turn in range(given.rounds):
        for name in list(trees)[:: -1 if turn % 2 else 1]:
            found[name].append(one_chain(trees[name], options))
            print(name, json.dumps(median_of(found[name][-1:])), file=sys.stderr, flush=True)
    save_record(
        given.out,
        {
            "options": " ".join(options),
            "rounds": given.rounds,
            "trees": {name: median_of(some) for name, some in found.items()},
        },
    )


if __name__ == "__main__":
    main()
