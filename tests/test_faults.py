"""Damage, full disks, wrong clocks, unwritable folders, Ctrl-C, signals: the next call ends in the same bytes, or says which file is damaged and what mends it."""
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
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
    start,
    starts,
    wait_until,
    with_notebooks,
    work,
)
from trials import hand_over, row, table

import minicoil
from minicoil.commands.commands import command_embed
from minicoil.runs.files import UserError, checksum
from minicoil.runs.manifest import Stage
from minicoil.runs.run import STAGES, open_run, stages_from

RESULT = {stage: folder for stage, (folder, _) in STAGES.items()}
AFTER_MODEL = stages_from("atlas")


@pytest.fixture(autouse=True)
def no_process_left():
    yield
    end_all()


@pytest.fixture(scope="module")
def small(tiny_run):
    """The tiny run with the digests of its model, as (folder, digests)."""
    return tiny_run, digests(tiny_run / "23_model")


def whole_copy(source, target):
    """A copy of a run with every stage as it stands, but without the embedded engine's files, which are large and read by the stage store only."""
    return shutil.copytree(source, target, ignore=shutil.ignore_patterns(".*.lock", "log.txt", *(["qdrant"] if (source / "13_store" / "manifest.json").exists() else [])))


def files_of(folder):
    """The files of a stage's folder that a later stage may read: not its manifest, not the embedded engine's."""
    return sorted(f for f in folder.rglob("*") if f.is_file() and "qdrant" not in f.parts and f.name != "manifest.json" and not f.name.startswith("uploaded-"))


# Damage

def truncate(path, rng):
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])


def flip_a_bit(path, rng):
    raw = bytearray(path.read_bytes())
    raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    path.write_bytes(raw)


def delete(path, rng):
    path.unlink()


def swap_in_another(path, rng):
    """The file of a run with another content: as long, and readable where it can be."""
    raw = bytearray(path.read_bytes())
    if len(raw) > 400:  # the header stays, so that it opens; the rest is turned around
        raw[200:] = raw[200:][::-1]
    else:
        raw = bytearray(b"7" * len(raw))
    path.write_bytes(raw)


DAMAGES = {f.__name__: f for f in (truncate, flip_a_bit, delete, swap_in_another)}


def finish_or_name(folder, damaged, model, stage):
    """The next call makes the model of an undisturbed run, or names the damaged file and the command that mends it; that command then does."""
    try:
        work(open_run(folder), *TO_MODEL)
    except UserError as e:
        said = str(e)
        assert str(damaged) in said and "\n" not in said, said
        mend = re.search(r"--from (\w+)", said)
        assert mend and mend[1] == stage, said
        work(open_run(folder, redo_from=mend[1]), *TO_MODEL)
        assert digests(folder / "23_model") == model
        return "named"
    assert digests(folder / "23_model") == model, f"{damaged.name} damaged, and another model came out without a word"
    return "same bytes"


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("stage", TO_MODEL)
def test_damage_to_a_finished_stage_is_noticed(small, tmp_path, stage, kind):
    """A file of a finished stage that is cut, changed by a bit, deleted or exchanged is named by the next call."""
    run, _ = small
    folder = whole_copy(run, tmp_path / "run")
    for path in files_of(folder / RESULT[stage]):
        if path.name == "README.md" or path.stat().st_size == 0:
            continue  # the card is made anew whenever something is known that it should say
        raw = path.read_bytes()
        DAMAGES[kind](path, random.Random(f"{stage}{kind}{path.name}"))
        if not path.exists() or path.read_bytes() != raw:
            with pytest.raises(UserError, match=rf"{re.escape(str(path))} .*--from {stage} ") as e:
                open_run(folder).stage(stage).done
            assert "\n" not in str(e.value)
        path.write_bytes(raw)


