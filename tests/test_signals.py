"""Ctrl-C, and signals at random moments in every stage and in every command that writes."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from chains import (
    TO_MODEL,
    command,
    copy_before,
    digests,
    end_all,
    finish,
    start,
    starts,
    wait_until,
    with_notebooks,
    work,
)
from faults import AFTER_MODEL, RESULT, half_files, made, whole_copy
from trials import hand_over, row, table

from minicoil.commands.commands import command_embed
from minicoil.commands.words import add_words
from minicoil.runs.files import UserError, checksum
from minicoil.runs.run import open_run


@pytest.fixture(autouse=True)
def no_process_left():
    yield
    end_all()


def test_ctrl_c(small, tmp_path):
    """Ctrl-C ends a run within five seconds, with one line that says how to go on.

    The command called again does the stage anew, and all that comes of it is the same model. On a machine
    that is busy it may take longer: as many times as there are processes for each core, or as long as the run
    took from its start to the stage.
    """
    run, model = small
    folder = with_notebooks(copy_before(run, "targets", tmp_path / "run"))
    first = time.monotonic()
    process = start(command(folder, "--until", "model"))
    wait_until(process, lambda: starts(folder, "targets"), "targets at work")
    begin = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    code, errors = finish(process)
    took = time.monotonic() - begin
    print(f"Ctrl-C: over after {took:.1f} s")
    assert code == 130, (code, took, errors[-800:])
    busy = max(1, os.getloadavg()[0] / len(os.sched_getaffinity(0)))
    assert took < max(5 * busy, begin - first), (code, took, begin - first, busy, errors[-800:])
    assert "the same command goes on where it was" in errors, errors
    assert "Traceback" not in errors, errors
    code, errors = finish(start(command(folder, "--until", "targets")))
    assert code == 0, errors
    work(open_run(folder), *TO_MODEL[TO_MODEL.index("targets") :])  # without a kernel for each stage
    assert digests(folder / "23_model") == model, errors


def test_ctrl_c_beside_a_dying_kernel(small, tmp_path):
    """A kernel that dies of the same Ctrl-C leaves a task whose exception nobody takes.

    Asyncio's traceback of it does not reach the user.
    """
    folder = with_notebooks(copy_before(small[0], "targets", tmp_path / "run"))
    script = textwrap.dedent("""
        import asyncio, papermill, sys
        from minicoil.commands.pipeline import main
        async def dies():
            raise RuntimeError("Kernel died")
        def interrupted(*_, **__):
            loop = asyncio.new_event_loop()
            loop.task = loop.create_task(dies())
            loop.run_until_complete(asyncio.sleep(0.1))
            raise KeyboardInterrupt
        papermill.execute_notebook = interrupted
        main(["run", "--out", sys.argv[1]])
    """)
    done = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True)
    assert done.returncode == 130, done.stderr
    assert "the same command goes on where it was" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert "Kernel died" not in done.stderr, done.stderr


NURSERY = """
import json, os, sys
from pathlib import Path
import torch, sentence_transformers, onnxruntime, qdrant_edge, pyarrow.parquet
import minicoil.commands.commands as commands, minicoil.commands.words as words
import minicoil.runs.manifest, minicoil.stages.model, minicoil.stages.training
from minicoil.runs.run import open_run, stage_function

def say(what):
    os.write(1, what.encode() + b"\\n")

def announce(module, name):
    "Say `begun` when a function is called"
    real = getattr(module, name)
    def called(*a, **k):
        say("begun")
        return real(*a, **k)
    setattr(module, name, called)

def work(kind, *given):
    if kind == "embed":
        announce(commands, "texts_of")
        commands.command_embed(given[1], given[0], False, "jsonl", given[2], "float32", 32, False, None)
    elif kind == "add-words":
        announce(words, "train_new")
        words.add_words(given[0], ["seal"], given[1])
    else:
        announce(minicoil.runs.manifest.Stage, "begin")
        stage_function(kind)(open_run(given[0]))

say("ready")
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        try:
            say(f"pid {os.getpid()}")
            work(*json.loads(line))
            os._exit(0)
        except BaseException as e:
            print(repr(e), file=sys.stderr)
            os._exit(1)
    say(f"over {os.waitpid(pid, 0)[1]}")
