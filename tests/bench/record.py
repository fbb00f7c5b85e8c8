"""Measured figures and what they were measured on: every file in results/ has this one form.

{"command", "commit", "date", "machine", "results", and where known "load", "python", "versions"}"""

import datetime
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from minicoil.runs.files import save_json

PACKAGES = (
    "numpy",
    "torch",
    "onnxruntime",
    "fastembed",
    "umap-learn",
    "sentence-transformers",
    "scikit-learn",
    "tokenizers",
    "qdrant-edge-py",
)
ENVELOPE = {"command", "commit", "date", "machine", "results"}  # what every record has
CIRCUMSTANCES = ENVELOPE | {"load", "python", "versions"}  # and all that it may have
OURS = ("tests/", "results/", "outputs/")  # paths that mean the same on every machine


def machine():
    """The processor and how many cores of it there are."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def git(*arguments):
    """What git prints, run in this folder."""
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=Path(__file__).parent)
    return done.stdout.strip()


def commit():
    """The commit the tree stands on, marked when the tree has changes."""
    changed = git("status", "--porcelain", "--untracked-files=no")
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def command():
    """The command line, with paths of this machine cut to their last part."""
    arguments = [Path(a).name if "/" in a and not a.startswith(OURS) else a for a in sys.argv]
    return " ".join(["python", *arguments])


def circumstances():
    """Command, commit, date, machine and its load, and versions of a measurement."""
    return {
        "command": command(),
        "commit": commit(),
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "versions": {p: version(p) for p in PACKAGES},
    }


def made_of():
    """Command, commit, date and load, for a part of a record that is measured part by part."""
    return {key: circumstances()[key] for key in ("command", "commit", "date", "load")}


def save_record(path, results):
    """Write results with their circumstances."""
    save_json(path, {**circumstances(), "results": results})
