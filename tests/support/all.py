"""What `make test` runs, in order, each step named with its time. Stops at the first that fails.

`--quick` is `make check`: what needs no finished run. `--coverage` also says which lines ran.
Exports and notebooks are checked on a copy of the tree, so that a test never changes what it tests.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
NOT_COPIED = (".git", ".venv", "outputs", "__pycache__", "*.egg-info", "_build", ".*_cache")
ABOUT_ALL = """\
make test: about 20 minutes on 2 cores. Exports, lint, types, every notebook, the whole chain, all tests.
Skipped: tests marked slow (make test-slow runs them), and those that lack a Qdrant server (QDRANT_URL names
one), Ray, MTEB, the site's packages (make docs), or a browser. For a quick answer there is make check."""
ABOUT_QUICK = """\
make check: about 2 minutes on 2 cores. Exports, lint, types, and the tests that need no finished run.
Skipped: the notebooks, the chain, and every test that trains, serves, kills or draws. make test runs these.
What is named as skipped below is skipped for the reason that stands there."""


def step(title, *command, **options):
    """Run one command and say how long it took; leave with its exit code if it fails."""
    print(f"\n── {title}", flush=True)
    begin = time.time()
    code = subprocess.run([str(c) for c in command], **{"cwd": ROOT, **options}).returncode
    print(f"── {title}: {'ok' if not code else f'FAILED ({code})'}, {time.time() - begin:.0f} s", flush=True)
    if code:
        sys.exit(code)


def check_source(folder):
    """The package is what the notebooks export; lint, types, and notebooks without outputs."""
    copy, notebooks = folder / "copy", sorted((ROOT / "nbs").glob("*.ipynb"))
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*NOT_COPIED))
    step("nbdev_export", BIN / "nbdev_export", cwd=copy)
    same = ("diff", "-r", "-x", "__pycache__", ROOT / "minicoil", copy / "minicoil")
    step("minicoil/ is what the notebooks export", *same)
    step("ruff", BIN / "ruff", "check", "--quiet")
    step("types", BIN / "mypy", "--cache-dir", ROOT / ".mypy_cache")
    step("notebooks are clean", BIN / "nbstripout", "--verify", "--keep-id", *notebooks)
    step("README is what the index says", BIN / "python", ROOT / "tests" / "support" / "readme.py")


def run_tests(measured, environment, *options):
    """pytest on two processes; what is skipped is named with its reason."""
    shown = ("-q", "-rs", "-n", 2, "--dist", "loadfile", "-p", "no:cacheprovider")
    command = [BIN / "python", *measured, "-m", "pytest", *shown, *options, ROOT / "tests"]
    step("tests", *command, env=environment)


def main():
    """All steps, or those of `--quick`."""
    quick = "--quick" in sys.argv
    print(ABOUT_QUICK if quick else ABOUT_ALL, flush=True)
    measured = ["-m", "coverage", "run"] if "--coverage" in sys.argv else []
    # two processes on two cores: more threads only get in each other's way
    single = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory(prefix="minicoil-test-") as name:
        folder = Path(name)
        check_source(folder)
        if quick:
            return run_tests([], single, "--quick")
        step("nbdev_test", BIN / "python", *measured, BIN / "nbdev_test", "--n_workers", 2, env=single)
        run = folder / "run"
        step("the chain", BIN / "python", *measured, BIN / "minicoil", "run", "--pictures", 3, "--out", run)
        run_tests(measured, {**single, "MINICOIL_TEST_RUN": str(run)}, "--durations=12")
        if measured:
            step("put together", BIN / "python", "-m", "coverage", "combine", "--quiet")
            step("coverage", BIN / "python", "-m", "coverage", "report", "--skip-covered", "--sort", "cover")


if __name__ == "__main__":
    main()