@pytest.mark.parametrize("kind", ["truncate", "flip_a_bit", "swap_in_another"])
def test_damage_to_a_manifest_is_noticed(small, tmp_path, kind):
    """A manifest that is cut or changed is named; a changed figure in it decides nothing."""
    run, model = small
    for stage in TO_MODEL:
        folder = whole_copy(run, tmp_path / stage)
        path = folder / RESULT[stage] / "manifest.json"
        DAMAGES[kind](path, random.Random(f"{stage}{kind}"))
        with pytest.raises(UserError, match=rf"{re.escape(str(path))} is damaged.*--from {stage} "):
            open_run(folder).stage(stage).done
        shutil.rmtree(folder)


def interrupted(source, stage, target):
    """A copy of a run in which `stage` has written its files but was killed before its manifest, as its journal says."""
    folder = copy_before(source, stage, target)
    real, Stage.finish = Stage.finish, lambda self, **facts: (_ for _ in ()).throw(KeyboardInterrupt)
    try:
        work(open_run(folder), stage)
    except KeyboardInterrupt:
        pass
    finally:
        Stage.finish = real
    assert not (folder / RESULT[stage] / "manifest.json").exists()
    return folder


@pytest.mark.parametrize("stage, kind", list(zip(TO_MODEL, ["truncate", "flip_a_bit", "swap_in_another", "truncate", "delete", "flip_a_bit", "swap_in_another"])))
def test_damage_to_a_stage_at_work(small, tmp_path, stage, kind):
    """A shard damaged while its stage is interrupted is made anew or named, never built into a model."""
    run, model = small
    folder = interrupted(run, stage, tmp_path / "run")
    files = [f for f in files_of(folder / RESULT[stage]) if f.name != "written.txt" and f.stat().st_size]
    damaged = random.Random(f"{stage}{kind}").choice(files)
    DAMAGES[kind](damaged, random.Random(0))
    assert finish_or_name(folder, damaged, model, stage)


def test_killed_between_journal_and_rename(small, tmp_path, monkeypatch):
    """A kill after a shard was written down and before it got its name is finished by the next call: the shard is made, not missed."""
    run, model = small
    for stage in ("targets", "training"):
        folder, real = copy_before(run, stage, tmp_path / stage), minicoil.runs.files.write_down

        def killed(path, temporary):
            real(path, temporary)
            if path.name.startswith(("part-", "quality-0")):
                raise KeyboardInterrupt

        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(minicoil.runs.files, "write_down", killed)
            work(open_run(folder), stage)
        work(open_run(folder), *TO_MODEL[: TO_MODEL.index("training") + 1])
        assert made(folder, "training") == made(run, "training")


@pytest.mark.slow
@pytest.mark.parametrize("stage", TO_MODEL[:-1])
def test_damage_to_every_file_of_a_stage_at_work(small, tmp_path, stage, record_property):
    """The same for every file and every kind of damage."""
    run, model = small
    folder, seen = interrupted(run, stage, tmp_path / "first"), []
    for path in files_of(folder / RESULT[stage]):
        for kind, damage in DAMAGES.items():
            if path.name == "written.txt" or not path.stat().st_size:
                continue
            copy = whole_copy(folder, tmp_path / "run")
            damaged = copy / path.relative_to(folder)
            damage(damaged, random.Random(kind))
            seen.append(finish_or_name(copy, damaged, model, stage))
            shutil.rmtree(copy)
    hand_over(record_property, row(stage, "damaged at work", len(seen), named=seen.count("named")))
    print(f"{stage}: {len(seen)} damages, {seen.count('named')} named, {seen.count('same bytes')} made anew, 0 unnoticed")


def test_without_checks_damage_would_go_unseen(small, tmp_path, monkeypatch):
    """The proof that these tests can fail: without the journal and the checksums a changed bit becomes another model, and is found out."""
    run, model = small
    folder = interrupted(run, "training", tmp_path / "run")
    damaged = next((folder / "22_training").glob("part-*.npy"))
    raw = bytearray(damaged.read_bytes())
    raw[-1] ^= 0x40  # an exponent
    damaged.write_bytes(raw)
    monkeypatch.setattr(Stage, "check", lambda *a, **k: None)
    with pytest.raises(AssertionError, match="without a word"):
        finish_or_name(folder, damaged, model, "training")


