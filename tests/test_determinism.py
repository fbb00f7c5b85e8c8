"""The same parameters give the same bytes.

For any number of processes, in any company, however much else is encoded.
"""

import numpy as np
import pytest
from chains import TO_MODEL, copy_before, digests, small_corpus, undisturbed, work
from safetensors.numpy import load_file

from minicoil.runs.files import load_json
from minicoil.runs.run import open_run
from minicoil.stages.corpus import convert_openwebtext
from minicoil.stages.draw import read_draw
from minicoil.stages.senses import compress_dimensions
from minicoil.stages.targets import cut_shards
from minicoil.stages.tokens import encode_and_filter

TO_TRAINING = TO_MODEL[:-1]


@pytest.fixture(scope="session")
def reference(tmp_path_factory):
    """A run of two words until the model, in one process and one shard a stage."""
    return undisturbed(tmp_path_factory.getbasetemp() / "reference", words=["bat", "bank"], pictures=0)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A corpus of 60 sentences with bat, 60 with bank and 80 others."""
    return str(small_corpus(tmp_path_factory.mktemp("corpus") / "corpus.txt"))


def in_small_shards(folder, monkeypatch, jobs, **given):
    """A run until training in which every stage has several shards, done by `jobs` processes.

    Returns the run.
    """
    monkeypatch.setattr(cut_shards, "__defaults__", (50,))
    run = open_run(folder, jobs=jobs, **given)
    work(run, "corpus", "sentences", "targets", "store")
    compress_dimensions(run, words_per_shard=1)
    encode_and_filter(run, words_per_shard=1)
    work(run, "training")
    assert all(len(run.stage(s).manifest["shards"]) > 1 for s in ("targets", "senses", "tokens"))
    return run


def encoder(folder, word):
    """(encoder, quality, clusters) of a word in a finished training."""
    words = load_json(folder / "22_training" / "manifest.json")["words"]
    encoders = load_file(folder / "22_training" / "encoders.safetensors")["encoders"]
    return (
        encoders[words.index(word)].tobytes(),
        load_json(folder / "22_training" / "quality.json")[word],
        load_json(folder / "20_senses" / "senses.json")[word],
    )


def trained(folder):
    """Digests of what a run has drawn and trained."""
    return {
        name: digests(folder / part)[name]
        for part, name in (
            ("13_store", "drawn.parquet"),
            ("22_training", "encoders.safetensors"),
            ("22_training", "quality.json"),
        )
    }


# Processes and shards


def test_same_model_for_two_jobs(reference, tmp_path, monkeypatch):
    """Two processes over many shards make the model that one process makes of one shard, byte for byte."""
    run = in_small_shards(copy_before(reference, "targets", tmp_path / "run"), monkeypatch, jobs=2)
    work(run, "model")
    assert digests(run.dir / "23_model") == digests(reference / "23_model")


def test_same_sentences_for_two_jobs(tmp_path):
    """Two processes split the shards of a corpus into the same sentences, index and draw as one."""
    for jobs in (1, 2):
        run = open_run(tmp_path / f"run{jobs}", jobs=jobs, words=["bat", "bank"])
        convert_openwebtext(run, shard_bytes=40_000)
        assert len(run.stage("corpus").parts("parquet")) > 2
        work(run, "sentences")
    assert digests(tmp_path / "run1" / "11_sentences") == digests(tmp_path / "run2" / "11_sentences")


@pytest.mark.slow
def test_same_layouts_and_encoders_for_two_jobs(corpus, tmp_path, monkeypatch):
    """UMAP layouts, pictures and encoders of the umap objective are the same bytes for one process and for
    two."""
    given = dict(words=["bat", "bank"], corpus=[corpus], objective="umap", pictures=2)
    work(open_run(tmp_path / "one", **given), *TO_TRAINING)
    in_small_shards(tmp_path / "two", monkeypatch, jobs=2, **given)
    assert trained(tmp_path / "one") == trained(tmp_path / "two")
    for kind in ("picture", "layout", "clusters"):
        whole = np.load(tmp_path / "one" / "20_senses" / f"{kind}-00000.npy")
        assert np.array_equal(
            whole,
            np.concatenate(
                [np.load(f) for f in sorted((tmp_path / "two" / "20_senses").glob(f"{kind}-*.npy"))]
            ),
        ), kind


@pytest.mark.slow
def test_same_model_for_two_jobs_and_many_words(tmp_path, monkeypatch):
    """The same with all bundled words, which fill more than one batch of most lengths."""
    one = undisturbed(tmp_path / "one", pictures=0)
    run = in_small_shards(tmp_path / "two", monkeypatch, jobs=2, pictures=0)
    work(run, "model")
    assert digests(tmp_path / "two" / "23_model") == digests(one / "23_model")


# Company


@pytest.mark.parametrize("words", [["bat"], ["bank", "bat", "seal"]], ids=["alone", "among others"])
def test_same_encoder_in_any_company(reference, tmp_path, words):
    """A word's encoder, quality and clusters are the same bytes whichever other words train along."""
    work(open_run(tmp_path / "run", words=words, pictures=0), *TO_TRAINING)
    assert encoder(tmp_path / "run", "bat") == encoder(reference, "bat")


# The draw


@pytest.fixture(scope="module")
def few(corpus, tmp_path_factory):
    """A run that draws 40 sentences a word, until training."""
    folder = tmp_path_factory.mktemp("few") / "run"
    work(open_run(folder, words=["bat", "bank"], corpus=[corpus], samples=40, pictures=0), *TO_TRAINING)
    return folder


def test_cover_and_all_are_the_same(few, corpus, tmp_path):
    """Encoding only the cover and encoding every sentence give the same draw and the same encoders."""
    run = work(
        open_run(
            tmp_path / "run", words=["bat", "bank"], corpus=[corpus], samples=40, pictures=0, encode="all"
        ),
        *TO_TRAINING,
    )
    rows = [load_json(folder / "12_targets" / "manifest.json")["rows"] for folder in (few, run.dir)]
    assert rows[0] == 80
    assert rows[1] == run.stage("sentences").manifest["sentences"] > 150
    assert trained(few) == trained(run.dir)


def test_same_seed_same_bytes(few, corpus, tmp_path):
    """The same parameters in another folder give the same draw and the same encoders."""
    work(
        open_run(tmp_path / "run", words=["bat", "bank"], corpus=[corpus], samples=40, pictures=0),
        *TO_TRAINING,
    )
    assert trained(few) == trained(tmp_path / "run")


def test_another_seed_draws_others(few, corpus, tmp_path):
    """Another seed draws as many other sentences of every word."""
    run = work(
        open_run(tmp_path / "run", words=["bat", "bank"], corpus=[corpus], samples=40, seed=1),
        "corpus",
        "sentences",
    )
    for word in (0, 1):
        mine, other = (
            {*ids[words == word].tolist()}
            for words, ids, _ in (
                read_draw(folder / "11_sentences" / "drawn.parquet") for folder in (few, run.dir)
            )
        )
        assert len(mine) == len(other) == 40
        assert mine != other
