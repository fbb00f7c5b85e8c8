"""A run in a folder where other things lie.

It touches nothing that it did not make, or says in one line why not.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from calls import call
from conftest import minicoil

from minicoil.runs.files import UserError, load_json
from minicoil.runs.locks import locked
from minicoil.runs.ownership import DRIVER_LOCK
from minicoil.runs.run import STAGES, open_run

OTHERS = (
    ".bashrc.old",
    ".config.old/settings",
    "notes/.draft.tmp",
    ".draft.tmp",
    ".report.12.tmp",
    ".run.json.7.tmp",
    ".10_corpus.7.old/mine.txt",
    "old.7.tmp",
    "results.old",
    "part-00000.parquet",
    "manifest.json",
    "written.txt",
    "notebooks/mine.ipynb",
    "notebooks/.mine.3.tmp",
    "inputs.json",
    "10_corpus.txt",
    "model/README.md",
)


def put(folder, names=OTHERS):
    """Files of a user in a folder, each with its own name as content."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"mine: {name}")
    return folder


def state(folder):
    """{path: bytes, or where a link points} of everything in a folder, without following links."""
    found = {}
    for where, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(where) / name
            if path.is_symlink():
                found[str(path.relative_to(folder))] = os.readlink(path)
            elif path.is_file():
                found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def run_here(folder, *options):
    """`minicoil run --out .` until the first stage, called in a folder."""
    return minicoil("run", "--words", "bat", "--until", "corpus", "--out", ".", *options, cwd=folder)


def refused_here(folder):
    """The same, called in this process: for a refusal, which comes before any kernel is started."""
    return call(folder, "run", "--words", "bat", "--until", "corpus", "--out", ".")


def test_a_run_beside_others_things(tmp_path):
    """A run in a folder full of files goes on, also again and with --from, and touches none of them."""
    folder = put(tmp_path / "home")
    before = state(folder)
    for options in ((), (), ("--from", "corpus", "--seed", 3)):
        done = run_here(folder, *options)
        assert done.returncode == 0, done.stderr
        after = state(folder)
        assert {name: after.get(name) for name in before} == before
    assert open_run(folder).stage("corpus").done
    assert load_json(folder / "run.json")["parameters"]["seed"] == 3


LONE = [".run.json.7.tmp", ".log.txt.7.tmp", ".report.html.7.tmp", ".10_corpus.7.old/manifest.json"]


@pytest.mark.parametrize("name", [*LONE, None], ids=str)
def test_nothing_is_swept_at_the_top_of_a_folder_that_was_there(tmp_path, name):
    """In a folder that the run did not make a lone file of the user stays, also when a stage is redone."""
    folder = put(tmp_path / "home", LONE if name is None else [name])
    before = state(folder)
    for options in ({"words": ["bat"]}, {"redo_from": "corpus", "seed": 3}):
        with open_run(folder, **options).working("corpus") as stage:
            stage.finish()
        after = state(folder)
        assert {name: after.get(name) for name in before} == before


def test_the_command_sweeps_nothing_of_the_users(tmp_path):
    """So it is with the command, which makes its locks and its record there."""
    folder = put(tmp_path / "home", LONE)
    before = state(folder)
    done = run_here(folder)
    assert done.returncode == 0, done.stderr
    after = state(folder)
    assert {name: after.get(name) for name in before} == before


def test_an_empty_folder_of_the_user_is_the_users(tmp_path):
    """A folder that was empty when the run began is not the run's: what is put there later stays."""
    (tmp_path / "home").mkdir()
    run = open_run(tmp_path / "home", words=["bat"])
    before = state(put(run.dir, LONE))
    with run.working("corpus"):
        pass
    after = state(run.dir)
    assert {name: after.get(name) for name in before} == before


@pytest.mark.parametrize(
    "name",
    [
        "run.json",
        "log.txt",
        "report.html",
        ".driver.lock",
        ".work.lock",
        "10_corpus/mine.txt",
        "33_benchmark/mine.txt",
        "23_model",
        "notebooks",
        "notebooks/10_corpus.ipynb",
        "notebooks/33_benchmark.failed.ipynb",
        "run.json/mine.txt",
        "log.txt/mine.txt",
        ".driver.lock/mine.txt",
        "20_senses/deep/mine.txt",
    ],
)
def test_a_name_that_is_taken(tmp_path, name):
    """Where a user's file or folder has a name that a run uses, one line names it, and everything stays as it
    was."""
    folder = put(tmp_path / "home", (name, "notes.txt"))
    before = state(folder)
    done = refused_here(folder)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert name.split("/")[0] in done.stderr
    assert "--out" in done.stderr
    assert state(folder) == before


@pytest.mark.parametrize("content", ['{"name": "mine"}', "[1, 2]", '{"parameters": 3}', "not JSON", ""])
def test_a_record_of_something_else(tmp_path, content):
    """A `run.json` that is not a run's is refused, and stays as it was."""
    (tmp_path / "run.json").write_text(content)
    done = refused_here(tmp_path)
    assert done.returncode == 2, done.stderr
    assert "run.json" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert state(tmp_path) == {"run.json": content.encode()}


@pytest.mark.parametrize("name", ["10_corpus", "notebooks", "log.txt", "run.json", ".driver.lock"])
@pytest.mark.parametrize("there", [True, False], ids=["a link", "a broken link"])
def test_a_link_under_a_name_of_ours(tmp_path, name, there):
    """A link under a name that a run uses is refused; neither the link nor what it points to changes."""
    elsewhere = put(tmp_path / "elsewhere", ("x.txt",))
    folder = put(tmp_path / "home", ("notes.txt",))
    target = elsewhere if name in ("10_corpus", "notebooks") else elsewhere / "x.txt"
    (folder / name).symlink_to(target if there else tmp_path / "nowhere")
    before = state(tmp_path)
    done = refused_here(folder)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert state(tmp_path) == before