# A full disk

@pytest.fixture
def full_disk(tmp_path):
    """A maker of folders on a disk of so many bytes; skipped where nothing may be mounted."""
    mounted = []

    def make(size):
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)])


IN_PROCESS = """
import sys
from minicoil.commands import pipeline
from minicoil.runs.run import open_run, stage_function
import os
code = 0
def stages():
    run = open_run(sys.argv[1])
    for stage in sys.argv[2].split(","): stage_function(stage)(run)
pipeline.app = lambda **_: stages()
pipeline.main([])
"""


def uncovered():
    """The environment for a process whose files may not grow: `make coverage` would have it write some."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}


def in_process(folder, stages, **options):
    """Stages without kernels, in a process that ends as the command does: (exit code, stderr)."""
    done = subprocess.run([sys.executable, "-c", IN_PROCESS, str(folder), ",".join(stages)], capture_output=True, text=True, **options)
    return done.returncode, done.stderr


def one_line(errors):
    """The lines on stderr that are not a progress bar's or a library's warning."""
    return [line for line in errors.replace("\r", "\n").splitlines() if line.startswith("minicoil:") or "Traceback" in line or "panicked" in line]


@pytest.mark.parametrize("stage", ["targets", *(pytest.param(stage, marks=pytest.mark.slow) for stage in TO_MODEL if stage != "targets")])
def test_a_full_disk(small, tmp_path, full_disk, stage):
    """On a disk that is full a stage ends with exit code 2 and one line; with room again, the next call makes the same model."""
    run, model = small
    disk = full_disk("400m")
    folder = copy_before(run, stage, disk / "run")
    if stage != "store":
        shutil.rmtree(folder / "13_store" / "qdrant", ignore_errors=True)
    free = shutil.disk_usage(disk).free
    with open(disk / "filler", "wb") as f:
        f.write(b"\0" * (free - 8192))
    code, errors = in_process(folder, [stage])
    assert code == 2 and len(one_line(errors)) == 1 and "make room" in errors, errors[-1500:]
    (disk / "filler").unlink()
    work(open_run(folder), *TO_MODEL)
    assert digests(folder / "23_model") == model


@pytest.mark.parametrize("room", [0, 100, 200, 4000, 4100, 9000])
def test_half_an_array_is_no_array(tmp_path, room):
    """An array that finds no room, or room for a part of it, is an error, and no file: numpy alone would leave the part without a word."""
    import numpy as np
    save = f"import resource, numpy as np; from minicoil.runs.files import save_npy; resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room})); save_npy({str(tmp_path / 'x.npy')!r}, np.ones(1200))"
    done = subprocess.run([sys.executable, "-c", save], capture_output=True, text=True, env=uncovered())
    assert done.returncode == 1 and "File too large" in done.stderr and not list(tmp_path.iterdir()), done.stderr[-500:]
    minicoil.runs.files.save_npy(tmp_path / "x.npy", np.asfortranarray(np.arange(6.0).reshape(2, 3)))
    assert np.load(tmp_path / "x.npy").tolist() == [[0, 1, 2], [3, 4, 5]]


def test_no_file_without_its_line_in_the_journal(tmp_path):
    """A file whose checksum finds no room in the journal gets no name: it could not be told from a damaged one."""
    journal = tmp_path / minicoil.runs.files.JOURNAL
    journal.write_bytes(b"x" * 590)
    save = f"import resource; from minicoil.runs.files import save_json; resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600)); save_json({str(tmp_path / 'x.json')!r}, 1)"
    done = subprocess.run([sys.executable, "-c", save], capture_output=True, text=True, env=uncovered())
    assert done.returncode == 1 and "File too large" in done.stderr and list(tmp_path.iterdir()) == [journal], done.stderr[-500:]


@pytest.mark.parametrize("stage", ["training", *(pytest.param(stage, marks=pytest.mark.slow) for stage in TO_MODEL if stage not in ("store", "training"))])
def test_a_file_that_may_not_grow(small, tmp_path, stage):
    """Where files may not grow (a quota, without a mount) a stage ends with exit code 2 and one line, and the next call makes the same model. (The engine of stage store writes its files at their full size.)"""
    run, model = small
    folder = copy_before(run, stage, tmp_path / "run")
    code, errors = in_process(folder, [stage], preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600)), env=uncovered())
    assert code == 2 and len(one_line(errors)) == 1 and "make room" in errors, errors[-1500:]
    work(open_run(folder), *TO_MODEL)
    assert digests(folder / "23_model") == model


# A wrong clock, folders that nobody may write, Ctrl-C

def test_a_clock_that_goes_back(small, tmp_path):
    """Files from the future and a clock that has gone back change nothing: what is done stays done, what is not is made with the same bytes."""
    run, model = small
    folder = copy_before(run, "senses", tmp_path / "run")
    for i, path in enumerate(folder.rglob("*")):
        os.utime(path, (4e9 - i, 4e9 - i))  # in the year 2096, each file before the last
    real = time.time
    time.time = lambda: real() - 10 * 365 * 86400
    try:
        work(open_run(folder), *TO_MODEL)
    finally:
        time.time = real
    assert digests(folder / "23_model") == model
    assert (folder / "12_targets" / "manifest.json").stat().st_mtime > 3.9e9, "a finished stage was done again"


@pytest.mark.parametrize("command_line", ["run", "embed", pytest.param("add-words", marks=pytest.mark.slow)])
def test_a_folder_that_nobody_may_write(small, full_disk, tmp_path, command_line):
    """On a disk mounted read-only a command ends in one line with exit code 2, and every file stays as it was. (Modes would not do: root ignores them.)"""
    run, _ = small
    disk = full_disk("400m")
    folder = with_notebooks(copy_before(run, "model", disk / "run"))
    shutil.copytree(run / "23_model", disk / "model")
    (disk / "texts.txt").write_text("a bat\n")
    corpus = json.loads((run / "run.json").read_text())["parameters"]["corpus"][0]
    wanted = {"run": ["run", "--out", folder, "--until", "model"], "embed": ["embed", "--model", disk / "model", "--out", disk / "vectors.jsonl", disk / "texts.txt"],
              "add-words": ["add-words", "--model", disk / "model", "--words", "seal", "--corpus", corpus]}[command_line]
    before = digests(disk)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    code, errors = finish(start([command("x")[0], *map(str, wanted)]))
    assert code == 2 and len(one_line(errors)) == 1 and str(disk) in errors, errors
    assert digests(disk) == before


def test_ctrl_c(small, tmp_path):
    """Ctrl-C ends a run within five seconds, with one line that says how to go on; the same command then makes the same model."""
    run, model = small
    folder = with_notebooks(copy_before(run, "targets", tmp_path / "run"))
    process = start(command(folder, "--until", "model"))
    wait_until(process, lambda: starts(folder, "targets"), "targets at work")
    begin = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    code, errors = finish(process, 60)
    took = time.monotonic() - begin
    print(f"Ctrl-C: over after {took:.1f} s")
    assert code == 130 and took < 5 * max(1, os.getloadavg()[0] / os.cpu_count()), (code, took, errors[-800:])
    assert "the same command goes on where it was" in errors and "Traceback" not in errors, errors
    code, errors = finish(start(command(folder, "--until", "model")))
    assert code == 0 and digests(folder / "23_model") == model, errors


def test_ctrl_c_beside_a_dying_kernel(small, tmp_path):
    """A kernel that dies of the same Ctrl-C leaves a task whose exception nobody takes: asyncio's traceback of it does not reach the user."""
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
    assert done.returncode == 130 and "the same command goes on where it was" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and "Kernel died" not in done.stderr, done.stderr