"""


@pytest.fixture
def nursery():
    """A process that has everything imported and no thread, and forks a child for each trial.

    Loading torch a hundred times would be most of the work.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", NURSERY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == "ready\n"
    yield process
    process.stdin.close()
    process.wait(600)


def signalled(nursery, how, seconds, *task):
    """Let a child do a task, let it begin, send it a signal after `seconds`;

    True if that is what ended it.
    """
    nursery.stdin.write(json.dumps([str(t) if isinstance(t, Path) else t for t in task]) + "\n")
    nursery.stdin.flush()
    pid = None
    for line in nursery.stdout:
        what, _, number = line.strip().partition(" ")
        if what == "pid":
            pid = int(number)
        elif what == "begun":
            time.sleep(seconds)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, how)
        elif what == "over":
            return int(number) == how


class Trial(NamedTuple):
    """What one signal did.

    Whether it hit before the work was done, whether work was lost, whether a result was wrong.
    """

    counted: bool
    lost: bool = False
    wrong: bool = False


def redo(copy, stages):
    """Do stages again after a signal; the `UserError` if that is refused."""
    try:
        work(open_run(copy), *stages)
    except UserError as e:
        return e


def stage_trial(run, nursery, stage, how, rng, folder, longest, before=None):
    """One kill in a stage.

    `run` is the undisturbed run, `before` one that stands before the stage, if that is not to be cut out of
    `run`.
    """
    copy = copy_before(before or run, stage, folder / "run")
    last = stage if stage in ("model", *AFTER_MODEL) else "training"
    hit = signalled(nursery, how, rng.random() ** 2 * longest, stage, copy)
    counted = hit and not (copy / RESULT[stage] / "manifest.json").exists()
    half = half_files(copy)
    refusal = redo(copy, [stage] if stage in AFTER_MODEL else TO_MODEL[: TO_MODEL.index(last) + 1])
    same = refusal is not None or made(copy, last) == made(run, last)
    if half or refusal or not same:
        print(stage, how.name, "half files:", half, "refusal:", refusal, "same bytes:", same)
    shutil.rmtree(copy)
    return Trial(counted, refusal is not None, bool(half) or not same)


EMBEDDED, ADDED = set(), set()  # what trials have ended in: one checksum each


def embed_trial(run, nursery, how, rng, folder, longest):
    """One kill in `embed`.

    The file is the old one or the new one, whole, and the next call makes the new one.
    """
    texts, out = folder / "texts.txt", folder / "vectors.jsonl"
    texts.write_text("a bat in a cave by the bank\n" * 4000)
    out.write_text("before\n")
    hit = signalled(nursery, how, rng.random() * longest, "embed", run / "23_model", texts, out)
    now = out.read_text()
    command_embed(str(texts), str(run / "23_model"), False, "jsonl", str(out), "float32", 32, False, None)
    EMBEDDED.add(checksum(out))
    whole = now == "before\n" or len(now.splitlines()) == 4000
    for litter in folder.glob(".*.tmp"):
        litter.unlink()
    wrong = not whole or len(EMBEDDED) > 1 or out.read_text().count("\n") != 4000
    return Trial(hit and now == "before\n", wrong=wrong)


def add_words_trial(run, nursery, how, rng, folder, longest):
    """One kill in `add-words`: the model is the old one or the new one; the next call makes the new one."""
    target = folder / "model"
    corpus = json.loads((run / "run.json").read_text())["parameters"]["corpus"]
    shutil.copytree(run / "23_model", target)
    old = digests(target)
    hit = signalled(nursery, how, rng.random() * longest, "add-words", target, corpus)
    unchanged = not target.exists() or digests(target) == old
    if unchanged:
        add_words(target, ["seal"], corpus)
    new = digests(target)
    ADDED.add(json.dumps(new, sort_keys=True))
    shutil.rmtree(target)
    return Trial(hit and unchanged, wrong=new == old or len(ADDED) > 1)


def any_trial(run, nursery, kind, how, rng, folder):
    """One kill in a stage or a command."""
    commands = {"embed": embed_trial, "add-words": add_words_trial}
    if kind in commands:
        return commands[kind](run, nursery, how, rng, folder, LONGEST[kind])
    return stage_trial(run, nursery, kind, how, rng, folder, LONGEST[kind])