def corpus_run(folder):
    """A run with its first stage at an end, without kernels."""
    run = open_run(folder, words=["bat"])
    with run.working("corpus") as stage:
        (stage.path / "part-00000.parquet").write_bytes(b"documents")
        stage.finish(documents=1)
    return run


def test_a_stage_folder_that_is_a_link(tmp_path):
    """A stage's folder moved to another disk and linked still counts.

    Doing it again drops the link, not the data.
    """
    run = corpus_run(tmp_path / "run")
    moved = tmp_path / "big disk"
    shutil.move(tmp_path / "run" / "10_corpus", moved)
    (tmp_path / "run" / "10_corpus").symlink_to(moved)
    (moved / "mine.old").touch()
    before = state(moved)
    assert run.stage("corpus").done
    assert not open_run(tmp_path / "run", redo_from="corpus").stage("corpus").done
    assert state(moved) == before
    assert not os.path.lexists(tmp_path / "run" / "10_corpus")


def test_links_are_not_swept(tmp_path):
    """A sweep removes a temporary file and a link named like one, but follows no link."""
    elsewhere = put(tmp_path / "elsewhere", (".x.1.tmp", "y.txt"))
    run = corpus_run(tmp_path / "run")
    folder = run.stage("corpus").path
    (folder / "linked").symlink_to(elsewhere)
    (folder / ".part.5.tmp").symlink_to(elsewhere)
    (folder / ".draft.tmp").touch()
    with run.working("sentences"):
        pass
    assert sorted(state(elsewhere)) == [".x.1.tmp", "y.txt"]
    assert "linked" in os.listdir(folder)
    assert ".draft.tmp" in os.listdir(folder)
    assert ".part.5.tmp" not in os.listdir(folder)


@pytest.mark.parametrize("redo", [False, True])
def test_a_users_folder_where_a_stage_would_work(tmp_path, redo):
    """A folder that a user puts under a later stage's name is refused, not filled and not removed."""
    run = corpus_run(tmp_path / "run")
    put(run.dir, ("11_sentences/mine.txt",))
    before = state(run.dir)
    with pytest.raises(UserError, match="11_sentences was not made by a run"):
        if redo:
            open_run(run.dir, redo_from="sentences")
        else:
            with run.working("sentences"):
                pass
    assert state(run.dir) == before


def test_a_grown_model_keeps_the_users_files(tmp_path):
    """Files of the user in a model's folder are there in its next version, whatever their names; only what
    killed processes left is not."""
    from minicoil.runs.swap import copy_synced

    names = ("notes.txt", "draft.tmp", ".draft.tmp", "old.7.tmp", "sub/mine.tmp", ".hidden.old")
    folder = put(tmp_path / "model", names)
    (folder / ".model.onnx.7.tmp").touch()
    copy_synced(folder, tmp_path / "new", but=())
    assert state(tmp_path / "new") == {name: f"mine: {name}".encode() for name in names}


@pytest.mark.parametrize("what", ["a folder", "a file", "a link"])
def test_a_work_folder_of_the_user_is_refused(tmp_path, what):
    """What stands under the name of a work folder, and was not made to build in, is not swept."""
    from minicoil.runs.swap import work_folder, workshop

    mine, elsewhere = work_folder(tmp_path / "model"), put(tmp_path / "elsewhere", ("x.txt",))
    if what == "a folder":
        put(mine, ("notes.txt", "run/settings"))
    elif what == "a file":
        mine.write_text("mine")
    else:
        mine.symlink_to(elsewhere)
    before = state(tmp_path)
    with pytest.raises(UserError, match="is not a folder of miniCOIL"), workshop(tmp_path / "model"):
        pass
    assert state(tmp_path) == before


def test_the_folder_of_another_call_stays(tmp_path):
    """A call that is refused because another is at work in a new folder does not remove that folder."""
    folder = tmp_path / "run"
    program = """
import sys
from pathlib import Path
import minicoil.commands.chain as chain
out = Path(sys.argv[1])
real = chain.locked
def other_first(path, *arguments, **options):
    out.mkdir(exist_ok=True)
    (out / "mine.txt").write_text("work of the other call")
    with real(path, "other"):
        return_value = real(path, *arguments, **options)
        return_value.__enter__()
chain.locked = other_first
from minicoil.commands.pipeline import main
main(["run", "--words", "bat", "--until", "corpus", "--out", str(out)])
"""
    done = subprocess.run([sys.executable, "-c", program, folder], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "at work already" in done.stderr
    assert (folder / "mine.txt").exists()


def test_a_run_that_comes_to_nothing_leaves_others_files(tmp_path):
    """Unusable input removes a folder that the call made, but not one that was there, nor a file in it."""
    there = tmp_path / "there"
    there.mkdir()
    new = tmp_path / "new"
    for folder in (there, new):
        done = minicoil("run", "--words", "zzyzzyx", "--until", "sentences", "--out", folder)
        assert done.returncode == 2, done.stderr
    assert there.is_dir()
    assert not new.exists()


def test_the_names_of_a_run_are_all_known(run_folder):
    """Whatever stands at the top of a finished run has a name that a folder with others' things is checked
    for."""
    from minicoil.runs.ownership import TOP_FILES, WORK_LOCK

    known = {*TOP_FILES, DRIVER_LOCK, WORK_LOCK, "notebooks", *(folder for folder, _ in STAGES.values())}
    assert {path.name for path in run_folder.iterdir()} <= known
    with locked(run_folder / DRIVER_LOCK, "busy"):
        pass
