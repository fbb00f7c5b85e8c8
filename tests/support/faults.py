"""What tests of faults share: copies of a run, what it has made, and files that are not whole."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
from chains import digests

from minicoil.runs.run import STAGES, stages_from

RESULT = {stage: folder for stage, (folder, _) in STAGES.items()}
AFTER_MODEL = stages_from("atlas")


def whole_copy(source, target):
    """A copy of a run with every stage as it stands, without the embedded engine's large files.

    Only stage `store` reads those.
    """
    stored = (source / "13_store" / "manifest.json").exists()
    left = [".*.lock", "log.txt"] + (["qdrant"] if stored else [])
    return shutil.copytree(source, target, ignore=shutil.ignore_patterns(*left))


def files_of(folder):
    """The files of a stage's folder that a later stage may read: no manifest, nothing of the engine's."""
    files = [f for f in folder.rglob("*") if f.is_file() and "qdrant" not in f.parts]
    return sorted(f for f in files if f.name != "manifest.json" and not f.name.startswith("uploaded-"))


def made(folder, last):
    """{file: digest} of what a run has made until the stage `last`.

    Until training: the draw and the encoders. Later: the model and that stage's files. Left out are the times
    in
    the report of stage export, and after stage model its card, which says what is known by then.
    """
    if last == "training":
        trained = digests(folder / "22_training")
        drawn = digests(folder / "13_store")["drawn.parquet"]
        return {"drawn": drawn, **{name: trained[name] for name in ("encoders.safetensors", "quality.json")}}
    files = digests(folder / "23_model") | (digests(folder / RESULT[last]) if last in AFTER_MODEL else {})
    left = {"report.json", "manifest.json"} if last == "export" else set()
    left |= set() if last == "model" else {"README.md"}
    return {name: digest for name, digest in files.items() if name not in left}


OPENERS = {".npy": np.load, ".parquet": pq.read_table, ".json": lambda path: json.loads(path.read_text())}


def half_files(folder):
    """Files under a final name that do not open."""
    bad = []
    for path in folder.rglob("*"):
        if path.name.startswith(".") or "qdrant" in path.parts or path.suffix not in OPENERS:
            continue
        try:
            OPENERS[path.suffix](path)
        except Exception as e:
            bad.append(f"{path.name}: {type(e).__name__}")
    return bad


def one_line(errors):
    """The lines on stderr that are not a progress bar's or a library's warning."""
    return [
        line
        for line in errors.replace("\r", "\n").splitlines()
        if line.startswith("minicoil:") or "Traceback" in line or "panicked" in line
    ]
