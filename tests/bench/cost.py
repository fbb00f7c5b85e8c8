"""What runs of several sizes take, a stage at a time: the figures that the page "What will it cost?" is
fitted to.

    python tests/bench/cost.py --corpus enwiki.txt.gz [--check FOLDER_OF_A_FINISHED_RUN] [--tried
    FOLDER_OF_ANOTHER]

Runs the chain by its command on parts of the corpus, one after the other, and writes results/cost.json:
sizes, seconds, peak memory and disk
of every stage, how often words occur, and the same facts of a run that nothing is fitted to. Data is never
bundled."""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from record import save_record
from scale import rows_of_words

from minicoil.pictures.times import stage_peaks
from minicoil.runs.files import load_json
from minicoil.runs.run import STAGES, open_run, stage_function
from minicoil.stages.draw import read_draw
from minicoil.text.readers import documents

RECORD = Path(__file__).resolve().parents[2] / "results" / "cost.json"
SIZES = (
    (700, 300, 100, "benchmark"),
    (1500, 200, 300, "atlas"),
    (1500, 1500, 60, "atlas"),
    (4000, 1000, 150, "benchmark"),
)  # documents, words, samples, last stage
RANKS = 20_000


def facts(folder):
    """Sizes of a finished run, and of every stage the seconds of its notebook, the peak MB of any of its
    processes and the bytes it left."""
    run = open_run(folder)

    def manifest(stage):
        return run.stage(stage).manifest

    counts = np.bincount(read_draw(run.stage("store").path / "drawn.parquet")[0])
    log = (run.dir / "log.txt").read_text(encoding="utf-8")
    found = {
        "documents": manifest("corpus")["documents"],
        "sentences": manifest("sentences")["sentences"],
        "words": manifest("sentences")["words"],
        "samples": run.params.samples,
        "cover": manifest("sentences")["cover"],
        "drawn": int(counts.sum()),
        "squares": int((counts.astype(np.int64) ** 2).sum()),
        "pictures": run.params.pictures,
    }
    stages = {}
    for stage, (name, _) in STAGES.items():
        if run.stage(stage).done:
            notebook = json.loads((run.dir / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
            disk = sum(f.stat().st_size for f in run.stage(stage).path.rglob("*") if f.is_file())
            stages[stage] = {
                "seconds": round(notebook["metadata"]["papermill"]["duration"], 1),
                "disk": disk,
                "peak_mb": stage_peaks(log).get(stage),
            }
    return {**found, "stages": stages}


def first_documents(corpus, n, file):
    """Write every document of which one in total/n is taken, spread over the corpus."""
    texts = [" ".join(t.split()) for t in documents([corpus])]
    with open(file, "w", encoding="utf-8") as out:
        out.writelines(texts[i] + "\n" for i in np.linspace(0, len(texts) - 1, n).astype(int).tolist())
    return file


def shares(corpus, folder):
    """The shares of sentences that hold the most frequent words, by rank.

    [(rank, share)] at ranks spread evenly on a logarithmic scale.
    """
    run = open_run(Path(folder) / "shares", corpus=[str(corpus)], top_words=RANKS, samples=5)
    for stage in ("corpus", "sentences"):
        stage_function(stage)(run)
    rows, total = rows_of_words(run)
    found = np.sort([len(ids) for ids in rows])[::-1] / total
    ranks = np.unique(np.geomspace(1, len(found), 200).astype(int))
    return [(int(r), float(f"{found[r - 1]:.6g}")) for r in ranks]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--check")
    parser.add_argument("--tried", help="a run to show beside, made while the machine had other work")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = []
        for number, (n, words, samples, last) in enumerate(SIZES):
            file, out = (
                first_documents(options.corpus, n, Path(folder) / f"{number}.txt"),
                Path(folder) / f"run{number}",
            )
            command = [
                str(Path(sys.executable).with_name("minicoil")),
                "run",
                "--corpus",
                str(file),
                "--top-words",
                str(words),
                "--samples",
                str(samples),
                "--until",
                last,
                "--out",
                str(out),
            ]
            subprocess.run(command, check=True)
            runs.append(facts(out))
        known = load_json(RECORD)["results"] if RECORD.exists() else {}
        others = {
            name: facts(run) if run else known.get(name)
            for name, run in (("check", options.check), ("tried", options.tried))
        }
        save_record(RECORD, {"shares": shares(options.corpus, folder), "runs": runs, **others})


if __name__ == "__main__":
    main()
