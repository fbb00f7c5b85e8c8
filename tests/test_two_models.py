"""Target and input model may be two transformers of different sizes, from folders, with long texts.

And no notebook insists on the demo's words.
"""

import os

import numpy as np
import pytest
from chains import (
    command,
    copy_before,
    digests,
    end_all,
    finish,
    small_corpus,
    start,
    tiny_transformer,
    undisturbed,
    with_notebooks,
    work,
)
from safetensors.numpy import load_file

from minicoil import MiniCOIL
from minicoil.commands import chain, stage_notebook
from minicoil.learning.algebra import apply
from minicoil.learning.objectives import train_group
from minicoil.runs.files import load_json, refuses
from minicoil.runs.run import STAGES, check_parameters, open_run, stage_function
from minicoil.stages.samples import supplied, word_samples
from minicoil.stages.targets import cut_shards
from minicoil.stages.tokens import one_model
from minicoil.stages.training import train_word
from minicoil.text.transformer import load_tokenizer, load_transformer

WORDS, DIM = ["seal", "crane"], 3


@pytest.fixture(autouse=True)
def no_process_left():
    yield
    end_all()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """{target_model, input_model}.

    A target of hidden size 96 that ends in 40 numbers, an input of hidden size 64; neither normalises.
    """
    folder = tmp_path_factory.mktemp("models")
    return {
        "target_model": str(tiny_transformer(folder / "target", 96, seed=1, dim=40)),
        "input_model": str(tiny_transformer(folder / "input", 64, seed=2)),
    }


@pytest.fixture(scope="module")
def given(models, tmp_path_factory):
    """Parameters of a run with both models on a small corpus."""
    corpus = small_corpus(tmp_path_factory.mktemp("corpus") / "corpus.txt", WORDS)
    return dict(words=WORDS, corpus=[str(corpus)], dim=DIM, pictures=0, **models)


@pytest.fixture(scope="module")
def two(given, tmp_path_factory):
    """The folder of a run until the model."""
    return undisturbed(tmp_path_factory.mktemp("two") / "run", **given)


def test_sizes(two):
    """Targets have the target model's numbers and hidden size, token embeddings and encoders the input
    model's."""
    targets, tokens = (load_json(two / f / "manifest.json") for f in ("12_targets", "21_tokens"))
    assert (targets["dim"], targets["hidden_size"], tokens["hidden_size"]) == (40, 96, 64)
    assert load_file(two / "22_training" / "encoders.safetensors")["encoders"].shape == (2, 64, DIM)


def test_the_model_serves(two, models):
    """The directory serves the input model: its dense vectors, and unit vectors for its words."""
    model, texts = MiniCOIL.load(two / "23_model"), ["A seal swam by.", "The crane lifted the seals."]
    transformer = load_transformer(models["input_model"])
    dense, sparse = model.embed_both(texts)
    assert (
        np.abs(
            dense - np.concatenate([transformer.forward([row])[0] for row in transformer.tokenize(texts)])
        ).max()
        < 1e-4
    )
    assert [len(v.indices) for v in sparse] == [DIM + 1, 2 * DIM + 1]
    assert all(
        abs(np.linalg.norm(v) - 1) < 1e-5 for words in model.embed_words(texts) for v in words.values()
    )


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_same_encoders_in_small_shards(two, given, tmp_path, monkeypatch, jobs):
    """Token embeddings encoded in many shards, by one process or two, give the same encoders."""
    monkeypatch.setattr(cut_shards, "__defaults__", (50,))
    run = work(
        open_run(tmp_path / "run", jobs=jobs, **given),
        "corpus",
        "sentences",
        "targets",
        "store",
        "senses",
        "tokens",
        "training",
    )
    assert len(run.stage("targets").manifest["shards"]) > 1
    assert (
        load_json(run.dir / "12_targets" / "manifest.json")["rows"]
        == load_json(two / "12_targets" / "manifest.json")["rows"]
    )
    for part, name in ("21_tokens", "part-00000.npy"), ("22_training", "encoders.safetensors"):
        assert digests(run.dir / part)[name] == digests(two / part)[name]


def test_tokenizer_cuts_where_the_transformer_does(models):
    """The bare tokenizer of a saved transformer cuts texts at the transformer's own length."""
    long = "word " * 1000
    assert (
        [len(load_tokenizer(m).encode(long).ids) for m in models.values()]
        == [len(load_transformer(m).tokenize([long])[0]) for m in models.values()]
        == [128, 128]
    )


def test_words_beyond_the_cut(models, tmp_path):
    """Sentences that have a word only where the input model no longer reads are not drawn."""
    lines = [f"In the year {1900 + i} a seal was seen near the pier." for i in range(30)] + [
        f"{'so ' * 200}and then a seal came, number {i}." for i in range(5)
    ]
    (tmp_path / "corpus.txt").write_text("\n".join(lines))
    run = open_run(tmp_path / "run", words=["seal"], corpus=[str(tmp_path / "corpus.txt")], **models)
    work(run, "corpus", "sentences", "targets", "store", "tokens")
    assert run.stage("sentences").manifest["sentences"] == 35
    assert run.stage("tokens").manifest["rows"] == 30