# Signals at random moments, in every stage and in every command that writes

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
        announce(commands, "decoded")
        commands.command_embed(Path(given[1]), Path(given[0]), False, "jsonl", Path(given[2]), "float32", 32)
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
    """A process that has everything imported and no thread, and forks a child for each trial: loading torch a hundred times would be most of the work."""
    process = subprocess.Popen([sys.executable, "-c", NURSERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout.readline() == "ready\n"
    yield process
    process.stdin.close()
    process.wait(60)


def signalled(nursery, how, seconds, *task):
    """Let a child do a task, let it begin, send it a signal after `seconds`; True if that is what ended it."""
    nursery.stdin.write(json.dumps([str(t) if isinstance(t, Path) else t for t in task]) + "\n")
    nursery.stdin.flush()
    pid = None
    for line in nursery.stdout:
        what, _, number = line.strip().partition(" ")
        if what == "pid":
            pid = int(number)
        elif what == "begun":
            time.sleep(seconds)
            try:
                os.kill(pid, how)
            except ProcessLookupError:
                pass
        elif what == "over":
            return int(number) == how


def half_files(folder):
    """Files under a final name that do not open."""
    import numpy as np
    import pyarrow.parquet as pq
    bad = []
    for path in folder.rglob("*"):
        if not path.is_file() or path.name.startswith(".") or "qdrant" in path.parts:
            continue
        try:
            {".npy": lambda: np.load(path), ".parquet": lambda: pq.read_table(path), ".json": lambda: json.loads(path.read_text())}.get(path.suffix, lambda: None)()
        except Exception as e:
            bad.append(f"{path.name}: {type(e).__name__}")
    return bad


def made(folder, last):
    """Digests of what a run has made: the model, or where its making is not what is tried, the encoders and the draw; the files of a later stage, without the times in the report of stage export and the model's card, which says what is known by then."""
    if last == "training":
        return [digests(folder / "13_store")["drawn.parquet"], *(digests(folder / "22_training")[name] for name in ("encoders.safetensors", "quality.json"))]
    files = digests(folder / RESULT[last]) if last in AFTER_MODEL else {}
    timed = ("report.json", "manifest.json") if last == "export" else ()
    return {name: digest for name, digest in [*digests(folder / "23_model").items(), *files.items()] if name not in timed and (last == "model" or name != "README.md")}


def stage_trial(run, nursery, stage, how, rng, folder, longest, before=None):
    """One kill in a stage: (it counted, lost, wrong). `run` is the undisturbed run, `before` one that stands before the stage, if that is not to be cut out of `run`."""
    copy, last = copy_before(before or run, stage, folder / "run"), stage if stage in ("model", *AFTER_MODEL) else "training"
    alive = signalled(nursery, how, rng.random() ** 2 * longest, stage, copy) and not (copy / RESULT[stage] / "manifest.json").exists()
    wrong = bool(half := half_files(copy))
    if half:
        print(stage, how.name, "half files", half)
    try:
        work(open_run(copy), *([stage] if stage in AFTER_MODEL else TO_MODEL[: TO_MODEL.index(last) + 1]))
        lost = False
    except UserError as e:
        print(stage, how.name, e)
        lost = True
    if not lost and (now := made(copy, last)) != (then := made(run, last)):
        wrong = True
        print(stage, how.name, "differs in", sorted(set(now.items()) ^ set(then.items())) if last != "training" else (now, then))
    shutil.rmtree(copy)
    return alive, lost, wrong


def trials(trial, kind, how, count, seed):
    """Trials of one kind until `count` have counted, as a row of the table; `trial(kind, how)` is (it counted, lost, wrong)."""
    done = row(kind, how.name, seed=seed)
    for _ in range(6 * count):
        if done["count"] == count:
            break
        alive, lost, wrong = trial(kind, how)
        done = {**done, "count": done["count"] + alive, "lost": done["lost"] + lost, "wrong": done["wrong"] + wrong}
    return done


def command_trial(run, nursery, kind, how, rng, folder, longest):
    """One kill in add-words or embed: (it counted, lost, wrong); the model, or the file, is the old one or the new one, and the next call makes the new one."""
    if kind == "embed":
        texts, out = folder / "texts.txt", folder / "vectors.jsonl"
        if not texts.exists():
            texts.write_text("a bat in a cave by the bank\n" * 4000)
        out.write_text("before\n")
        alive = signalled(nursery, how, rng.random() * longest, "embed", run / "23_model", texts, out)
        now = out.read_text()
        command_embed(texts, run / "23_model", False, "jsonl", out, "float32", 32)
        EMBEDDED.append(checksum(out))
        wrong = now != "before\n" and len(now.splitlines()) != 4000 or len(set(EMBEDDED)) > 1 or out.read_text().count("\n") != 4000
        for litter in folder.glob(".*.tmp"):
            litter.unlink()
        return alive and now == "before\n", False, wrong
    from minicoil.commands.words import add_words
    target, corpus = folder / "model", json.loads((run / "run.json").read_text())["parameters"]["corpus"]
    shutil.copytree(run / "23_model", target)
    old = digests(target)
    alive = signalled(nursery, how, rng.random() * longest, "add-words", target, corpus)
    now = digests(target) if target.exists() else None
    if now in (None, old):
        add_words(target, ["seal"], corpus)
        wrong = digests(target) == old
    else:
        wrong = False
    ADDED.append(json.dumps(digests(target), sort_keys=True))
    wrong |= len(set(ADDED)) > 1
    shutil.rmtree(target)
    return alive and now in (None, old), False, wrong


ADDED, EMBEDDED = [], []  # what every trial has ended in: all the same


def test_a_few_signals(small, nursery, tmp_path, record_property):
    """Killed and terminated at a random moment, a stage is finished by the next call with the same bytes."""
    seed = time.time_ns() % 1000
    rng = random.Random(seed)
    trial = lambda kind, how: stage_trial(small[0], nursery, kind, how, rng, tmp_path, {"senses": 0.3, "corpus": 0.01}[kind])
    rows = [trials(trial, "senses", signal.SIGKILL, 1, seed), trials(trial, "corpus", signal.SIGTERM, 1, seed)]
    hand_over(record_property, *rows)
    print(f"seed {seed}\n{table(rows)}")
    assert not any(r["lost"] or r["wrong"] for r in rows)


LONGEST = {"corpus": 0.02, "sentences": 0.3, "targets": 1.5, "store": 0.4, "senses": 0.5, "tokens": 0.3, "training": 0.3, "model": 2.0, "add-words": 3.0, "embed": 1.0, "atlas": 0.2, "export": 5.0, "search": 3.0, "benchmark": 4.0}


def all_trials(trial, kinds, counts, record_property):
    """Both signals for every kind, each row printed as it is there; returns the rows. MINICOIL_SEED repeats a seed."""
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
    """A hundred kills and terminations at random moments, at least five of each in every stage until the model, in add-words and in embed: nothing is lost, nothing is wrong."""
    run, kinds = small[0], [*TO_MODEL, "add-words", "embed"]
    trial = lambda kind, how, rng: (stage_trial if kind in RESULT else command_trial)(run, nursery, kind, how, rng, tmp_path, LONGEST[kind])
    rows = all_trials(trial, kinds, {"targets": 8, "training": 8}, record_property)
    assert sum(r["count"] for r in rows) >= 100 and min(r["count"] for r in rows) >= 5
    assert not any(r["lost"] or r["wrong"] for r in rows)


@pytest.mark.slow
def test_forty_signals_after_the_model(small, nursery, tmp_path, record_property):
    """Forty more in the stages after the model, five of each signal in every stage: the stage's files and the model come out the same."""
    whole = work(open_run(whole_copy(small[0], tmp_path / "whole")), *AFTER_MODEL).dir
    before = {"export": small[0]}  # as it stands before that stage has added to the model
    trial = lambda kind, how, rng: stage_trial(whole, nursery, kind, how, rng, tmp_path, LONGEST[kind], before.get(kind))
    rows = all_trials(trial, AFTER_MODEL, {}, record_property)
    assert min(r["count"] for r in rows) >= 5 and not any(r["lost"] or r["wrong"] for r in rows)


# Code that is broken on purpose

def test_on_disk_before_it_has_its_name(small, tmp_path, monkeypatch):
    """Whatever a stage renames is another file's whole bytes, forced to disk before, and the folder is forced to disk after: a power cut leaves no empty file under a final name."""
    run, _ = small
    folder, synced, wrong, unsynced = copy_before(run, "targets", tmp_path / "run"), set(), [], set()
    fsync, replace = os.fsync, os.replace

    def seen_fsync(handle):
        synced.add(os.fstat(handle).st_ino)
        unsynced.discard(os.fstat(handle).st_ino)
        fsync(handle)

    def seen_replace(source, target):
        if Path(source) == Path(target) or os.stat(source).st_ino not in synced:
            wrong.append(str(target))
        replace(source, target)
        synced.discard(os.stat(target).st_ino)
        unsynced.add(os.stat(Path(target).parent).st_ino)
        renamed.append(str(target))

    renamed = []
    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(os, "replace", seen_replace)
    work(open_run(folder, jobs=1), *TO_MODEL)
    assert not wrong and not unsynced, (wrong, unsynced)
    final = {str(f) for stage in TO_MODEL[2:] for f in files_of(folder / RESULT[stage])}
    assert len(renamed) > 20 and final <= set(renamed), final - set(renamed)


BROKEN = {
    "a rename without its fsync": ("runs/files.py", "            os.fsync(f.fileno())\n        write_down", "            pass\n        write_down", "test_on_disk_before_it_has_its_name"),
    "a file written under its final name": ("runs/files.py", 'temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")', "temporary = path", "test_on_disk_before_it_has_its_name"),
    "a shard skipped on resuming": ("stages/training.py", 'if (out / f"quality-{number:05d}.json").exists():', 'if f"part-{number:05d}.npy" in (out / "written.txt").read_text():', "test_killed_between_journal_and_rename"),
    "damage that is not looked for": ("runs/manifest.py", "known_checksum(path) not in checksums", "False", "test_damage_to_a_stage_at_work"),
}


def outcome(package, tests, tiny):
    """pytest's exit code of tests of this file, on a copy of the package, and the end of what it said."""
    environment = {**os.environ, "PYTHONPATH": str(package.parent), "MINICOIL_TEST_TINY": str(tiny), "MINICOIL_RECORD": ""}
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *(f"{__file__}::{test}" for test in tests)], capture_output=True, text=True, env=environment, cwd=package.parent)
    return done.returncode, done.stdout[-1500:]


