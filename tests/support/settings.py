"""The suite under settings that other machines have, one after the other; at the end a table of the outcome.

    python tests/support/settings.py                          everything under every setting: hours
    python tests/support/settings.py --setting one_core --setting ci
    python tests/support/settings.py --tests test_training.py --notebooks '06_.*|20_senses'

`--notebooks` is a regular expression for names without their ending. With `--out results/settings.json` the
outcome is written down, beside what that file says of other settings and other parts; what was not run is not
in it. The exit code is 1 if anything failed.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"  # until their parent is gone


@dataclass
class Setting:
    """What differs from the machine as it is: variables (None unsets one), words before each command, a
    folder for temporary files below `temporary`, and how many busy processes run beside."""

    what: str
    variables: dict = field(default_factory=dict)
    before: tuple = ()
    temporary: str = ""
    beside: int = 0


KERNELS = {"haswell": "Haswell", "nehalem": "Nehalem", "skylake": "SkylakeX"}
SETTINGS = {
    "plain": Setting("the machine as it is"),
    **{
        name: Setting(f"numpy's kernels for {kernel}", {"OPENBLAS_CORETYPE": kernel})
        for name, kernel in KERNELS.items()
    },
    "aten_default": Setting("torch without AVX", {"ATEN_CPU_CAPABILITY": "default"}),
    "aten_avx2": Setting("torch with AVX2", {"ATEN_CPU_CAPABILITY": "avx2"}),
    "mkl_old": Setting(
        "the matrix products of an old processor in torch",
        {"MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"},
    ),
    "one_core": Setting("one core", before=("taskset", "-c", "0")),
    "busy": Setting("beside two busy processes", beside=2),
    "ci": Setting("CI=true and GITHUB_ACTIONS=true", {"CI": "true", "GITHUB_ACTIONS": "true"}),
    "no_home": Setting("without HOME", {"HOME": None, "XDG_CACHE_HOME": None}),
    "c_locale": Setting("LANG=C", {"LANG": "C", "LC_ALL": None, "LC_CTYPE": None}),
    "elsewhere": Setting("temporary files in memory, in a folder with spaces", temporary="/dev/shm"),
    "terminal": Setting("a narrow terminal with colours", {"COLUMNS": "40", "FORCE_COLOR": "1"}),
    "proxy": Setting("behind a proxy that is not there", {"http_proxy": "http://127.0.0.1:9"}),
}


def environment(setting, folder):
    """The variables of a setting; `folder` is for temporary files."""
    given = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **setting.variables}
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    together = {**os.environ, "PATH": path, "TMPDIR": str(folder), **given}
    return {name: value for name, value in together.items() if value is not None}


@contextlib.contextmanager
def busy(n):
    """`n` processes that do nothing but work."""
    processes = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(n)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def tests_of(report):
    """{"passed", "skipped", "failed": [names]} of a report in JUnit's form."""
    found = {"passed": 0, "skipped": 0, "failed": []}
    for case in ElementTree.parse(report).iter("testcase"):
        if any(case.find(kind) is not None for kind in ("failure", "error")):
            found["failed"].append(f"{case.get('classname').removeprefix('tests.')}::{case.get('name')}")
        else:
            found["skipped" if case.find("skipped") is not None else "passed"] += 1
    return found


