"""What `make test` runs, in order, each step named with its time. Stops at the first that fails. `--coverage`
says which lines ran.

Exports and notebooks are checked on a copy of the tree, so that a test never changes what it tests."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def step(title, *command, **options):
    """Run one command and say how long it took; leave with its exit code if it fails."""
    print(f"\n── {title}", flush=True)
    begin = time.time()
    code = subprocess.run([str(c) for c in command], **{"cwd": ROOT, **options}).returncode
    print(f"── {title}: {'ok' if not code else f'FAILED ({code})'}, {time.time() - begin:.0f} s", flush=True)
    if code:
        sys.exit(code)


def exports_match(copy):
    """The package is what the notebooks export."""
    step("nbdev_export", BIN / "nbdev_export", cwd=copy)
    step(
        "minicoil/ is what the notebooks export",
        "diff",
        "-r",
        "-x",
        "__pycache__",
        ROOT / "minicoil",
        copy / "minicoil",
    )


def main():
    with tempfile.TemporaryDirectory(prefix="minicoil-test-") as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(
            ROOT,
            copy,
            ignore=shutil.ignore_patterns(".git", ".venv", "outputs", "__pycache__", "*.egg-info", "_build"),
        )
        exports_match(copy)
        step("ruff", BIN / "ruff", "check", "--quiet")
        step("types", BIN / "mypy", "--cache-dir", Path(folder) / "mypy")
        step(
            "notebooks are clean",
            BIN / "nbstripout",
            "--verify",
            "--keep-id",
            *sorted((ROOT / "nbs").glob("*.ipynb")),
        )
        measured = ["-m", "coverage", "run"] if "--coverage" in sys.argv else []
        single = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
        }  # two processes on two cores: more threads only get in each other's way
        step("nbdev_test", BIN / "python", *measured, BIN / "nbdev_test", "--n_workers", 2, env=single)
        step("README is what the index says", BIN / "python", ROOT / "tests" / "readme.py")
        run = Path(folder) / "run"
        step("the chain", BIN / "python", *measured, BIN / "minicoil", "run", "--pictures", 3, "--out", run)
        environment = {**single, "MINICOIL_TEST_RUN": str(run), "HF_HUB_OFFLINE": "1"}
        step(
            "tests",
            BIN / "python",
            *measured,
            "-m",
            "pytest",
            "-q",
            "-rs",
            "--durations=12",
            "-n",
            2,
            "--dist",
            "loadfile",
            "-p",
            "no:cacheprovider",
            ROOT / "tests",
            env=environment,
        )
        if measured:
            step("put together", BIN / "python", "-m", "coverage", "combine", "--quiet")
            step("coverage", BIN / "python", "-m", "coverage", "report", "--skip-covered", "--sort", "cover")


if __name__ == "__main__":
    main()
