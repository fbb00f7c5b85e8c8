"""From a folder of 1,000 short files to the first answer, the next one, and what a query costs by its kind.

    python tests/bench/first_answer.py [--model english] --out results/first_answer.json

Seconds are of this process tree, on the clock (`wall`) and of the processor (`cpu`): on a machine that others
use, the second tells what is ours. Memory is the most that a command held, in MB.
"""

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import save_record

from minicoil.retrieval.changes import source_of
from minicoil.retrieval.kept import kept_index
from minicoil.retrieval.search import explain_hits, search
from minicoil.serving.serving import MiniCOIL
from minicoil.text.readers import bundled_sentences

MEASURED = """
import resource, sys, time
begin = time.perf_counter()
sys.argv = ["minicoil", *sys.argv[1:]]
from minicoil.commands.pipeline import main
try:
    main()
finally:
    import json, os
    used = resource.getrusage(resource.RUSAGE_SELF)
    json.dump({"cpu": used.ru_utime + used.ru_stime, "memory": used.ru_maxrss >> 10}, sys.stderr)
"""


def write_files(folder, n, seed=0):
    """Files of four of the bundled sentences each."""
    rng, sentences = random.Random(seed), [row["sentence"] for row in bundled_sentences()]
    folder.mkdir()
    for i in range(n):
        (folder / f"n{i:05}.txt").write_text(" ".join(rng.choices(sentences, k=4)), encoding="utf-8")


def command(*arguments):
    """A command in a process of its own: seconds, MB and hits."""
    begin = time.perf_counter()
    given = [sys.executable, "-c", MEASURED, *map(str, arguments)]
    done = subprocess.run(given, capture_output=True, text=True, check=True)
    told = json.loads(done.stderr[done.stderr.rindex("{") :])
    facts = {"wall": time.perf_counter() - begin, **told}
    return {**{name: round(value, 3) for name, value in facts.items()}, "lines": done.stdout.count("\n")}


def imports():
    """Milliseconds of importing: the package, and the command line."""
    found = {}
    for name in ("minicoil", "minicoil.commands.pipeline"):
        program = f"import time; a = time.process_time(); import {name}; print(time.process_time() - a)"
        runs = [float(subprocess.check_output([sys.executable, "-c", program])) for _ in range(5)]
        found[name] = round(1000 * statistics.median(runs), 1)
    return found


def milliseconds(call, repeats=30):
    """Median milliseconds of a call, on the clock and of the processor, after three that do not count."""
    walls, cpus = [], []
    for i in range(repeats + 3):
        wall, cpu = time.perf_counter(), time.process_time()
        call()
        if i >= 3:
            walls.append(1000 * (time.perf_counter() - wall))
            cpus.append(1000 * (time.process_time() - cpu))
    return {"wall": round(statistics.median(walls), 2), "cpu": round(statistics.median(cpus), 2)}


def forgetful(model, call):
    """A call before which the model forgets the query that it read last, so that each call reads its own."""

    def again():
        model.last_query = None
        return call()

    return again


def queries(model_folder, notes):
    """What a query costs once everything is open: by kind, to its ten hits, and with the explanation."""
    model = MiniCOIL.load(model_folder, threads=1)
    home = kept_index(model, source_of(notes)).home
    known = "bat"
    unknown = "zzyzx"
    kinds = {
        "no word with an encoder": f"the {unknown} of the {unknown}s",
        "one word with an encoder": known,
        "eight words": f"the {known} under the mountain of the {unknown} river",
    }
    found = {}
    for kind, query in kinds.items():
        hits = search(home, model, query, 10)
        found[kind] = {
            "hits": milliseconds(forgetful(model, lambda query=query: search(home, model, query, 10))),
            "explanation of a query read": milliseconds(
                lambda query=query, hits=hits: explain_hits(home, model, query, hits)
            ),
        }
    for using in ("dense", "hybrid", "mix"):
        found[using] = {
            "hits": milliseconds(
                forgetful(model, lambda using=using: search(home, model, kinds["eight words"], 10, using))
            )
        }
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="english")
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--out", default="results/first_answer.json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MINICOIL_CACHE"] = f"{folder}/cache"
        notes = Path(folder) / "notes"
        write_files(notes, given.files)
        asked = ("search", "--model", given.model, "--documents", notes, "bat in a cave")
        results = {
            "files": given.files,
            "imports": imports(),
            "first": command(*asked),
            "later": command(*asked),
        }
        (notes / "new.txt").write_text("One more bat in the cave.")
        results["one new file"] = command(*asked)
        results["later, no word with an encoder"] = command(*asked[:-1], "zzyzx")
        cache = Path(folder) / "cache"
        results["index"] = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file())
        results["query"] = queries(given.model, notes)
    results["memory"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10
    save_record(given.out, results)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