def test_the_target_teaches(two, given, tmp_path):
    """`fit` learns the target's cosines.

    They come closer than in a run that knows only the input's; a word has the same bytes in company.
    """
    run = open_run(copy_before(two, "training", tmp_path / "run"))
    left = list(word_samples(run))
    taught = supplied(run, left, "fit")
    assert [s.teacher.shape for s in taught] == [(len(s.tokens), 96) for s in left]
    assert all(s.teacher is None for s in supplied(run, left, "graph"))

    def cosines(x):
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        return np.clip(unit @ unit.T, 0, None)[np.triu_indices(len(x), 1)] ** 2

    for plain, sample in zip(left, taught):
        goal = cosines(sample.teacher)
        errors = [
            np.abs(y - goal).mean()
            for y in (cosines(apply(s.tokens, train_word(s, "fit", DIM))) ** 0.5 for s in (sample, plain))
        ]
        assert errors[0] < errors[1], sample.word
    together = train_group("fit", taught, DIM)
    assert all((w == train_word(s, "fit", DIM)).all() for w, s in zip(together, taught))


def test_one_model_needs_no_second_pass(given, models, tmp_path, monkeypatch):
    """The target under another name of the input model's: nothing is encoded twice, and nobody teaches."""
    (tmp_path / "alias").symlink_to(models["input_model"])
    two_names = {**given, "target_model": str(tmp_path / "alias"), "objective": "fit"}
    run = work(open_run(tmp_path / "run", **two_names), "corpus", "sentences", "targets", "store")
    monkeypatch.setattr("minicoil.stages.tokens.encode_drawn", None)
    work(run, "senses", "tokens")
    assert one_model(run)
    assert all(s.teacher is None for s in supplied(run, list(word_samples(run)), "fit"))


def test_another_target_is_refused(two, given, models):
    """A run that goes on with another target model: one line, and the folder stays as it is."""
    before = digests(two / "12_targets")
    other = {**given, "target_model": models["input_model"]}
    refuses("target_model", lambda: open_run(two, **other))
    assert digests(two / "12_targets") == before


def test_a_target_of_other_words_is_refused(given, models, tmp_path, monkeypatch):
    """A target whose word pieces do not show the drawn words: one line, and no shard is written."""
    monkeypatch.setattr("minicoil.stages.targets.positions", lambda row, pieces, vocabulary: {})
    run = work(open_run(tmp_path / "run", **given), "corpus", "sentences")
    refuses("does not find the drawn word in", lambda: work(run, "targets"))
    assert not list((tmp_path / "run" / "12_targets").glob("part-*"))


def test_models_named_by_relative_paths(given, two, tmp_path, monkeypatch):
    """A model named relative to where the command is called is found by kernels, which run elsewhere."""

    def execute_elsewhere(run, stage, server=None):
        notebooks = run.dir / "notebooks"
        notebooks.mkdir(exist_ok=True)
        (notebooks / f"{STAGES[stage][0]}.ipynb").touch()
        here = os.getcwd()
        os.chdir(notebooks)
        try:
            stage_function(stage)(open_run(run.dir))
        finally:
            os.chdir(here)

    home = os.path.dirname(given["target_model"])
    monkeypatch.chdir(home)
    monkeypatch.setattr(stage_notebook, "execute", execute_elsewhere)
    monkeypatch.setattr(chain, "locked", lambda *_: __import__("contextlib").nullcontext())
    relative = {name: os.path.relpath(given[name], home) for name in ("target_model", "input_model")}
    run = chain.run_chain(
        tmp_path / "run", check_parameters({**given, **relative}), chain.Execution(until="targets")
    )
    assert digests(run.dir / "12_targets")["part-00000.npy"] == digests(two / "12_targets")["part-00000.npy"]


def options(given):
    """The parameters as options of the command."""
    return [
        part
        for name, value in given.items()
        for part in (
            f"--{name.replace('_', '-')}",
            ",".join(value) if name == "words" else value[0] if name == "corpus" else value,
        )
    ]


def test_notebook_of_the_model(two, given, tmp_path):
    """The notebook of the stage model holds for other words, another dim and another transformer, and gives
    the same model."""
    folder = with_notebooks(copy_before(two, "model", tmp_path / "run"))
    code, errors = finish(start(command(folder, "--until", "model")))
    assert code == 0, errors
    assert digests(folder / "23_model") == digests(two / "23_model")


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["graph", "umap"])
def test_all_notebooks(given, tmp_path, objective):
    """Every notebook of the chain holds for other words, another dim, two other transformers and either
    objective."""
    code, errors = finish(
        start(command(tmp_path / "run", *options({**given, "objective": objective, "pictures": 1}))), 3600
    )
    assert code == 0, errors
