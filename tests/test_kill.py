"""A run may be killed at any moment: called again, it ends in the same bytes and leaves nothing behind."""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest
from chains import (
    TO_MODEL,
    command,
    copy_before,
    digests,
    end_all,
    finish,
    kill,
    kill_in_stage,
    small_corpus,
    start,
    starts,
    tiny_transformer,
    undisturbed,
    wait_until,
    with_notebooks,
    work,
)

import minicoil.runs.ownership
import minicoil.runs.run
from minicoil.runs.files import UserError, load_json
from minicoil.runs.locks import end_orphan, lock_holder, locked, process_start
from minicoil.runs.run import STAGES, open_run, stages_from

WORDS = ("--words", "bat,bank", "--pictures", 0)


@pytest.fixture(autouse=True)
def no_process_left():
    yield
    end_all()


@pytest.fixture(scope="session")
def reference(tmp_path_factory):
    """A run of two words until the model that nobody disturbed."""
    return undisturbed(tmp_path_factory.getbasetemp() / "reference", words=["bat", "bank"], pictures=0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """(undisturbed run of a tiny transformer, options that make the same run)"""
    folder = tmp_path_factory.mktemp("tiny")
    given = dict(words=["bat", "bank"], pictures=0, corpus=[str(small_corpus(folder / "corpus.txt"))])
    given |= dict.fromkeys(
        ("target_model", "input_model"), str(tiny_transformer(folder / "model", 64, seed=0))
    )
    options = [
        *WORDS,
        "--corpus",
        given["corpus"][0],
        "--target-model",
        given["target_model"],
        "--input-model",
        given["input_model"],
    ]
    return undisturbed(folder / "run", **given), options


def python(program, *arguments, wait=True, **environment):
    """A Python process of a program given as text: (exit code, stderr), or the running process."""
    process = start([sys.executable, "-c", program, *map(str, arguments)], **environment)
    return finish(process) if wait else process


def litter(folder):
    """Files in a run that only a killed process can have left.

    Half-written ones, folders on their way out, sockets.
    """
    found = [
        p
        for p in Path(folder).rglob("*")
        if "qdrant" not in p.parts and (p.name.endswith((".tmp", ".old")) or p.is_socket())
    ]
    return sorted(str(p.relative_to(folder)) for p in found)


def unfinished_notebooks(folder):
    """Names of the notebooks of a run in which not every code cell was executed."""
    found = []
    for path in sorted((folder / "notebooks").glob("*.ipynb")):
        code = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
        if any(c["metadata"]["papermill"]["status"] != "completed" for c in code):
            found.append(path.name)
    return found


# A chain, killed


@pytest.fixture(scope="module")
def killed(tiny, tmp_path_factory):
    """A chain from the stage targets on, killed in targets and, called again, when senses are done but their
    notebook is not; then let alone until that is whole. The rest is done without kernels, each of which takes
    ten seconds. Kills in the other stages are among the long tests."""
    whole, options = tiny
    folder = with_notebooks(copy_before(whole, "targets", tmp_path_factory.mktemp("killed") / "run"))
    again = command(folder, *options, "--until", "model")
    kill_in_stage(again, folder, "targets", kernel_too=True)
    process = start(again)
    wait_until(process, (folder / "20_senses" / "manifest.json").exists, "senses done")
    kill(process, at="the rest of the notebook of stage senses")
    code, errors = finish(start(command(folder, *options, "--until", "senses")))
    assert code == 0, errors
    work(open_run(folder), *TO_MODEL[TO_MODEL.index("senses") + 1 :])
    return folder


def test_same_model_after_kills(tiny, killed):
    """A chain killed in targets and at the end of senses ends in the model of an undisturbed run, byte for
    byte."""
    assert len(starts(killed, "targets")) == 2
    assert digests(killed / "23_model") == digests(tiny[0] / "23_model")


def test_notebooks_executed_to_their_ends(killed):
    """A chain killed when a stage is done but its notebook is not leaves, called again, the notebook executed
    to its end."""
    assert unfinished_notebooks(killed) == []


def test_nothing_left_behind(killed):
    """No half-written file and no socket of a dead kernel stays in the run's folder."""
    assert litter(killed) == []


@pytest.mark.slow
@pytest.mark.parametrize("kernel_too", [False, True], ids=["driver", "driver and kernel"])
@pytest.mark.parametrize("stage", TO_MODEL)
def test_same_model_after_a_kill(reference, tmp_path, stage, kernel_too):
    """A chain killed in any stage ends in the same model, whether its kernel outlives it or not."""
    folder = with_notebooks(copy_before(reference, stage, tmp_path / "run"))
    again = command(folder, *WORDS, "--until", "model")
    kill_in_stage(again, folder, stage, kernel_too)
    code, errors = finish(start(again))
    assert code == 0, errors
    assert digests(folder / "23_model") == digests(reference / "23_model")
    assert litter(folder) == []


@pytest.mark.slow
@pytest.mark.parametrize("stage", stages_from("atlas"))
def test_model_survives_later_kills(run_folder, tmp_path, stage):
    """A kill in a stage after the model, and the call that mends it, leave the model as it was."""
    params = load_json(run_folder / "run.json")["parameters"]
    folder = copy_before(run_folder, stage, tmp_path / "run")
    again = command(folder, "--until", stage)
    kill_in_stage(again, folder, stage, kernel_too=True)
    code, errors = finish(start(again))
    assert code == 0, errors
    assert load_json(folder / "run.json")["parameters"] == params
    assert litter(folder) == []
    assert digests(folder / "23_model") == digests(run_folder / "23_model")


def kill_at_random(make, options, model, times, seconds, seed):
    """Kill a chain `times` times at random moments, each time calling again at once.

    A chain that ends is compared and a new one begun.
    """
    rng, done, folder = random.Random(seed), 0, make(0)
    process = start(command(folder, *options, "--until", "model"))
    for count in range(1, times + 1):
        until = time.monotonic() + rng.uniform(0, seconds)
        while time.monotonic() < until and process.poll() is None:
            time.sleep(0.01)
        if process.poll() is not None:
            assert process.returncode == 0, process.communicate()[1]
            assert digests(folder / "23_model") == model
            done, folder = done + 1, make(done + 1)
        else:
            log = folder / "log.txt"
            lines = (log.read_text().splitlines() or ["nothing"]) if log.exists() else ["no log"]
            kill(process, at=f"random moment {count} of seed {seed}, last of the log: {lines[-1]}")
        process = start(command(folder, *options, "--until", "model"))
    code, errors = finish(process)
    assert code == 0, errors
    assert digests(folder / "23_model") == model


def test_killed_three_times_at_random(tiny, tmp_path):
    """A driver killed at three random moments and called again in the same second ends in the same model."""
    run, options = tiny

    def make(n):
        return with_notebooks(copy_before(run, "model", tmp_path / f"run{n}"))

    kill_at_random(make, options, digests(run / "23_model"), times=3, seconds=9, seed=time.time_ns() % 1000)


def log_lines(folder):
    """The lines of a run's log so far."""
    return (folder / "log.txt").read_text().splitlines() if (folder / "log.txt").exists() else []


def at_work(folder, before):
    """The stage at work now, if it began after the log's first `before` lines were written."""
    last = (log_lines(folder)[before:] or [""])[-1].split()
    return last[1] if last and last[-1] == "start" else None


def kill_in_every_stage(make, options, model, stages, times, seed):
    """Kill a chain `times` times while a stage is at work, each stage about as often, at random moments,
    calling again at once. Returns {stage: kills}."""
    rng, hits, rounds, folder = random.Random(seed), dict.fromkeys(stages, 0), 0, make(0)
    while sum(hits.values()) < times:
        before, due = len(log_lines(folder)), (None, 0)
        process = start(command(folder, *options, "--until", "model"))
        while process.poll() is None and not (due[0] and time.monotonic() >= due[1]):
            stage = at_work(folder, before)
            if (
                stage != due[0]
            ):  # a stage that was not hit more often than the others is due at a random moment, mostly soon
                due = (
                    (stage, time.monotonic() + 1.5 * rng.random() ** 4)
                    if hits.get(stage, times) <= min(hits.values()) + 1
                    else (None, 0)
                )
            time.sleep(0.002)
        if process.poll() is None:
            kill(
                process,
                *starts(folder, due[0])[-1:],
                at=f"stage {due[0]} at work, kill {sum(hits.values()) + 1} of seed {seed}",
            )
            hits[due[0]] += at_work(folder, before) == due[0]
        else:
            assert process.returncode == 0, process.communicate()[1]
            assert digests(folder / "23_model") == model, f"another model after {hits}"
            rounds, folder = rounds + 1, make(rounds + 1)
    code, errors = finish(start(command(folder, *options, "--until", "model")))
    assert code == 0, errors
    assert digests(folder / "23_model") == model
    assert litter(folder) == []
    print(f"kills in each stage: {hits}; {rounds + 1} chains finished")
    return hits


@pytest.mark.slow
def test_killed_twenty_times_while_at_work(tiny, tmp_path):
    """Twenty kills at random moments, each while a stage from the corpus to the training is at work and every
    stage hit, end in the undisturbed model, byte for byte."""
    run, options = tiny
    hits = kill_in_every_stage(
        lambda n: tmp_path / f"run{n}",
        options,
        digests(run / "23_model"),
        TO_MODEL[:-1],
        times=20,
        seed=time.time_ns() % 1000,
    )
    assert min(hits.values()) >= 2


# Around a stage

CHAIN_WITH_BROKEN_LOOK = """
import os, sys
from pathlib import Path
import nbformat
from minicoil.commands import chain, stage_notebook
from minicoil.runs.run import check_parameters
code = nbformat.v4.new_code_cell
stage = ["from minicoil.stages.corpus import *", "from minicoil.runs.run import open_run",
         "convert_openwebtext(open_run(run_dir))"]
cells = [code('run_dir = ""', metadata={"tags": ["parameters"]}), code("\\n".join(stage)),
         code("assert 1 == 2, 'the look fails'")]
kernel = {"name": "python3", "display_name": "python3", "language": "python"}
notebook = Path(sys.argv[1]).with_name("broken.ipynb")
nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), notebook)
stage_notebook.notebook_path = lambda stage: notebook
before = dict(os.environ)
for _ in range(2):
    try:
        chain.run_chain(sys.argv[1], check_parameters(dict(words=["bat"])), chain.Execution(until="corpus"))
        print("done", file=sys.stderr)
    except stage_notebook.StageFailed:
        print("failed", file=sys.stderr)
changed = {k for k in os.environ if os.environ[k] != before.get(k)}
print("environment", changed or "as before", file=sys.stderr)
"""


@pytest.fixture(scope="module")
def broken_look(tmp_path_factory):
    """What is said by a chain, called twice, whose first notebook does its stage and then fails."""
    return python(CHAIN_WITH_BROKEN_LOOK, tmp_path_factory.mktemp("broken") / "run")[1]


def test_a_failed_notebook_is_not_taken_as_done(broken_look):
    """A notebook that fails after its stage was done fails again in the next call.

    The fault is not forgotten.
    """
    assert broken_look.count("failed\n") == 2, broken_look


def test_a_chain_leaves_the_environment_alone(broken_look):
    """A chain called from Python leaves no variables behind that later stages in the process would obey."""
    assert "environment as before" in broken_look, broken_look


STORE_KILLED_BEFORE_UPDATE = """
import os, signal, sys
import qdrant_edge
from minicoil.runs.run import open_run
from minicoil.stages.store import upload_to_qdrant
engine, left = qdrant_edge.EdgeShard, [int(sys.argv[2])]

class Shard:
    create = staticmethod(lambda *a: Shard(engine.create(*a)))
    load = staticmethod(lambda *a: Shard(engine.load(*a)))
    def __init__(self, shard): self.shard = shard
    def __getattr__(self, name): return getattr(self.shard, name)
    def update(self, operation):
        if left[0] == 0: os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return self.shard.update(operation)

qdrant_edge.EdgeShard = Shard
upload_to_qdrant(open_run(sys.argv[1]))
"""


@pytest.mark.parametrize("updates", [0, 1, 2])
def test_store_killed_between_its_steps(tiny, tmp_path, updates):
    """A store killed before its first, second or third change is finished by the next call, with the same
    draw."""
    folder = copy_before(tiny[0], "store", tmp_path / "run")
    code, errors = python(STORE_KILLED_BEFORE_UPDATE, folder, updates)
    assert code == -9, errors
    minicoil.runs.run.stage_function("store")(open_run(folder))
    assert digests(folder / "13_store")["drawn.parquet"] == digests(tiny[0] / "13_store")["drawn.parquet"]


@pytest.mark.parametrize("step", range(8))
def test_redo_killed_between_its_steps(tmp_path, monkeypatch, step):
    """A redo with other parameters that is killed between any two steps never leaves stages done beside
    parameters they were not made with."""
    run = open_run(tmp_path / "run", words=["bat"], dim=4)
    for stage in list(STAGES)[:8]:
        with run.working(stage) as at:
            at.finish(dim=4)
    count = iter(range(100))

    def stepwise(function):
        def counted(*arguments, **options):
            if next(count) == step:
                raise KeyboardInterrupt
            return function(*arguments, **options)

        return counted

    with monkeypatch.context() as patched:
        patched.setattr(minicoil.runs.ownership.os, "replace", stepwise(os.replace))
        patched.setattr(
            minicoil.runs.ownership.shutil, "rmtree", stepwise(minicoil.runs.ownership.shutil.rmtree)
        )
        with pytest.raises(KeyboardInterrupt):
            open_run(tmp_path / "run", dim=8, redo_from="senses")
    run = open_run(tmp_path / "run")
    standing = [stage for stage in list(STAGES)[:8] if run.stage(stage).done]
    assert standing == list(STAGES)[: len(standing)], "a stage stands behind one that was discarded"
    assert run.params.dim == 4 or not set(standing) & set(stages_from("senses")), (
        f"dim is {run.params.dim}, and {standing} made with 4 count as done"
    )


def test_litter_is_swept(tmp_path):
    """What killed processes left half-written anywhere in a run is gone when the next stage is at work."""
    run = open_run(tmp_path / "run")
    for name in (
        ".run.json.1.tmp",
        "10_corpus/.part-00000.parquet.1.tmp",
        "23_model/onnx/.model.onnx.1.tmp",
        ".12_targets.1.old/part-00000.npy",
    ):
        (run.dir / name).parent.mkdir(parents=True, exist_ok=True)
        (run.dir / name).write_text("half a fi")
    with run.working("corpus"):
        assert litter(run.dir) == []


# One at a time


def test_two_at_once(tmp_path):
    """Of two runs started on one folder at once one is refused with the other's pid and exit code 2.

    So is a third, even one that would redo; the first is unharmed.
    """
    options = (*WORDS, "--until", "corpus")
    folder = tmp_path / "run"
    both = [start(command(folder, *options)) for _ in range(2)]
    pids, lock = [p.pid for p in both], folder / ".driver.lock"
    wait_until(both[0], lambda: lock_holder(lock).get("pid") in pids, "the lock")
    first = both[pids.index(lock_holder(lock)["pid"])]
    refused = both[both.index(first) - 1]
    os.kill(first.pid, signal.SIGSTOP)  # the others must find it alive, however slowly they start
    third = start(command(folder, *options, "--from", "corpus", "--seed", 1))
    for process in (refused, third):
        code, errors = finish(process)
        assert code == 2, errors
        assert f"(pid {first.pid})" in errors, errors
        assert len(errors.strip().splitlines()) == 1, errors
    os.kill(first.pid, signal.SIGCONT)
    code, errors = finish(first)
    assert code == 0, errors
    assert len(starts(folder, "corpus")) == 1
    assert open_run(folder).stage("corpus").done
    assert open_run(folder).params.seed == 0


HOLD = """
import sys, time
from minicoil.runs.locks import locked
with locked(sys.argv[1], ""):
    time.sleep(3600)
"""


def test_a_stage_by_hand_is_refused(tmp_path):
    """A stage called by hand on a folder where a driver is at work is refused with the driver's pid."""
    run = open_run(tmp_path / "run")
    driver = python(
        HOLD,
        run.dir / ".driver.lock",
        wait=False,
    )
    wait_until(driver, lambda: lock_holder(run.dir / ".driver.lock"), "the lock")
    with pytest.raises(UserError, match=rf"\(pid {driver.pid}\)"), run.working("corpus"):
        pass


LOCK_AT = """
import os, sys, time
from minicoil.runs.files import UserError
from minicoil.runs.locks import living_holder, locked
living_holder.__defaults__ = (600.0,)  # on a busy machine the winner may be slow to write who it is
while time.time() < float(sys.argv[2]): pass
try:
    with locked(sys.argv[1], "busy"):
        while not os.path.exists(sys.argv[3]): time.sleep(0.01)
except UserError as e: sys.exit(str(e))
"""


@pytest.mark.parametrize("before", ["", '{"pid": 4194000, "start": 1.0}'], ids=["new", "after a dead one"])
def test_refused_with_the_right_pid_at_the_same_moment(tmp_path, before):
    """Two that reach for a lock at the same moment.

    The loser names the winner, not nobody and not an earlier one.
    """
    (tmp_path / "lock").write_text(before)
    moment = time.time() + 1.5
    both = [python(LOCK_AT, tmp_path / "lock", moment, tmp_path / "over", wait=False) for _ in range(2)]
    until = time.monotonic() + 1200
    while all(p.poll() is None for p in both) and time.monotonic() < until:
        time.sleep(0.01)
    (tmp_path / "over").touch()  # the winner holds the lock until the loser has been refused
    ended = {p.pid: finish(p) for p in both}
    winner, loser = sorted(ended, key=lambda pid: ended[pid][0])
    assert ended[winner] == (0, "")
    assert ended[loser] == (1, f"busy (pid {winner})\n")


def test_a_stuck_orphan_is_ended(tmp_path):
    """A kernel that a dead driver left at work is ended, and the lock is free."""
    orphan = python(
        HOLD,
        tmp_path / ".work.lock",
        wait=False,
    )
    wait_until(orphan, lambda: lock_holder(tmp_path / ".work.lock"), "the lock")
    end_orphan(tmp_path, grace=0.2)
    assert orphan.wait(600) == -9
    with locked(tmp_path / ".work.lock", "still taken"):
        pass


def test_a_stranger_with_the_orphans_pid_is_spared(tmp_path):
    """A process that merely has the pid written in the lock, but another start time, is not ended."""
    stranger = python("import time; time.sleep(3600)", wait=False)
    with locked(tmp_path / ".work.lock", ""):
        (tmp_path / ".work.lock").write_text(
            json.dumps({"pid": stranger.pid, "start": process_start(stranger.pid) - 100})
        )
        with pytest.raises(UserError, match="still at work"):
            end_orphan(tmp_path, patience=1, grace=0.1)
    assert stranger.poll() is None


def test_a_kernel_of_a_dead_driver_does_not_begin(tmp_path, monkeypatch):
    """A kernel whose driver was followed by another one does not start to work."""
    run = open_run(tmp_path / "run")
    monkeypatch.setenv("MINICOIL_DRIVER", f"4194000:{run.dir}")
    refused = pytest.raises(UserError, match="no longer holds")
    with locked(run.dir / ".driver.lock", ""), refused, run.working("corpus"):
        pass


def test_workers_end_with_their_kernel(tmp_path):
    """When a killed kernel's lock is free, its workers write no more: the folder may be cleared."""
    (tmp_path / "slowly.py").write_text(
        "import pathlib, time\n"
        "def write(shard, folder):\n"
        "    for i in range(1000):\n"
        "        (pathlib.Path(folder) / f'{shard}-{i}').touch()\n"
        "        time.sleep(0.01)\n"
    )
    (tmp_path / "out").mkdir()
    program = (
        "import sys\n"
        "from minicoil.runs.engine import map_shards\n"
        "from minicoil.runs.run import open_run\n"
        "with open_run(sys.argv[1]).working('corpus'):\n"
        "    map_shards('slowly:write', [0, 1], sys.argv[1] + '/out', jobs=2)\n"
    )
    kernel = python(program, tmp_path, wait=False, PYTHONPATH=str(tmp_path))

    def written():
        return len(list((tmp_path / "out").iterdir()))

    wait_until(kernel, lambda: written() > 20, "work")
    kernel.kill()
    end_orphan(tmp_path)
    before = written()
    time.sleep(1)
    assert written() == before
