"""A full disk, files that may not grow, folders that nobody may write.

One line, and the next call makes the same bytes.
"""

import json
import os
import resource
import shutil
import subprocess
import sys

import numpy as np
import pytest
from chains import TO_MODEL, command, copy_before, digests, end_all, finish, start, with_notebooks, work
from faults import one_line

import minicoil
from minicoil.runs.run import open_run
from minicoil.text.readers import DATA


@pytest.fixture(autouse=True)
def no_process_left():
    yield
    end_all()


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
    done = subprocess.run(
        [sys.executable, "-c", IN_PROCESS, str(folder), ",".join(stages)],
        capture_output=True,
        text=True,
        **options,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "stage",
    ["targets", *(pytest.param(stage, marks=pytest.mark.slow) for stage in TO_MODEL if stage != "targets")],
)
def test_a_full_disk(small, tmp_path, full_disk, stage):
    """On a disk that is full a stage ends with exit code 2 and one line.

    With room again, the next call makes the same model.
    """
    run, model = small
    disk = full_disk("400m")
    folder = copy_before(run, stage, disk / "run")
    if stage != "store":
        shutil.rmtree(folder / "13_store" / "qdrant", ignore_errors=True)
    free = shutil.disk_usage(disk).free
    with open(disk / "filler", "wb") as f:
        f.write(b"\0" * (free - 8192))
    code, errors = in_process(folder, [stage])
    assert code == 2, errors[-1500:]
    assert len(one_line(errors)) == 1, errors[-1500:]
    assert "make room" in errors, errors[-1500:]
    (disk / "filler").unlink()
    work(open_run(folder), *TO_MODEL)
    assert digests(folder / "23_model") == model


LIMITED = """
import resource, sys
import numpy as np
from minicoil.runs.files import save_json, save_npy
room = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
save_npy(sys.argv[2], np.ones(1200)) if sys.argv[2].endswith(".npy") else save_json(sys.argv[2], 1)
"""


def save_in(room, path):
    """Save an array or JSON in a process whose files may have only so many bytes."""
    command = [sys.executable, "-c", LIMITED, str(room), str(path)]
    return subprocess.run(command, capture_output=True, text=True, env=uncovered())


@pytest.mark.parametrize("room", [0, 100, 200, 4000, 4100, 9000])
def test_half_an_array_is_no_array(tmp_path, room):
    """An array that finds no room, or room for a part of it, is an error, and no file.

    Numpy alone would leave the part without a word.
    """
    done = save_in(room, tmp_path / "x.npy")
    assert done.returncode == 1, done.stderr[-500:]
    assert "File too large" in done.stderr, done.stderr[-500:]
    assert not list(tmp_path.iterdir()), done.stderr[-500:]
    minicoil.runs.files.save_npy(tmp_path / "x.npy", np.asfortranarray(np.arange(6.0).reshape(2, 3)))
    assert np.load(tmp_path / "x.npy").tolist() == [[0, 1, 2], [3, 4, 5]]


def test_no_file_without_its_line_in_the_journal(tmp_path):
    """A file whose checksum finds no room in the journal gets no name.

    It could not be told from a damaged one.
    """
    (tmp_path / "run.json").touch()
    stage = tmp_path / "10_corpus"
    stage.mkdir()
    journal = stage / minicoil.runs.files.JOURNAL
    journal.write_bytes(b"x" * 590)
    done = save_in(600, stage / "x.json")
    assert done.returncode == 1, done.stderr[-500:]
    assert "File too large" in done.stderr, done.stderr[-500:]
    assert list(stage.iterdir()) == [journal], done.stderr[-500:]


GROWING = [stage for stage in TO_MODEL if stage not in ("store", "training")]


def slow(stages):
    """Stages as parameters of tests that run with --slow."""
    return [pytest.param(stage, marks=pytest.mark.slow) for stage in stages]


@pytest.mark.parametrize("stage", ["training", *slow(GROWING)])
def test_a_file_that_may_not_grow(small, tmp_path, stage):
    """Where files may not grow (a quota, without a mount) a stage ends with exit code 2 and one line.

    The next call makes the same model. The engine of stage store writes its files at their full size.
    """
    run, model = small
    folder = copy_before(run, stage, tmp_path / "run")
    code, errors = in_process(
        folder,
        [stage],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600)),
        env=uncovered(),
    )
    assert code == 2, errors[-1500:]
    assert len(one_line(errors)) == 1, errors[-1500:]
    assert "make room" in errors, errors[-1500:]
    work(open_run(folder), *TO_MODEL)
    assert digests(folder / "23_model") == model


