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
import time
from pathlib import Path

import pytest

from chains import TO_MODEL, command, copy_before, digests, end_all, finish, start, starts, wait_until, with_notebooks, work
from minicoil.run import STAGES, Stage, UserError, open_run, stage_function

RESULT = {stage: STAGES[stage][0] for stage in TO_MODEL}


@pytest.fixture(autouse=True)
def no_process_left():
    yield
    end_all()


@pytest.fixture(scope="module")
def small(tiny_run):
    """The tiny run with the digests of its model, as (folder, digests)."""
    return tiny_run, digests(tiny_run / "23_model")


def whole_copy(source, target):
    """A copy of a run with every stage as it stands."""
    return shutil.copytree(source, target, ignore=shutil.ignore_patterns(".*.lock", "log.txt"))


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
    before = damaged.read_bytes() if damaged.exists() else None
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


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("stage", TO_MODEL[:-1])
def test_damage_to_a_stage_at_work(small, tmp_path, stage, kind):
    """A shard damaged while its stage is interrupted is made anew or named, never built into a model."""
    run, model = small
    folder = interrupted(run, stage, tmp_path / "run")
    files = [f for f in files_of(folder / RESULT[stage]) if f.name != "written.txt" and f.stat().st_size]
    damaged = random.Random(f"{stage}{kind}").choice(files)
    DAMAGES[kind](damaged, random.Random(0))
    assert finish_or_name(folder, damaged, model, stage)


@pytest.mark.slow
@pytest.mark.parametrize("stage", TO_MODEL[:-1])
def test_damage_to_every_file_of_a_stage_at_work(small, tmp_path, stage):
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
from minicoil import pipeline
from minicoil.run import open_run, stage_function
import os
code = 0
def stages():
    run = open_run(sys.argv[1])
    for stage in sys.argv[2].split(","): stage_function(stage)(run)
pipeline.app = lambda **_: stages()
pipeline.main([])
"""


def in_process(folder, stages, **options):
    """Stages without kernels, in a process that ends as the command does: (exit code, stderr)."""
    done = subprocess.run([sys.executable, "-c", IN_PROCESS, str(folder), ",".join(stages)], capture_output=True, text=True, **options)
    return done.returncode, done.stderr


def one_line(errors):
    """The lines on stderr that are not a progress bar's or a library's warning."""
    return [line for line in errors.replace("\r", "\n").splitlines() if line.startswith("minicoil:") or "Traceback" in line or "panicked" in line]


@pytest.mark.parametrize("stage", ["corpus", "sentences", "targets", "store", "senses", "tokens", "training", "model"])
def test_a_full_disk(small, tmp_path, full_disk, stage):
    """On a disk that is full a stage ends with exit code 2 and one line; with room again, the next call makes the same model."""
    run, model = small
    disk = full_disk("60m")
    folder = copy_before(run, stage, disk / "run")
    free = shutil.disk_usage(disk).free
    with open(disk / "filler", "wb") as f:
        f.write(b"\0" * (free - 8192))
    code, errors = in_process(folder, [stage])
    assert code == 2 and len(one_line(errors)) == 1 and "make room" in errors, errors[-1500:]
    (disk / "filler").unlink()
    work(open_run(folder), *TO_MODEL)
    assert digests(folder / "23_model") == model