def run_tests(setting, tests, variables, folder):
    """What becomes of test files, given with pytest's options."""
    report = folder / "report.xml"
    command = [BIN / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    shared = ("--costs", "-n", 2, "--dist", "loadfile", "--no-loadscope-reorder")
    words = [str(word) for word in (*setting.before, *command, *shared, *tests)]
    done = subprocess.run(words, cwd=ROOT, env=variables)
    if not report.exists():
        return {"passed": 0, "skipped": 0, "failed": [f"pytest ended with {done.returncode}"]}
    return tests_of(report)


def run_notebooks(setting, pattern, variables, folder):
    """What becomes of the notebooks whose names match."""
    names = sorted(path.stem for path in (ROOT / "nbs").glob("*.ipynb") if re.fullmatch(pattern, path.stem))
    if not names:
        return {"passed": 0, "skipped": 0, "failed": []}
    (folder / "shelf").mkdir()
    shelf = {**variables, "MINICOIL_SHELF": str(folder / "shelf")}
    command = [BIN / "nbdev_test", "--n_workers", 2, "--file_re", rf"^({pattern})\.ipynb$"]
    done = subprocess.run([str(w) for w in (*setting.before, *command)], cwd=ROOT, env=shelf,
                          capture_output=True, encoding="utf-8", errors="replace")
    print(done.stdout[-4000:], done.stderr[-8000:], sep="\n")
    named = done.stderr.split("On The Following Notebooks:")[-1] if done.returncode else ""
    failed = [name for name in names if re.search(rf"^\s+{re.escape(name)}\.ipynb$", named, re.MULTILINE)]
    if done.returncode and not failed:
        failed = [f"nbdev_test ended with {done.returncode}"]
    return {"passed": len(names) - len(failed), "skipped": 0, "failed": failed}


def try_setting(setting, tests, notebooks):
    """What becomes of the parts under a setting, and the minutes it took."""
    begin = time.time()
    prefix = "minicoil settings " if setting.temporary else "minicoil-settings-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=setting.temporary or None) as name:
        folder = Path(name)
        (folder / "tmp").mkdir()
        variables, found = environment(setting, folder / "tmp"), {}
        with busy(setting.beside):
            if tests is not None:
                found["tests"] = run_tests(setting, tests, variables, folder)
            if notebooks is not None:
                found["notebooks"] = run_notebooks(setting, notebooks, variables, folder)
    return {**found, "minutes": round((time.time() - begin) / 60, 1)}


def table(outcomes):
    """A line for each setting and part, and below it what failed."""
    lines = [f"{'setting':14} {'part':10} {'passed':>6} {'skipped':>7} {'failed':>6}"]
    for name, found in outcomes.items():
        for part in ("tests", "notebooks"):
            if part in found:
                counts = found[part]
                row = f"{counts['passed']:6} {counts['skipped']:7} {len(counts['failed']):6}"
                lines += [f"{name:14} {part:10} {row}", *(f"    {one}" for one in counts["failed"])]
    return "\n".join(lines)


def write_down(path, outcomes, parts):
    """Add the outcomes to a record, in place of what it says of the same settings and parts."""
    sys.path.insert(0, str(ROOT / "tests" / "bench"))
    from record import save_record

    before = json.loads(path.read_text(encoding="utf-8"))["results"] if path.exists() else {}
    whats = {name: SETTINGS[name].what for name in SETTINGS}
    tried = {**before.get("tried", {})}
    for name, found in outcomes.items():
        tried.setdefault(name, {})[parts] = found
    save_record(path, {"settings": whats, "tried": tried, "not_tried": sorted(set(whats) - set(tried))})


def main():
    """The settings asked for, one after the other."""
    parser = argparse.ArgumentParser(description="the suite under settings that other machines have")
    parser.add_argument("--setting", action="append", choices=SETTINGS, help="may be repeated; all if none")
    parser.add_argument("--tests", nargs="*", help="files in tests/, all if no part is named")
    parser.add_argument("--only", default="", help="of the tests only those that pytest's -k selects")
    parser.add_argument("--notebooks", help="a regular expression, all if no part is named")
    parser.add_argument("--out", type=Path, help="the record to write")
    asked = parser.parse_args()
    tests = None if asked.tests is None else [ROOT / "tests" / name for name in asked.tests]
    if tests and asked.only:
        tests += ["-k", asked.only]
    notebooks, outcomes = asked.notebooks, {}
    if tests is None and notebooks is None:
        tests, notebooks = [ROOT / "tests"], ".*"
    named = asked.tests or (["all tests"] if tests else [])
    parts = " ".join([*named, *(["-k", asked.only] if asked.only else []), notebooks or ""]).strip()
    for name in asked.setting or SETTINGS:
        setting = SETTINGS[name]
        print(f"\n── {name}: {setting.what}", flush=True)
        if setting.before and not shutil.which(setting.before[0]):
            print(f"passed over: {setting.before[0]} is not installed")
            continue
        outcomes[name] = try_setting(setting, tests, notebooks)
        if asked.out:
            write_down(asked.out, {name: outcomes[name]}, parts)
    print(f"\n{table(outcomes)}")
    counted = [found.get(part, {}) for found in outcomes.values() for part in ("tests", "notebooks")]
    return int(any(counts.get("failed") for counts in counted))


if __name__ == "__main__":
    sys.exit(main())
