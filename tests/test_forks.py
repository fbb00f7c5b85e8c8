"""Kernels that are forked from one warm process are as private as kernels that are started from nothing."""

import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from minicoil.commands.chain import Execution, run_chain
from minicoil.runs.forks import ForkServer
from minicoil.runs.locks import process_start
from minicoil.runs.machine import socket_folder
from minicoil.runs.run import check_parameters

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux only")


@pytest.fixture
def server():
    with ForkServer() as opened:
        yield opened


def kernel_of(folder):
    """The command line of a kernel that says in a folder where it listens: pytest's own may have too long a
    path for sockets."""
    sockets = socket_folder("kernel-5") / "kernel"
    private = ["--transport=ipc", f"--ip={sockets}", "-f", f"{folder}/kernel.json"]
    return ["python", "-m", "ipykernel_launcher", *private]


def wait_for(what, true, seconds=600):
    """Wait until something is true."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, f"no {what} within {seconds} s"
        time.sleep(0.05)


def wait_for_kernel(child, folder):
    """Wait until a kernel has said where it listens."""
    said = folder / "kernel.json"
    wait_for("kernel at work", lambda: said.exists() or child.poll() is not None)
    assert said.exists(), f"the kernel ended with {child.poll()}"


def children_of(pid):
    """Pids of the processes whose parent is `pid`."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            told = stat.read_text(errors="replace")
        except OSError:
            continue
        if int(told.rpartition(")")[2].split()[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def test_every_stage_has_a_kernel_of_its_own(tmp_path):
    """Two stages have two processes, and none of them, nor their server, outlives the chain."""
    before = set(children_of(os.getpid()))
    given = check_parameters(dict(words=["bat", "bank"]))
    run_chain(tmp_path / "run", given, Execution(until="sentences", jobs=1))
    pids = {int(pid) for pid in re.findall(r"pid=(\d+)", (tmp_path / "run" / "log.txt").read_text())}
    assert len(pids) == 2
    assert all(process_start(pid) is None for pid in pids)
    assert set(children_of(os.getpid())) <= before


def test_a_forked_kernel_has_its_own_environment_and_folder(server, tmp_path):
    """What a kernel is given is its own: the next one knows nothing of it."""
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        child = server.start(kernel_of(tmp_path / name), {**os.environ, "TRY": name}, str(tmp_path / name))
        told = Path(f"/proc/{child.pid}")
        wait_for_kernel(child, tmp_path / name)
        assert Path(os.readlink(told / "cwd")) == tmp_path / name
        assert os.getpgid(child.pid) == child.pid
        child.kill()
        assert child.wait(600) == -signal.SIGKILL


def test_a_killed_server_is_followed_by_another(server, tmp_path):
    """Its child counts as killed and ends by itself; the next kernel that is asked for has a new server."""
    child = server.start(kernel_of(tmp_path), os.environ, str(tmp_path))
    wait_for_kernel(child, tmp_path)
    first = server.process
    first.kill()
    first.wait()
    assert child.wait(600) == -signal.SIGKILL
    again = server.start(kernel_of(tmp_path), os.environ, str(tmp_path))
    assert server.process.pid != first.pid
    again.kill()
    assert again.wait(600) == -signal.SIGKILL
    wait_for("end of the child", lambda: process_start(child.pid) is None)
