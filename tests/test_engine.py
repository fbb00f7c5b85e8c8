"""Engines: the same shards, the same results, whoever works and whoever is killed."""

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest
from chains import (
    command,
    copy_before,
    digests,
    end_all,
    finish,
    kill,
    start,
    starts,
    wait_until,
    with_notebooks,
)
from trials import hand_over, row

from minicoil.runs.engine import TRIES, chosen_engine, map_shards
from minicoil.runs.files import UserError

MORTAL = """
import os, pathlib, signal
from minicoil.runs.files import UserError

def begun(shard, folder):
    "How often this shard was begun, this time included"
    seen = pathlib.Path(folder) / f"shard-{shard}"
    with open(seen, "a") as f: f.write("x")
    return len(seen.read_text())

def once(shard, folder):
    "Kills its worker the first time that shard 1 is begun"
    if begun(shard, folder) == 1 and shard == 1: os.kill(os.getpid(), signal.SIGKILL)
    return shard * 10

def always(shard, folder):
    begun(shard, folder)
    if shard == 1: os.kill(os.getpid(), signal.SIGKILL)

def mistake(shard, folder):
    raise UserError(f"shard {shard} is yours to mend")
"""


@pytest.fixture
def mortal(tmp_path, monkeypatch):
    """A folder with the module `mortal`, which every worker can import."""
    (tmp_path / "mortal.py").write_text(MORTAL)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    return str(tmp_path)


@pytest.fixture(params=["local", pytest.param("ray", marks=pytest.mark.slow)])
def engine(request, mortal, monkeypatch):
    """Each engine in turn, chosen for this process."""
    if request.param == "ray":
        pytest.importorskip("ray", reason="needs minicoil[ray]")
    with chosen_engine(request.param, jobs=2) as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        yield request.param


def test_a_killed_workers_shard_is_done_again(engine, mortal):
    """A worker killed in the middle of a shard costs nothing but that shard's time.

    Another does it, and every result is there.
    """
    assert map_shards("mortal:once", range(5), mortal, jobs=2) == [0, 10, 20, 30, 40]
    assert len(Path(f"{mortal}/shard-1").read_text(encoding="utf-8")) == 2


def test_a_shard_that_always_kills_ends_the_work(engine, mortal):
    """A shard that kills every worker is given up after a few, in one line that says what to do."""
    with pytest.raises(UserError, match=f"at killing were killed {TRIES} times in a row.*--jobs"):
        map_shards("mortal:always", range(3), mortal, jobs=2, title="killing")


def test_a_users_mistake_stays_one_line(engine, mortal):
    """A `UserError` raised in a worker arrives as it is."""
    with pytest.raises(UserError) as e:
        map_shards("mortal:mistake", range(2), mortal, jobs=2)
    assert type(e.value) is UserError
    assert str(e.value) in ("shard 0 is yours to mend", "shard 1 is yours to mend")


def test_a_cluster_that_is_not_there(monkeypatch):
    """A Ray address where no cluster is ends in one line."""
    pytest.importorskip("ray", reason="needs minicoil[ray]")
    monkeypatch.setattr(
        "ray.init", lambda **options: (_ for _ in ()).throw(ConnectionError("Failed to connect"))
    )
    refused = pytest.raises(UserError, match="no Ray cluster answers at 10.0.0.1:6379")
    with refused, chosen_engine("ray", "10.0.0.1:6379"):
        pass


def test_ray_is_an_extra(monkeypatch):
    """Without Ray installed, asking for it says what to install."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'minicoil\[ray\]'"), chosen_engine("ray"):
        pass


def ray_workers(driver):
    """Pids of the worker processes of a driver's own Ray that are at a task now."""
    family = psutil.Process(driver.pid).children(recursive=True)
    return [
        p.pid
        for p in family
        if p.is_running()
        and p.status() != psutil.STATUS_ZOMBIE
        and (p.cmdline() or [""])[0].startswith("ray::call")
    ]


@pytest.mark.slow
def test_ray_ends_in_the_same_model(tiny_run, tmp_path, record_property):
    """A chain on Ray, one of whose workers is killed at its encoding and whose driver is killed and called
    again, ends in the local run's model, byte for byte."""
    pytest.importorskip("ray", reason="needs minicoil[ray]")
    folder = with_notebooks(copy_before(tiny_run, "corpus", tmp_path / "run"))
    words = json.loads((folder / "run.json").read_text())["parameters"]["words"]
    again = command(folder, "--words", ",".join(words), "--until", "model", "--engine", "ray", "--jobs", 2)
    process = start(again)
    wait_until(process, lambda: starts(folder, "targets"), "targets at work")
    wait_until(process, lambda: ray_workers(process), "a Ray worker at its task", 60)
    victim = ray_workers(process)[0]
    os.kill(victim, signal.SIGKILL)
    print(f"{time.strftime('%H:%M:%S')} killed Ray worker pid={victim} in stage targets")
    wait_until(process, lambda: starts(folder, "senses"), "senses at work")
    kill(process, at="stage senses")
    code, errors = finish(start(again))
    end_all()
    assert code == 0, errors
    same = digests(folder / "23_model") == digests(tiny_run / "23_model")
    hand_over(record_property, row("model's bytes", "Ray, 2, both killed", 1, 0, int(not same)))
    assert same
    shutil.rmtree(folder)
