"""Fixtures: one finished small run for the whole session; --slow for the long tests, --quick for a few."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# With a server's address in the environment every command would put its store there: only the tests that ask
# for it see it.
if "QDRANT_URL" in os.environ:
    os.environ["MINICOIL_TEST_QDRANT"] = os.environ.pop("QDRANT_URL")

# What a user has set for work of their own: a token would lock the tests out, a proxy swallow what they ask
# of this machine, and a narrow terminal break the lines that they look for.
OWN = ("TOKEN", "ENGINE", "JOBS", "QDRANT", "RAY_ADDRESS", "BOX", "MEMORY_GB", "DRIVER", "SHELF")
for name in (*(f"MINICOIL_{part}" for part in OWN), "COLUMNS", "FORCE_COLOR", "PY_COLORS"):
    os.environ.pop(name, None)
os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1,localhost"

# No test sees or fills the user's own cache.
CACHE = tempfile.TemporaryDirectory(prefix="minicoil-cache-")
os.environ["MINICOIL_CACHE"] = CACHE.name

SMALL_WORDS = "bat,bank,seal,mouse/mice"


# With --quick only these files run, and of them only what needs no run, no model and no browser.
QUICK = ("test_book.py", "test_cli.py", "test_data.py", "test_fuzz.py", "test_readings.py", "test_sources.py")
NOT_QUICK = {"run_folder", "model_folder", "tiny_run", "browser"}


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run the long tests")
    parser.addoption("--quick", action="store_true", help="run only tests that need no finished run")
    parser.addoption("--costs", action="store_true", help="say which tests cost most processor time")


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes minutes; runs with --slow")
    settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.register_profile("the same cases", settings.get_profile("any machine"), derandomize=True)
    settings.load_profile("any machine" if config.getoption("--slow") else "the same cases")


def pytest_ignore_collect(collection_path, config):
    """With --quick the other files are not even read."""
    if config.getoption("--quick") and collection_path.name.startswith("test_"):
        return collection_path.name not in QUICK
    return None


def is_quick(item):
    """Whether a test of those files needs neither a run nor minutes."""
    return "slow" not in item.keywords and not NOT_QUICK & set(item.fixturenames)


# Files that take minutes come first: two processes share the files, and one that is begun last runs alone.
LONG = [
    "kill", "signals", "search", "training", "atlas", "serving", "machine", "ownership", "cli", "add_words",
    "two_models", "security", "site", "collection", "data", "disk", "damage",
]


def turn(item):
    """When a test's file has its turn: the long ones first, then the others as they were collected."""
    name = item.path.stem.removeprefix("test_")
    return LONG.index(name) if name in LONG else len(LONG)


