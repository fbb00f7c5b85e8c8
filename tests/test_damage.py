"""Damage.

Whatever happens to a file, the next call makes the same bytes, or names the file and the command that repairs
it.
"""

import os
import random
import re
import shutil
import time

import pytest
from chains import TO_MODEL, copy_before, digests, work
from faults import RESULT, files_of, made, whole_copy
from trials import hand_over, row

import minicoil
from minicoil.runs.files import UserError
from minicoil.runs.manifest import Stage
from minicoil.runs.run import open_run


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
    """The next call makes the model of an undisturbed run, or names the damaged file and a command.

    The command then repairs it.
    """
    try:
        work(open_run(folder), *TO_MODEL)
    except UserError as e:
        said = str(e)
        assert str(damaged) in said, said
        assert "\n" not in said, said
        mend = re.search(r"--from (\w+)", said)
        assert mend, said
        assert mend[1] == stage, said
        work(open_run(folder, redo_from=mend[1]), *TO_MODEL)
        assert digests(folder / "23_model") == model
        return "named"
    assert digests(folder / "23_model") == model, (
        f"{damaged.name} damaged, and another model came out without a word"
    )
    return "same bytes"


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("stage", TO_MODEL)
def test_damage_to_a_finished_stage_is_noticed(small, tmp_path, stage, kind):
    """A file of a finished stage that is cut, changed, deleted or swapped is named by the next call."""
    run, _ = small
    folder = whole_copy(run, tmp_path / "run")
    for path in files_of(folder / RESULT[stage]):
        if path.name == "README.md" or path.stat().st_size == 0:
            continue  # the card is made anew whenever something is known that it should say
        raw = path.read_bytes()
        DAMAGES[kind](path, random.Random(f"{stage}{kind}{path.name}"))
        if not path.exists() or path.read_bytes() != raw:
            with pytest.raises(UserError, match=rf"{re.escape(str(path))} .*--from {stage} ") as e:
                _ = open_run(folder).stage(stage).done
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
            _ = open_run(folder).stage(stage).done
        shutil.rmtree(folder)


def interrupted(source, stage, target):
    """A copy of a run in which `stage` was killed after its files and its journal, before its manifest."""
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


@pytest.mark.parametrize(
    "stage, kind",
    list(
        zip(
            TO_MODEL,
            [
                "truncate",
                "flip_a_bit",
                "swap_in_another",
                "truncate",
                "delete",
                "flip_a_bit",
                "swap_in_another",
            ],
        )
    ),
)
def test_damage_to_a_stage_at_work(small, tmp_path, stage, kind):
    """A shard damaged while its stage is interrupted is made anew or named, never built into a model."""
    run, model = small
    folder = interrupted(run, stage, tmp_path / "run")
    files = [f for f in files_of(folder / RESULT[stage]) if f.name != "written.txt" and f.stat().st_size]
    damaged = random.Random(f"{stage}{kind}").choice(files)
    DAMAGES[kind](damaged, random.Random(0))
    assert finish_or_name(folder, damaged, model, stage)


def test_killed_between_journal_and_rename(small, tmp_path, monkeypatch):
    """A kill after a shard was written down and before it got its name is finished by the next call.

    The shard is made, not missed.
    """
    run, model = small
    for stage in ("targets", "training"):
        folder = copy_before(run, stage, tmp_path / stage)

        def killed(path, temporary, real=minicoil.runs.files.write_down):
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
    named, anew = seen.count("named"), seen.count("same bytes")
    print(f"{stage}: {len(seen)} damages, {named} named, {anew} made anew, 0 unnoticed")


def test_without_checks_damage_would_go_unseen(small, tmp_path, monkeypatch):
    """The proof that these tests can fail.

    Without the journal and the checksums a changed bit becomes another model, and is found out.
    """
    run, model = small
    folder = interrupted(run, "training", tmp_path / "run")
    damaged = min((folder / "22_training").glob("part-*.npy"))
    raw = bytearray(damaged.read_bytes())
    raw[-1] ^= 0x40  # an exponent
    damaged.write_bytes(raw)
    monkeypatch.setattr(Stage, "check", lambda *a, **k: None)
    with pytest.raises(AssertionError, match="without a word"):
        finish_or_name(folder, damaged, model, "training")


def test_a_clock_that_goes_back(small, tmp_path):
    """Files from the future and a clock that has gone back change nothing.

    What is done stays done, what is not is made with the same bytes.
    """
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
    assert (folder / "12_targets" / "manifest.json").stat().st_mtime > 3.9e9, (
        "a finished stage was done again"
    )
