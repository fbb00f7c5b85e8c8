"""A fresh machine: install, first answer, second answer, sizes, for somebody who has the wheel only.

    python tests/bench/fresh_machine.py --out results/fresh.json

It needs a package index. `wall` is on the clock and `cpu` of the processor, in seconds; `memory` is the most
that a command held, in MB.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from fresh import Fresh, build, needed_by, write_notes
from record import save_record

PYTHON = """
from minicoil import MiniCOIL
model = MiniCOIL.load()
vector = next(model.embed("A bat left its cave at dusk."))
print(len(model.words), "words;", len(vector.indices), "numbers")
for row in model.explain("bats in caves", "A bat left its cave at dusk."):
    print(f"{row['word']} {row['contribution']:.2f}")
print(model.save("full", form="full").megabytes, "MB as FastEmbed opens it")
"""


def measured(folder, files):
    """Figures and the transcript of a fresh environment in `folder`."""
    built, fresh = build(folder), Fresh(folder / "machine")
    write_notes(fresh.home / "notes", files)
    fresh.transcript.clear()
    installs = fresh.install(built.wheel)
    asked = ("minicoil", "search", "bats in a cave", "--documents", "notes/", "--limit", "3")
    done = {
        "install": installs[0],
        "install of the weights": installs[1],
        "first search": fresh.run(*asked),
        "second search": fresh.run(*asked),
        "second search, no word with an encoder": fresh.run("minicoil", "search", "zzyzx", *asked[3:]),
        "Python": fresh.run("python", "-c", PYTHON),
    }
    failed = {name: one.stderr[-500:] for name, one in done.items() if one.returncode}
    assert not failed, failed
    return {
        "files": files,
        "megabytes": {
            "wheel": round(built.wheel.stat().st_size / 1e6, 2),
            "sdist": round(built.source.stat().st_size / 1e6, 2),
        },
        "packages": sorted(needed_by(fresh, "minicoil")),
        "seconds": {name: one.cost for name, one in done.items()},
        "transcript": "\n".join(fresh.transcript).replace(str(built.wheel.parent), "dist").splitlines(),
    }


def main():
    """Measure and write the record."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--files", type=int, default=1000)
    ask.add_argument("--out", default="results/fresh.json")
    given = ask.parse_args()
    with tempfile.TemporaryDirectory(prefix="minicoil-fresh-") as folder:
        results = measured(Path(folder), given.files)
    save_record(given.out, results)
    print("\n".join(results["transcript"]))
    print(json.dumps({k: v for k, v in results.items() if k != "transcript"}, indent=1))


if __name__ == "__main__":
    main()
