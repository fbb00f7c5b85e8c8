"""Every objective trains a model that serves; a word's encoder is its own affair; rare words get one too."""

from pathlib import Path

import numpy as np
import pytest
from chains import TO_MODEL, copy_before, digests, one_export, small_corpus, work
from safetensors.numpy import load_file

from minicoil import MiniCOIL
from minicoil.commands.chain import from_model
from minicoil.learning.algebra import apply, mean_cosine
from minicoil.learning.objectives import OBJECTIVES, Objective, load_objective
from minicoil.retrieval.benchmark import other_objectives, skipped_objectives
from minicoil.retrieval.tables import senses_table
from minicoil.runs.files import UserError, load_json
from minicoil.runs.run import open_run
from minicoil.stages.samples import supplied, word_samples
from minicoil.stages.tokens import word_tokens
from minicoil.stages.training import group_words, train_words


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A corpus of 60 sentences with bat, 60 with bank and 80 others, and six with a rare word."""
    path = small_corpus(tmp_path_factory.mktemp("corpus") / "corpus.txt")
    with open(path, "a", encoding="utf-8") as f:
        f.writelines(
            f"The okapi {what} in the forest.\n"
            for what in (
                "slept soundly",
                "was seen again",
                "ate leaves",
                "hid from us",
                "drank slowly",
                "stood alone",
            )
        )
    return str(path)


@pytest.fixture(scope="module")
def stored(corpus, tmp_path_factory):
    """A maker of runs of some words under an objective until the stage `store`, which is the same for all
    objectives: it is done once for the words, and copied."""
    made, home = {}, tmp_path_factory.mktemp("stored")

    def make(folder, words, objective):
        if words not in made:
            given = {"words": list(words), "corpus": [corpus], "pictures": 0}
            made[words] = work(open_run(home / words[0], **given), *TO_MODEL[: TO_MODEL.index("senses")]).dir
        return open_run(copy_before(made[words], "senses", folder), objective=objective, redo_from="senses")

    return make


@pytest.fixture(scope="module", params=OBJECTIVES)
def trained(request, stored, tmp_path_factory):
    """(objective, folder) of a run of three words until the model."""
    run = stored(tmp_path_factory.mktemp(request.param) / "run", ("bat", "bank", "okapi"), request.param)
    with one_export():
        work(run, *TO_MODEL)
    return request.param, run.dir


def test_serves(trained):
    """Whatever the objective.

    Unit vectors for every word, the rare one included, and the model says how it was trained.
    """
    objective, folder = trained
    model = MiniCOIL.load(folder / "23_model")
    words = next(model.embed_words(["The okapi saw a bat on the bank."]))
    assert list(words) == ["okapi", "bat", "bank"]
    assert all(abs(np.linalg.norm(v) - 1) < 1e-5 for v in words.values())
    assert load_json(folder / "23_model" / "minicoil.json")["objective"] == objective


def test_company(trained, stored, tmp_path):
    """A word trained without the others has the same encoder, byte for byte, under every objective."""
    objective, folder = trained
    alone = work(stored(tmp_path / "alone", ("bank",), objective), "senses", "tokens")
    train_words(alone)

    def encoders(run):
        return load_file(run / "22_training" / "encoders.safetensors")["encoders"]

    assert encoders(folder)[1].tobytes() == encoders(alone.dir)[0].tobytes()


def test_trained_again(trained, corpus, tmp_path):
    """A run that starts from a model, under every objective.

    Another encoder, with the mean cosine of the old one on the word's own sentences; the same alone as in
    company.
    """
    objective, folder = trained
    own = tmp_path / "own.txt"
    own.write_text("".join(Path(corpus).read_text(encoding="utf-8").splitlines(True)[::2]), encoding="utf-8")
    start, stages = (
        {"start_from": str(folder / "23_model"), "corpus": [str(own)], "pictures": 0},
        TO_MODEL[: TO_MODEL.index("training") + 1],
    )
    run, alone = (
        work(open_run(tmp_path / name, **from_model(start | more)), *stages)
        for name, more in (("run", {}), ("alone", {"words": ["bat"]}))
    )
    new, base = (
        load_file(run.stage("training").path / "encoders.safetensors")["encoders"],
        MiniCOIL.load(folder / "23_model"),
    )
    for (word, _, x), w in zip(word_tokens(run), new):
        old = base.weights[base.vocabulary.ids[word]]
        assert np.isfinite(w).all(), word
        assert np.abs(w - old).max() > 1e-3 * np.abs(old).max(), word
        assert mean_cosine(apply(x, w)) > mean_cosine(apply(x, old)) - 0.01, word
    assert run.params.objective == objective
    assert (
        load_file(alone.stage("training").path / "encoders.safetensors")["encoders"].tobytes()
        == new[0].tobytes()
    )


def test_small_groups(trained, tmp_path, monkeypatch):
    """Less memory cuts the words into other groups and changes nothing."""
    objective, folder = trained
    monkeypatch.setenv("MINICOIL_MEMORY_GB", "1e-6")
    run = work(open_run(copy_before(folder, "training", tmp_path / "run")), "training")
    assert (
        digests(run.dir / "22_training")["encoders.safetensors"]
        == digests(folder / "22_training")["encoders.safetensors"]
    )


def test_quality(trained):
    """Every word says how many sentences and senses it saw.

    One that looks like one sense has nothing to separate.
    """
    quality = load_json(trained[1] / "22_training" / "quality.json")
    assert quality["okapi"]["sentences"] == 6
    assert quality["bat"]["sentences"] >= 60
    assert all(
        0 <= q["separation"] <= 1 and (q["senses"] > 1 or q["separation"] == 1) for q in quality.values()
    )


def test_too_rare(corpus, tmp_path):
    """Four sentences are too few, and the message says how many are needed."""
    with open(corpus, encoding="utf-8") as f:
        lines = (
            [line for line in f if "okapi" not in line]
            + ["The okapi slept in the forest.\n"] * 1
            + [f"An okapi {w} here today.\n" for w in ("ate", "sat", "hid")]
        )
    path = tmp_path / "few.txt"
    path.write_text("".join(lines), encoding="utf-8")
    with pytest.raises(UserError, match="okapi: in 4 sentences, 5 are needed"):
        work(open_run(tmp_path / "run", words=["okapi"], corpus=[str(path)]), "corpus", "sentences")


def test_memory_bounds_groups():
    """Groups hold as many words as memory allows and never mix lengths."""
    sizes = [300] * 100 + [1000] * 10
    groups = group_words(sizes, 384, 4, "graph", memory_gb=0.5)
    assert sorted(i for g in groups for i in g) == list(range(110))
    assert all(len({sizes[i] for i in g}) == 1 for g in groups)
    assert all(
        len(g) == 1 or len(g) * load_objective("graph").memory(sizes[g[0]], 384, 4) <= 0.5e9 for g in groups
    )
    assert max(map(len, groups)) > 1


def means(group):
    """Encoders that are a constant; the objective of a test."""
    import torch

    return torch.ones(len(group.samples), group.x.shape[2], group.dim)


UNKNOWN_NEED = Objective("unknown_need", means, needs=("neighbours", "moods"))
KNOWN_NEEDS = Objective("known_needs", means, needs=("targets", "layout"))


@pytest.fixture
def more_objectives(monkeypatch):
    """Two more lines in the registry: of one nothing makes what it needs, of the other this run can."""
    monkeypatch.setitem(OBJECTIVES, "unknown_need", f"{__name__}:UNKNOWN_NEED")
    monkeypatch.setitem(OBJECTIVES, "known_needs", f"{__name__}:KNOWN_NEEDS")


def test_an_objective_whose_needs_cannot_be_met_is_left_out(tiny_run, more_objectives):
    """It does not break the benchmark of a run of another objective, and the reason names what is missing."""
    run = open_run(tiny_run)
    assert skipped_objectives(run) == {"unknown_need": "this run has no moods"}
    found = other_objectives(run, ["graph", "unknown_need", "known_needs"])
    assert list(found) == ["known_needs"]
    assert set(found["known_needs"]) == {"bat", "bank"}


def test_needs_are_supplied_in_one_place(tiny_run):
    """What the stages left is kept, what an objective needs is made, and nothing else is."""
    run = open_run(tiny_run)
    left = list(word_samples(run))
    assert all(s.targets is None and s.layout is None for s in left)
    assert supplied(run, left, "graph") == left
    made = supplied(run, left, KNOWN_NEEDS)
    assert [s.layout.shape for s in made] == [(len(s.tokens), run.params.dim) for s in left]
    assert all(np.allclose(np.linalg.norm(s.targets, axis=1), 1, atol=1e-5) for s in made)
    assert supplied(run, made, KNOWN_NEEDS) == made


def test_the_table_of_senses_names_what_was_left_out():
    """The reason stands below the table; a table without skipped rows is as it was."""
    found = {"words": 2, "results": {"minicoil": {"nn1": 0.5, "nn5": 0.5, "auc": 0.5, "mauc": 0.5}}}
    plain = senses_table(found)
    skipped = senses_table({**found, "skipped": {"mood objective": "this run has no moods"}})
    assert skipped.startswith(plain)
    assert "Skipped: mood objective (this run has no moods)." in skipped
    assert "Skipped" not in plain
