"""Code that is broken on purpose: the tests of damage, disk and signals are seen to fail."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from chains import TO_MODEL, copy_before, work
from faults import RESULT, files_of

import minicoil
from minicoil.runs.run import open_run

TESTS = Path(__file__).parent


def test_on_disk_before_it_has_its_name(small, tmp_path, monkeypatch):
    """Whatever a stage renames was forced to disk before, and the folder is forced to disk after.

    So a power cut leaves no empty file under a final name.
    """
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
    assert not wrong, (wrong, unsynced)
    assert not unsynced, (wrong, unsynced)
    final = {str(f) for stage in TO_MODEL[2:] for f in files_of(folder / RESULT[stage])}
    assert len(renamed) > 20, final - set(renamed)
    assert final <= set(renamed), final - set(renamed)


class Break(NamedTuple):
    """A place to break: the file, what stands there, what is put there, and the test that must notice."""

    file: str
    old: str
    new: str
    test: str


ON_DISK = "test_mutants.py::test_on_disk_before_it_has_its_name"
BROKEN = {
    "a rename without its fsync": Break(
        "runs/files.py",
        "            os.fsync(f.fileno())\n        write_down",
        "            pass\n        write_down",
        ON_DISK,
    ),
    "a file written under its final name": Break(
        "runs/files.py",
        'temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")',
        "temporary = path",
        ON_DISK,
    ),
    "a shard skipped on resuming": Break(
        "stages/training.py",
        'if (out / f"quality-{number:05d}.json").exists():',
        'if f"part-{number:05d}.npy" in (out / "written.txt").read_text():',
        "test_damage.py::test_killed_between_journal_and_rename",
    ),
    "damage that is not looked for": Break(
        "runs/manifest.py",
        "known_checksum(path) not in checksums",
        "False",
        "test_damage.py::test_damage_to_a_stage_at_work",
    ),
}
PACKAGE = Path(minicoil.__file__).parent


@pytest.mark.parametrize("broken", BROKEN, ids=lambda name: name.replace(" ", "-"))
def test_the_place_to_break_is_there(broken):
    """Each place that is broken below stands where it did, once."""
    place = BROKEN[broken]
    source = (PACKAGE / place.file).read_text(encoding="utf-8")
    assert source.count(place.old) == 1, f"{place.old!r} is not in {place.file}: break it where it is now"


def outcome(package, tests, tiny):
    """pytest's exit code of tests of this file, on a copy of the package, and the end of what it said."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(package.parent),
        "MINICOIL_TEST_TINY": str(tiny),
        "MINICOIL_RECORD": "",
    }
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "-p",
            "no:cacheprovider",
            *(str(TESTS / test) for test in tests),
        ],
        capture_output=True,
        text=True,
        env=environment,
        cwd=package.parent,
    )
    return done.returncode, done.stdout[-1500:]


@pytest.mark.slow
@pytest.mark.parametrize("broken", [None, *BROKEN], ids=lambda b: (b or "whole").replace(" ", "-"))
def test_a_broken_resume_makes_the_suite_red(small, tmp_path, broken):
    """The proof that these tests can fail.

    With the code broken in one place a test is red that is green with it whole.
    """
    package = shutil.copytree(
        Path(minicoil.__file__).parent, tmp_path / "minicoil", ignore=shutil.ignore_patterns("__pycache__")
    )
    if broken is None:
        code, said = outcome(package, sorted({place.test for place in BROKEN.values()}), small[0])
        assert code == 0, said
        return
    place = BROKEN[broken]
    source = (package / place.file).read_text()
    assert source.count(place.old) == 1
    (package / place.file).write_text(source.replace(place.old, place.new))
    code, said = outcome(package, [place.test], small[0])
    assert code == 1, said
    assert "1 failed" in said, said
