"""Machines that lack a home, a user's name, a short path or room: each runs, or one line says what to do."""
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from chains import copy_before, with_notebooks
from conftest import minicoil

from minicoil.runs.run import STAGES

# Another user, as in a container with a foreign user id: may read everything, and write nothing of ours.
STRANGER = [
    "setpriv", "--reuid=12345", "--regid=12345", "--clear-groups",
    "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search",
]
needs_root = pytest.mark.skipif(
    os.getuid() != 0 or not shutil.which("setpriv"), reason="only root can act as another user, with setpriv"
)
COMMAND = [str(Path(sys.executable).with_name("minicoil"))]


@pytest.fixture
def open_folder():
    """A folder that everybody may write, outside pytest's own, which only its user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="open-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def as_stranger(folder, home, *arguments):
    """A command of a user id that the machine does not know, with this HOME (None: unset)."""
    environment = dict(os.environ)
    for name in ("HOME", "USER", "LOGNAME"):
        environment.pop(name, None)
    environment |= {"HOME": home} if home is not None else {}
    command = [*STRANGER, *COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)


def to_corpus(folder, **environment):
    """A run of one stage in `folder`, with these environment variables."""
    options = ("run", "--words", "bat", "--until", "corpus", "--out", folder / "run")
    return minicoil(*options, env={**os.environ, **environment})


@needs_root
@pytest.mark.parametrize("home", [None, "/", "/nowhere", "/etc", "relative", ""])
def test_a_home_that_cannot_be_used(open_folder, home):
    """A stranger whose HOME is unset, missing or not writable can run a stage, and leaves no litter."""
    options = ("--words", "bat", "--until", "corpus", "--out", open_folder / "run")
    done = as_stranger(open_folder, home, "run", *options)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert os.listdir(open_folder) == ["run"]


SETTLED_UMAP = """
import sys
from minicoil.runs.machine import settle
settle()
import getpass, numpy as np, umap
found = umap.UMAP(n_neighbors=5, n_epochs=2, random_state=0).fit_transform(np.random.rand(20, 3))
print(found.shape, getpass.getuser())
"""


@needs_root
@pytest.mark.slow
def test_packages_that_cannot_be_written(open_folder):
    """numba finds a place for its cache where neither the packages nor HOME can be written."""
    command = [*STRANGER, sys.executable, "-c", SETTLED_UMAP]
    environment = {**os.environ, "HOME": "/nowhere", "NUMBA_CACHE_DIR": "/nowhere/numba"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=open_folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("(20, 2)")


def test_another_python_on_jupyters_path(tmp_path):
    """A kernel python3 that somebody else has installed first on Jupyter's path is not used."""
    spec = tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    facts = {"argv": ["false", "{connection_file}"], "display_name": "another", "language": "python"}
    spec.write_text(json.dumps(facts))
    done = to_corpus(tmp_path, JUPYTER_PATH=str(tmp_path / "jupyter"))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("variable", ["JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "XDG_CACHE_HOME"])
def test_a_folder_variable_that_cannot_be_used(tmp_path, variable):
    """A variable that names a folder which cannot be made is dropped, and the stage runs."""
    (tmp_path / "file").touch()
    done = to_corpus(tmp_path, **{variable: str(tmp_path / "file" / "below")})
    assert done.returncode == 0, done.stderr


def test_a_long_folder_for_temporary_files(tmp_path):
    """A TMPDIR longer than the path of a socket may be is no obstacle."""
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    done = to_corpus(tmp_path, TMPDIR=str(folder))
    assert done.returncode == 0, done.stderr


def test_a_kernel_that_is_killed_is_one_line(tmp_path, monkeypatch):
    """A kernel that the system ends for want of memory or room is one line that says so."""
    import signal

    from minicoil.runs.files import UserError
    from minicoil.runs.kernel import check_machine
    for status, words in ((-signal.SIGKILL, "--jobs"), (-signal.SIGBUS, "make room")):
        with pytest.raises(UserError, match=words):
            check_machine("stage store", RuntimeError("Kernel died"), status, tmp_path)
    check_machine("stage store", RuntimeError("Kernel died"), -signal.SIGSEGV, tmp_path)


LATER = [pytest.param(stage, marks=pytest.mark.slow) for stage in ("targets", "tokens")]


@pytest.mark.parametrize("stage", ["store", *LATER])
def test_a_disk_that_fills_up(tiny_run, full_disk, stage):
    """A stage whose disk is full, also one that maps files into memory, is one line with exit code 2."""
    before = list(STAGES)[list(STAGES).index(stage) - 1]
    disk = full_disk("60m")
    folder = with_notebooks(copy_before(tiny_run, stage, disk / "run"))
    shutil.rmtree(folder / "13_store" / "qdrant", ignore_errors=True)
    with open(disk / "filler", "wb") as f:
        f.write(b"\0" * (shutil.disk_usage(disk).free - 600_000))
    done = minicoil("run", "--out", folder, "--until", stage)
    assert done.returncode == 2, done.stderr
    assert "make room" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not [line for line in done.stderr.splitlines() if "Kernel died" in line]
    assert (folder / STAGES[before][0] / "manifest.json").exists()  # it is this stage that found no room
    assert not (folder / STAGES[stage][0] / "manifest.json").exists()


def test_a_small_folder_for_temporary_files(tiny_run, full_disk, tmp_path):
    """A search whose temporary collection finds no room ends in one line about TMPDIR, not by a signal.

    Our own index needs no such folder, and answers.
    """
    (tmp_path / "texts.txt").write_text("a bat in a cave\nthe bank of the river\n")
    search = ("search", "--model", tiny_run / "23_model", "--documents", tmp_path / "texts.txt", "bat")
    small = {**os.environ, "TMPDIR": str(full_disk("2m"))}
    assert minicoil(*search, env=small).returncode == 0
    done = minicoil(*search, "--engine", "qdrant", env=small)
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert "TMPDIR" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


# Telemetry

REPORTS_NOTHING = """
import minicoil, sys
model = sys.argv[1]
import onnxruntime
onnxruntime.InferenceSession(f"{model}/onnx/model.onnx", providers=["CPUExecutionProvider"])
list(minicoil.MiniCOIL.load(model).embed(["a bat in a cave"] * 4, batch_size=1, parallel=2))
import time
time.sleep(2)  # its thread had time: the last test sees the file much earlier
"""


def recorded(folder, command):
    """({paths below HOME}, {addresses asked for}) of a command and its children."""
    home = folder / "home"
    home.mkdir()
    # little more than a path: the library is silent where CI is set, and XDG_ variables lead past HOME
    kept = ("PATH", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment["HOME"] = str(home)
    log, addresses = folder / "calls", set()
    if shutil.which("strace"):
        recorder = ["strace", "-f", "-qq", "--seccomp-bpf", "-e", "trace=connect,sendto", "-o", str(log)]
        command = [*recorder, *command]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    if log.exists():
        addresses = {line for line in log.read_text().splitlines() if "AF_INET" in line}
    return {str(path.relative_to(home)) for path in home.rglob("*")}, addresses


def test_nothing_is_reported_by_a_process_and_its_workers(tiny_run, tmp_path):
    """Loading a model, here and in workers, leaves no file of telemetry and asks for no address."""
    program = tmp_path / "program.py"
    program.write_text("if __name__ == '__main__':" + REPORTS_NOTHING.replace("\n", "\n    "))
    files, addresses = recorded(tmp_path, [sys.executable, str(program), str(tiny_run / "23_model")])
    assert not [name for name in files if "Microsoft" in name]
    assert not addresses


@pytest.mark.slow
def test_nothing_is_reported_by_a_run(tiny_run, tmp_path):
    """A stage that uses ONNX Runtime in its kernel leaves no file of telemetry and asks for no address."""
    folder = copy_before(tiny_run, "model", tmp_path / "run")
    files, addresses = recorded(tmp_path, [*COMMAND, "run", "--out", str(folder), "--until", "export"])
    assert not [name for name in files if "Microsoft" in name]
    assert not addresses


UNTIL_IT_REPORTS = """
import sys, time
from pathlib import Path
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
until = time.monotonic() + 300
while not list(Path.home().rglob("*Microsoft*")) and time.monotonic() < until:
    time.sleep(0.1)
"""


def test_the_recorder_sees_telemetry(tiny_run, tmp_path):
    """The proof that these tests can fail: without the package's variables the library leaves its file.

    It does so in a thread of its own, so it is waited for.
    """
    import onnxruntime
    if tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 30):
        pytest.skip("this ONNX Runtime has no telemetry on Linux")
    model = str(tiny_run / "23_model" / "onnx" / "model.onnx")
    files, _ = recorded(tmp_path, [sys.executable, "-c", UNTIL_IT_REPORTS, model])
    assert [name for name in files if "Microsoft" in name]
