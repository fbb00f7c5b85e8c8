"""What `make test` runs, in order, each step named with its time. Stops at the first that fails.

`--quick` is `make check`: what needs no finished run. `--coverage` also says which lines ran.
Exports and notebooks are checked on a copy of the tree, so that a test never changes what it tests.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
NOT_COPIED = (".git", ".venv", "outputs", "__pycache__", "*.egg-info", "_build", ".*_cache")
ABOUT_ALL = """\
make test: about 18 minutes on 2 idle cores, twice that on busy ones. Exports, lint, types, every notebook,
the whole chain, all tests but those marked slow (make test-slow runs them). A few are skipped that lack a
Qdrant server (QDRANT_URL names one), Ray, MTEB, a browser, npm, or a user who is not root."""
ABOUT_QUICK = """\
make check: about 2 minutes on 2 cores. Exports, lint, types, and the tests that need no finished run.
Skipped: the notebooks, the chain, and every test that trains, serves, kills or draws. make test runs these.
What is named as skipped below is skipped for the reason that stands there."""


def end_step(title, code, begin):
    """Say how a step ended and how long it took; leave with its exit code if it failed."""
    print(f"── {title}: {'ok' if not code else f'FAILED ({code})'}, {time.time() - begin:.0f} s", flush=True)
    if code:
        sys.exit(code)


def step(title, *command, **options):
    """Run one command as a step."""
    print(f"\n── {title}", flush=True)
    begin = time.time()
    code = subprocess.run([str(c) for c in command], **{"cwd": ROOT, **options}).returncode
    end_step(title, code, begin)


class Beside:
    """A command at work beside the steps, many of which use one core; `over` shows what it said."""

    def __init__(self, title, log, *command, env):
        self.title, self.log, self.begin = title, log, time.time()
        with open(log, "wb") as out:
            given = dict(cwd=ROOT, env=env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
            self.process = subprocess.Popen([str(c) for c in command], **given)

    def over(self):
        """Wait for it, and end it as a step."""
        code = self.process.wait()
        print(f"\n── {self.title}, begun before the steps above")
        print(self.log.read_text(encoding="utf-8", errors="replace"), end="")
        end_step(self.title, code, self.begin)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        """Let nothing of it stay behind when a step has failed."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
            self.process.wait()


def check_source(folder, environment):
    """The package is what the notebooks export; lint, types, and notebooks without outputs."""
    copy, notebooks = folder / "copy", sorted((ROOT / "nbs").glob("*.ipynb"))
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*NOT_COPIED))
    step("nbdev_export", BIN / "nbdev_export", cwd=copy)
    same = ("diff", "-r", "-x", "__pycache__", ROOT / "minicoil", copy / "minicoil")
    step("minicoil/ is what the notebooks export", *same)
    step("ruff", BIN / "ruff", "check", "--quiet")
    step("types", BIN / "mypy", "--cache-dir", ROOT / ".mypy_cache")
    step("notebooks are clean", BIN / "nbstripout", "--verify", "--keep-id", *notebooks)
    readme = (BIN / "python", ROOT / "tests" / "support" / "readme.py")
    step("README is what the index says", *readme, env=environment)


def run_tests(measured, environment, *options):
    """pytest on two processes; below the results three lines on what was skipped."""
    shared = ("-n", 2, "--dist", "loadfile", "--no-loadscope-reorder")  # in the order of conftest.py
    shown = ("-q", "-p", "no:cacheprovider", *shared)
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
        shelf, run = folder / "shelf", folder / "run"
        shelf.mkdir()
        shared = {**single, "MINICOIL_SHELF": str(shelf)}  # notebooks take over each other's throw-away runs
        if quick:
            check_source(folder, shared)
            return run_tests([], single, "--quick")
        chain = (*measured, BIN / "minicoil", "run", "--pictures", 3, "--out", run)
        with Beside("the chain", folder / "chain.log", BIN / "python", *chain, env=single) as beside:
            check_source(folder, shared)
            notebooks = (*measured, BIN / "nbdev_test", "--n_workers", 2)
            step("nbdev_test", BIN / "python", *notebooks, env=shared)
            beside.over()
        run_tests(measured, {**single, "MINICOIL_TEST_RUN": str(run)}, "--costs")
        if measured:
            step("put together", BIN / "python", "-m", "coverage", "combine", "--quiet")
            step("coverage", BIN / "python", "-m", "coverage", "report", "--skip-covered", "--sort", "cover")


if __name__ == "__main__":
    main()
