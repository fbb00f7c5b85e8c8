"""Throw-away runs that share what they make: the same results, made once, and never somebody's own."""

from collections import Counter

import pytest
from chains import digests

import minicoil.runs.run
from minicoil.runs.run import STAGES, open_run

ORDER = list(STAGES)[: list(STAGES).index("export")]


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """How often each stage was done; stages write a line, and a shelf is named."""
    done = Counter()

    def stage_function(stage):
        def work(run):
            run.need(*ORDER[: ORDER.index(stage)][-1:])
            done[stage] += 1
            with run.working(stage) as at:
                (at.path / "line.txt").write_text(f"{stage} {run.params.words} {run.params.pictures}")
                at.finish()

        return work

    monkeypatch.setattr(minicoil.runs.run, "stage_function", stage_function)
    monkeypatch.setenv("MINICOIL_SHELF", str(tmp_path))
    return done


def made(run):
    """{file: digest} of a run's stages."""
    found = digests(run.dir)
    return {name: found[name] for name in found if "/" in name}


def needing(*stages, **given):
    """A throw-away run that has needed some stages."""
    run = open_run(**given)
    run.need(*stages)
    return run


def test_the_same_run_is_made_once(calls):
    """Two runs of the same parameters have the same files, and the stages were done once."""
    first, second = needing("training", words=["bat"]), needing("training", words=["bat"])
    assert made(first) == made(second) != {}
    assert set(calls.values()) == {1}
    assert all(second.stage(stage).done for stage in ORDER[: ORDER.index("training") + 1])


def test_a_longer_run_goes_on(calls):
    """A run that needs more takes over what is there and makes the rest."""
    needing("store", words=["bat"])
    needing("model", words=["bat"])
    assert calls == dict.fromkeys(ORDER[: ORDER.index("model") + 1], 1)


def test_runs_share_what_does_not_differ(calls):
    """Words count from the sentences on, pictures from the senses on; what comes before is shared."""
    needing("senses", words=["bat"])
    needing("senses", words=["bat"], pictures=3)
    needing("senses", words=["bank"])
    assert calls == {"corpus": 1, "sentences": 2, "targets": 2, "store": 2, "senses": 3}


def test_work_by_hand_is_not_shared(calls):
    """A run in which somebody did a stage takes nothing over and lays nothing down after that."""
    run = open_run(words=["bat"])
    with run.working("corpus") as stage:
        (stage.path / "line.txt").write_text("mine")
        stage.finish()
    run.need("sentences")
    assert calls == {"sentences": 1}
    other = needing("sentences", words=["bat"])
    assert calls == {"corpus": 1, "sentences": 2}
    assert (other.stage("corpus").path / "line.txt").read_text() != "mine"


def test_a_spoiled_copy_stays_where_it_is(calls):
    """What a notebook does to its run reaches no other."""
    first = needing("corpus", words=["bat"])
    (first.stage("corpus").path / "line.txt").write_text("spoiled")
    assert needing("corpus", words=["bat"]).stage("corpus").done
    assert calls == {"corpus": 1}


def test_stages_after_the_model_are_always_made(calls):
    """They write into the model's folder too, so a copy of their own folder would not be enough."""
    for _ in range(2):
        needing("atlas", words=["bat"])
    assert calls["atlas"] == 2
    assert calls["model"] == 1


@pytest.mark.parametrize("kept", [True, False], ids=["a folder of the user", "no shelf"])
def test_only_throw_away_runs_share(calls, kept, tmp_path, monkeypatch):
    """A run with a folder of its own has no shelf, and without the variable nobody has."""
    if not kept:
        monkeypatch.delenv("MINICOIL_SHELF")
    for name in ("one", "two"):
        run = open_run(tmp_path / "runs" / name) if kept else open_run()
        assert run.shelf == ""
        if not kept:
            run.need("corpus")
    assert calls == ({} if kept else {"corpus": 2})
