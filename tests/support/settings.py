"""The suite under settings that other machines have, one after the other; at the end a table of the outcome.

    python tests/support/settings.py                          everything under every setting: hours
    python tests/support/settings.py --setting one_core --setting ci
    python tests/support/settings.py --tests test_training.py --notebooks '06_.*|20_senses'
    python tests/support/settings.py --together --setting haswell --setting aten_default

With `--together` the settings named are one machine, else each is tried by itself. `--notebooks` is a regular
expression for names without their ending. `--chain` makes a run of all words first, for the tests, as
`make test` does. With `--out results/settings.json` the outcome is written down, beside what that file says
of other settings and other parts; what was not run is not in it. The exit code is 1 if anything failed.

Tests that take too long may be ended by Ctrl-C to pytest: the outcome then names the files that ran whole.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
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


JOINT = "+"  # between the names of settings that were tried together


def combined(names):
    """One setting of several; two that want another value of one variable cannot be together."""
    parts, variables = [SETTINGS[name] for name in names], {}
    for part in parts:
        for variable, value in part.variables.items():
            if variables.setdefault(variable, value) != value:
                raise SystemExit(f"not together: {variable} cannot be {variables[variable]} and {value}")
    before = tuple(word for part in parts for word in part.before)
    temporary = "".join(part.temporary for part in parts)  # one setting has such a folder
    return Setting("; ".join(part.what for part in parts), variables, before, temporary,
                   sum(part.beside for part in parts))


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


INTERRUPTED = 2  # pytest's exit code
ENDED = re.compile(r"\[(gw\d+)\].* (?:PASSED|FAILED|SKIPPED|ERROR) (?:\S*/)?(test_\w+\.py)::")


def files_seen(lines):
    """([files of which a test ended], {process: the file it was in at last}) of what pytest says."""
    found = [one for one in map(ENDED.match, lines) if one]
    return sorted({one[2] for one in found}), {one[1]: one[2] for one in found}


def shown(words, variables):
    """Run a command whose lines are shown as they come; returns (exit code, lines)."""
    def hear():  # in the background of a shell Ctrl-C would be ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    lines, given = [], dict(encoding="utf-8", errors="replace", preexec_fn=hear)
    with subprocess.Popen(words, cwd=ROOT, env=variables, stdout=subprocess.PIPE, **given) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    return process.returncode, lines


def run_tests(setting, tests, variables, folder):
    """What becomes of test files, given with pytest's options. If pytest is interrupted, `whole` names the
    files that had all their turn: not those that a process was in."""
    report = folder / "report.xml"
    command = [BIN / "python", "-m", "pytest", "-v", "-p", "no:cacheprovider", f"--junitxml={report}"]
    shared = ("--costs", "-n", 2, "--dist", "loadfile", "--no-loadscope-reorder")
    code, lines = shown([str(word) for word in (*setting.before, *command, *shared, *tests)], variables)
    if not report.exists():
        return {"passed": 0, "skipped": 0, "failed": [f"pytest ended with {code}"]}
    files, last = files_seen(lines)
    whole = {"whole": sorted({*files} - {*last.values()})} if code == INTERRUPTED else {}
    return {**tests_of(report), **whole}


def run_chain(setting, variables, folder):
    """What becomes of the whole chain, whose run is for the tests."""
    command = [BIN / "minicoil", "run", "--pictures", 3, "--out", folder / "run"]
    words = [str(word) for word in (*setting.before, *command)]
    code = subprocess.run(words, cwd=ROOT, env=variables).returncode
    failed = [f"minicoil run ended with {code}"] if code else []
    return {"passed": int(not code), "skipped": 0, "failed": failed}


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


def try_setting(setting, tests, notebooks, chain=False):
    """What becomes of the parts under a setting, the minutes it took, and the load of the last fifteen."""
    begin = time.time()
    prefix = "minicoil settings " if setting.temporary else "minicoil-settings-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=setting.temporary or None) as name:
        folder = Path(name)
        (folder / "tmp").mkdir()
        variables, found = environment(setting, folder / "tmp"), {}
        with busy(setting.beside):
            if notebooks is not None:
                found["notebooks"] = run_notebooks(setting, notebooks, variables, folder)
            if chain:
                found["chain"] = run_chain(setting, variables, folder)
                if not found["chain"]["failed"]:
                    variables["MINICOIL_TEST_RUN"] = str(folder / "run")
            if tests is not None:
                found["tests"] = run_tests(setting, tests, variables, folder)
    return {**found, "minutes": round((time.time() - begin) / 60, 1), "load": round(os.getloadavg()[2], 1)}


PARTS = ("notebooks", "chain", "tests")


def table(outcomes):
    """A line for each setting and part, and below it what failed."""
    lines = [f"{'setting':14} {'part':10} {'passed':>6} {'skipped':>7} {'failed':>6}"]
    for name, found in outcomes.items():
        for part in PARTS:
            if part in found:
                counts = found[part]
                row = f"{counts['passed']:6} {counts['skipped']:7} {len(counts['failed']):6}"
                lines += [f"{name:14} {part:10} {row}", *(f"    {one}" for one in counts["failed"])]
    return "\n".join(lines)


def left(tried):
    """Which settings were tried only together with others, and which not at all."""
    alone = {*SETTINGS} & {*tried}
    joint = {one for name in tried for one in name.split(JOINT)} - alone
    return {"only_together": sorted(joint), "not_tried": sorted({*SETTINGS} - alone - joint)}


def write_down(path, outcomes, parts):
    """Add the outcomes to a record, in place of what it says of the same settings and parts."""
    sys.path.insert(0, str(ROOT / "tests" / "bench"))
    from record import commit, save_record

    before = json.loads(path.read_text(encoding="utf-8"))["results"] if path.exists() else {}
    whats = {name: SETTINGS[name].what for name in SETTINGS}
    tried = {**before.get("tried", {})}
    for name, found in outcomes.items():
        tried.setdefault(name, {})[parts] = {**found, "commit": commit()}
    save_record(path, {"settings": whats, "tried": tried, **left(tried)})


def parts_asked(asked):
    """(tests with pytest's options or None, notebooks or None, whether the chain, the parts' name)."""
    if asked.tests is None and asked.notebooks is None and not asked.chain:
        return [ROOT / "tests"], ".*", True, "everything"
    only = ["-k", asked.only] if asked.only and asked.tests is not None else []
    files = [ROOT / "tests" / name for name in asked.tests or [""]]
    tests = None if asked.tests is None else [*files, *only]
    named = [] if asked.tests is None else [*(asked.tests or ["all tests"]), *only]
    chain = ["the chain"] if asked.chain else []
    notebooks = [asked.notebooks] if asked.notebooks else []
    return tests, asked.notebooks, asked.chain, " ".join([*named, *chain, *notebooks])


def main():
    """The settings asked for, one after the other or all at once."""
    parser = argparse.ArgumentParser(description="the suite under settings that other machines have")
    parser.add_argument("--setting", action="append", choices=SETTINGS, help="may be repeated; all if none")
    parser.add_argument("--together", action="store_true", help="try the settings named as one machine")
    parser.add_argument("--chain", action="store_true", help="make a run of all words, for the tests")
    parser.add_argument("--tests", nargs="*", help="files in tests/; all if none or no part is named")
    parser.add_argument("--only", default="", help="of the tests only those that pytest's -k selects")
    parser.add_argument("--notebooks", help="a regular expression, all if no part is named")
    parser.add_argument("--out", type=Path, help="the record to write")
    asked = parser.parse_args()
    outcomes, names = {}, asked.setting or list(SETTINGS)
    tests, notebooks, chain, parts = parts_asked(asked)
    chosen = {JOINT.join(names): combined(names)} if asked.together else {n: SETTINGS[n] for n in names}
    for name, setting in chosen.items():
        print(f"\n── {name}: {setting.what}", flush=True)
        if setting.before and not shutil.which(setting.before[0]):
            print(f"passed over: {setting.before[0]} is not installed")
            continue
        outcomes[name] = try_setting(setting, tests, notebooks, chain)
        if asked.out:
            write_down(asked.out, {name: outcomes[name]}, parts)
    print(f"\n{table(outcomes)}")
    counted = [found.get(part, {}) for found in outcomes.values() for part in PARTS]
    return int(any(counts.get("failed") for counts in counted))


if __name__ == "__main__":
    sys.exit(main())
