"""Measured figures with what they were measured on: date, machine, commit, versions, command."""
import datetime
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from minicoil.runs.files import save_json

PACKAGES = ("numpy", "torch", "onnxruntime", "fastembed", "umap-learn", "sentence-transformers", "scikit-learn", "tokenizers", "qdrant-edge-py")


def machine():
    """The processor and how many cores of it there are."""
    names = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")] if Path("/proc/cpuinfo").exists() else []
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def commit():
    """The commit the tree stands on, marked when the tree has changes."""
    git = lambda *a: subprocess.run(["git", *a], capture_output=True, text=True, cwd=Path(__file__).parent).stdout.strip()
    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")


def circumstances():
    """Date, machine and its load, commit, versions and command of a measurement."""
    command = " ".join(["python", *(Path(a).name if "/" in a and not a.startswith(("tests/", "results/", "outputs/")) else a for a in sys.argv)])
    return {"date": datetime.date.today().isoformat(), "machine": machine(), "load": round(os.getloadavg()[0], 1), "commit": commit(),
            "python": platform.python_version(), "versions": {p: version(p) for p in PACKAGES}, "command": command}


def save_record(path, results):
    """Write results with their circumstances."""
    save_json(path, {**circumstances(), "results": results})