def pytest_collection_modifyitems(config, items):
    items.sort(key=turn)
    if config.getoption("--quick"):
        items[:] = [item for item in items if is_quick(item)]
    if not config.getoption("--slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="long: run with --slow or make test-slow"))


def pytest_terminal_summary(terminalreporter):
    """Below the results: the table of trials, what tests cost if asked for, and why some were skipped."""
    from costs import cost_lines, costs, skip_lines
    from trials import rows_of, table

    rows = rows_of(
        r
        for outcome in ("passed", "failed")
        for r in terminalreporter.getreports(outcome)
        if r.when == "call"
    )
    if rows:
        terminalreporter.section("trials")
        terminalreporter.write_line(table(rows))
    if terminalreporter.config.getoption("--costs"):
        terminalreporter.section("costs")
        terminalreporter.write_line("\n".join(cost_lines(costs(terminalreporter))))
    for line in skip_lines(terminalreporter):
        terminalreporter.write_line(line)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Each test's cost is counted from before its fixtures are made."""
    import costs

    costs.begin(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """When a test is over, its cost is known."""
    import costs

    if call.when == "teardown":
        costs.end(item)
    return (yield)


def minicoil(*arguments, **options):
    """The `minicoil` command of this environment as a finished process with text output."""
    command = [str(Path(sys.executable).with_name("minicoil")), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, **options)


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory):
    """A finished run: MINICOIL_TEST_RUN, or a small one made now."""
    if os.environ.get("MINICOIL_TEST_RUN"):
        return Path(os.environ["MINICOIL_TEST_RUN"])
    return made_once(tmp_path_factory, "run", make_small_run)


def make_small_run(folder):
    """Make the run of `run_folder`."""
    done = minicoil("run", "--words", SMALL_WORDS, "--pictures", 2, "--out", folder / "small")
    assert done.returncode == 0, done.stderr
    return folder / "small"


@pytest.fixture(scope="session")
def model_folder(run_folder):
    """The model directory of that run."""
    return run_folder / "23_model"


@pytest.fixture(scope="session")
def signed_model(model_folder, tmp_path_factory):
    """The model of that run as one from before training turned them: it does not say that it was turned."""
    folder = tmp_path_factory.mktemp("signed") / "model"
    shutil.copytree(model_folder, folder, ignore=shutil.ignore_patterns("manifest.json"))
    info = json.loads((folder / "minicoil.json").read_text(encoding="utf-8"))
    info.pop("rotated", None)
    (folder / "minicoil.json").write_text(json.dumps(info), encoding="utf-8")
    return folder


def made_once(tmp_path_factory, name, make):
    """What `make(folder)` returns, called by the first of the test processes that asks for `name`; the others
    wait for it."""
    folder = tmp_path_factory.getbasetemp() / name
    if "PYTEST_XDIST_WORKER" in os.environ:  # the processes have a folder each, in one for all
        folder = folder.parent.parent / name
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "place").exists():
            (folder / "place").write_text(str(make(folder)))
    return Path((folder / "place").read_text())


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """A run until the model, of the words bat and bank, with a random transformer of two layers.

    Quick to load and to run. Its corpus also has seal and crane. MINICOIL_TEST_TINY is one that another
    session made.
    """
    if os.environ.get("MINICOIL_TEST_TINY"):
        return Path(os.environ["MINICOIL_TEST_TINY"])
    return made_once(tmp_path_factory, "tiny", make_tiny_run)


def make_tiny_run(folder):
    """Make the run of `tiny_run`."""
    from chains import small_corpus, tiny_transformer, undisturbed

    model = str(tiny_transformer(folder / "transformer", 64, seed=5))
    corpus = small_corpus(folder / "corpus.txt", ("bat", "bank", "seal", "crane"), each=40)
    return undisturbed(
        folder / "run",
        words=["bat", "bank"],
        corpus=[str(corpus)],
        dim=3,
        samples=30,
        pictures=0,
        input_model=model,
        target_model=model,
    )


@pytest.fixture(scope="module")
def small(tiny_run):
    """The tiny run with the digests of its model, as (folder, digests)."""
    from chains import digests

    return tiny_run, digests(tiny_run / "23_model")


@pytest.fixture
def full_disk(tmp_path):
    """A maker of folders on a disk of so many bytes; skipped where nothing may be mounted."""
    mounted = []

    def make(size):
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=777", "tmpfs", str(folder)]
        done = subprocess.run(mount, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)])


@pytest.fixture(scope="module")
def browser():
    """Chromium.

    A module's own, because playwright's loop would stand in the way of tests that run notebooks.
    """
    from browsing import FLAGS, find_chromium

    path = find_chromium()
    if path is None:
        pytest.skip("NO BROWSER: chromium is not installed, and apt-get could not install it")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        opened = p.chromium.launch(executable_path=path, args=FLAGS, timeout=240_000)
        yield opened
        opened.close()


@pytest.fixture
def fake(monkeypatch):
    """(a stand-in for a Qdrant server, its URL)."""
    from qdrant_fake import FakeQdrant, serving

    monkeypatch.delenv("QDRANT_API_KEY", raising=False)
    server = FakeQdrant()
    with serving(server) as url:
        yield server, url