@pytest.mark.slow
@pytest.mark.parametrize("broken", [None, *BROKEN], ids=lambda b: (b or "whole").replace(" ", "-"))
def test_a_broken_resume_makes_the_suite_red(small, tmp_path, broken):
    """The proof that these tests can fail: with the code broken in one place a test is red that is green with it whole."""
    package = shutil.copytree(Path(minicoil.__file__).parent, tmp_path / "minicoil", ignore=shutil.ignore_patterns("__pycache__"))
    if broken is None:
        code, said = outcome(package, sorted({test for *_, test in BROKEN.values()}), small[0])
        assert code == 0, said
        return
    file, old, new, test = BROKEN[broken]
    source = (package / file).read_text()
    assert source.count(old) == 1, f"{old!r} is no longer in {file}: break it where it is now"
    (package / file).write_text(source.replace(old, new))
    code, said = outcome(package, [test], small[0])
    assert code == 1 and "1 failed" in said, said


def test_a_half_file_is_seen(small, tmp_path):
    """The proof that the trials' look for half files can fail."""
    (tmp_path / "part-00000.npy").write_bytes(b"\x93NUMPY half a shard")
    shutil.copy(small[0] / "23_model" / "minicoil.json", tmp_path)
    assert [name.split(":")[0] for name in half_files(tmp_path)] == ["part-00000.npy"]