@pytest.mark.parametrize("command_line", ["run", "embed", pytest.param("add-words", marks=pytest.mark.slow)])
def test_a_folder_that_nobody_may_write(small, full_disk, tmp_path, command_line):
    """On a disk mounted read-only a command ends in one line with exit code 2, and every file stays as it
    was.

    Modes would not do: root ignores them.
    """
    run, _ = small
    disk = full_disk("400m")
    folder = with_notebooks(copy_before(run, "model", disk / "run"))
    shutil.copytree(run / "23_model", disk / "model")
    (disk / "texts.txt").write_text("a bat\n")
    corpus = json.loads((run / "run.json").read_text())["parameters"]["corpus"][0]
    wanted = {
        "run": ["run", "--out", folder, "--until", "model"],
        "embed": ["embed", "--model", disk / "model", "--out", disk / "vectors.jsonl", disk / "texts.txt"],
        "add-words": ["add-words", "--model", disk / "model", "--words", "seal", "--corpus", corpus],
    }[command_line]
    before = digests(disk)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    code, errors = finish(start([command("x")[0], *map(str, wanted)]))
    assert code == 2, errors
    assert len(one_line(errors)) == 1, errors
    assert str(disk) in errors, errors
    assert digests(disk) == before


def at_the_end_of_a_disk(disk, left):
    """Fill a disk but for so many bytes; returns the file that fills it."""
    filler = disk / "filler"
    filler.write_bytes(b"\0" * (shutil.disk_usage(disk).free - left))
    return filler


def told_apart(folder):
    """The results of stage `benchmark` and the card, without what a clock decides."""
    made = {name: (folder / "33_benchmark" / name).read_bytes() for name in ("results.json", "results.md")}
    return made | {"card": (folder / "23_model" / "README.md").read_bytes()}


BENCHMARK = IN_PROCESS.replace(
    "for stage in sys.argv[2].split(\",\"): stage_function(stage)(run)",
    "from minicoil.retrieval.benchmark import benchmark_run; benchmark_run(run, most_words=0)",
)


def measure_scores(folder):
    """Stage `benchmark` without training other objectives, which takes a minute and writes nothing."""
    from minicoil.retrieval.benchmark import benchmark_run

    benchmark_run(open_run(folder), most_words=0)


@pytest.fixture(scope="module")
def measured(tiny_run, tmp_path_factory):
    """What the stage makes of the tiny run where nothing is in its way."""
    folder = copy_before(tiny_run, "benchmark", tmp_path_factory.mktemp("measured") / "run")
    measure_scores(folder)
    return told_apart(folder)


@pytest.mark.parametrize("left", [8192, pytest.param(100_000, marks=pytest.mark.slow)])
def test_a_full_disk_at_the_benchmark(tiny_run, measured, full_disk, left):
    """The last stage on a full disk is one line and not done; with room again it ends as it would have."""
    disk = full_disk("400m")
    folder = copy_before(tiny_run, "benchmark", disk / "run")
    filler = at_the_end_of_a_disk(disk, left)
    code, errors = finish(start([sys.executable, "-c", BENCHMARK, str(folder)]))
    assert code == 2, errors[-1500:]
    assert len(one_line(errors)) == 1, errors[-1500:]
    assert "make room" in errors, errors[-1500:]
    assert not open_run(folder).stage("benchmark").done
    filler.unlink()
    measure_scores(folder)
    assert told_apart(folder) == measured


@pytest.mark.parametrize("option", ["--out", "--cache"])
def test_a_full_disk_where_a_benchmark_writes(small, full_disk, option):
    """A benchmark whose results or cache find no room is one line, leaves no half of a file, and goes on."""
    model, disk = small[0] / "23_model", full_disk("4m")
    filler = at_the_end_of_a_disk(disk, 8192)
    asked = ["benchmark", "retrieval", "--model", model, "--data", "demo", "--systems", "bm25,minicoil"]
    code, errors = finish(start([command("x")[0], *map(str, asked), option, str(disk / "new")]))
    assert code == 2, errors
    assert len(one_line(errors)) == 1, errors
    assert "make room" in errors
    assert not [path.name for path in disk.rglob("*") if path.name.endswith(".tmp")]
    filler.unlink()
    if option == "--out":
        code, errors = finish(start([command("x")[0], *map(str, asked), option, str(disk / "new")]))
        assert code == 0, errors
        assert (disk / "new" / "gain.png").read_bytes().startswith(b"\x89PNG")


def test_a_full_disk_where_a_collection_is_made(full_disk):
    """A collection that finds no room leaves no folder, in whose place the next call could make none."""
    disk = full_disk("4m")
    filler, data = at_the_end_of_a_disk(disk, 65536), DATA / "sentences.jsonl"
    asked = ["benchmark", "make-collection", "--data", str(data), "--out", str(disk / "new")]
    code, errors = finish(start([command("x")[0], *asked]))
    assert code == 2, errors
    assert len(one_line(errors)) == 1, errors
    assert "make room" in errors
    assert os.listdir(disk) == ["filler"]
    filler.unlink()
    code, errors = finish(start([command("x")[0], *asked]))
    assert code == 0, errors
    assert (disk / "new" / "qrels" / "test.tsv").exists()