def trials(trial, kind, how, count, seed):
    """Trials of one kind until `count` have counted, as a row of the table;

    `trial(kind, how)` gives a `Trial`.
    """
    done = row(kind, how.name, seed=seed)
    for _ in range(6 * count):
        if done["count"] == count:
            break
        found = trial(kind, how)
        done["count"] += found.counted
        done["lost"] += found.lost
        done["wrong"] += found.wrong
    return done


def test_a_few_signals(small, nursery, tmp_path, record_property):
    """Killed and terminated at a random moment, a stage is finished by the next call with the same bytes."""
    seed = time.time_ns() % 1000
    rng = random.Random(seed)
    longest = {"senses": 0.3, "corpus": 0.01}

    def trial(kind, how):
        return stage_trial(small[0], nursery, kind, how, rng, tmp_path, longest[kind])

    rows = [
        trials(trial, "senses", signal.SIGKILL, 1, seed),
        trials(trial, "corpus", signal.SIGTERM, 1, seed),
    ]
    hand_over(record_property, *rows)
    print(f"seed {seed}\n{table(rows)}")
    assert not any(r["lost"] or r["wrong"] for r in rows)


LONGEST = {
    "corpus": 0.02,
    "sentences": 0.3,
    "targets": 1.5,
    "store": 0.4,
    "senses": 0.5,
    "tokens": 0.3,
    "training": 0.3,
    "model": 2.0,
    "add-words": 3.0,
    "embed": 1.0,
    "atlas": 0.2,
    "export": 5.0,
    "search": 3.0,
    "benchmark": 4.0,
}


def all_trials(trial, kinds, counts, record_property):
    """Both signals for every kind, each row printed as it is there; returns the rows.

    MINICOIL_SEED repeats a seed.
    """
    seed, rows = int(os.environ.get("MINICOIL_SEED", time.time_ns() % 100_000)), []
    rng = random.Random(seed)
    print(f"seed {seed}", flush=True)
    for kind in kinds:
        for how in (signal.SIGKILL, signal.SIGTERM):
            rows.append(trials(lambda *what: trial(*what, rng), kind, how, counts.get(kind, 5), seed))
            hand_over(record_property, rows[-1])
            print(table(rows[-1:]).splitlines()[1], flush=True)
    return rows


@pytest.mark.slow
def test_a_hundred_signals(small, nursery, tmp_path, record_property):
    """A hundred kills and terminations at random moments: nothing is lost, nothing is wrong.

    At least five of each in every stage until the model, in add-words and in embed.
    """
    run, kinds = small[0], [*TO_MODEL, "add-words", "embed"]

    def trial(kind, how, rng):
        return any_trial(run, nursery, kind, how, rng, tmp_path)

    rows = all_trials(trial, kinds, {"targets": 8, "training": 8}, record_property)
    assert sum(r["count"] for r in rows) >= 100
    assert min(r["count"] for r in rows) >= 5
    assert not any(r["lost"] or r["wrong"] for r in rows)


@pytest.mark.slow
def test_forty_signals_after_the_model(small, nursery, tmp_path, record_property):
    """Forty more in the stages after the model, five of each signal in every stage.

    The stage's files and the model come out the same.
    """
    whole = work(open_run(whole_copy(small[0], tmp_path / "whole")), *AFTER_MODEL).dir
    before = {"export": small[0]}  # as it stands before that stage has added to the model

    def trial(kind, how, rng):
        return stage_trial(whole, nursery, kind, how, rng, tmp_path, LONGEST[kind], before.get(kind))

    rows = all_trials(trial, AFTER_MODEL, {}, record_property)
    assert min(r["count"] for r in rows) >= 5
    assert not any(r["lost"] or r["wrong"] for r in rows)


def test_a_half_file_is_seen(small, tmp_path):
    """The proof that the trials' look for half files can fail."""
    (tmp_path / "part-00000.npy").write_bytes(b"\x93NUMPY half a shard")
    shutil.copy(small[0] / "23_model" / "minicoil.json", tmp_path)
    assert [name.split(":")[0] for name in half_files(tmp_path)] == ["part-00000.npy"]
