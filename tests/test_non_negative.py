"""A turned model: no negative number, cosines as before, and the same directory for everyone who opens it."""

import json

import numpy as np
import pytest
from calls import call, one_line

from minicoil import MiniCOIL, UserError
from minicoil.learning.algebra import apply
from minicoil.runs.files import one_thread
from minicoil.runs.run import open_run
from minicoil.serving.non_negative import FAINT, closest_non_negative, negative_share, word_rotation
from minicoil.stages.export import HARD_TEXTS
from minicoil.stages.rotation import rotate_model, run_vectors
from minicoil.stages.samples import word_samples
from minicoil.stages.training import train_samples, turned_encoders
from minicoil.text.readers import bundled_sentences

TEXTS = [row["sentence"] for row in bundled_sentences()][::40][:60] + HARD_TEXTS


@pytest.fixture(scope="module")
def turned(signed_model, tmp_path_factory):
    """A model from before training turned them, turned by the texts of this file, as (folder, facts)."""
    out = tmp_path_factory.mktemp("turned") / "model"
    return out, rotate_model(signed_model, out, TEXTS)


def test_training_turns_each_word(tiny_run):
    """A trained model gives non-negative vectors at once; no word has a much better map, no cosine moved.

    In whatever company a word is trained, its encoder is the same.
    """
    one_thread()  # as the workers
    run, model = open_run(tiny_run), MiniCOIL.load(tiny_run / "23_model")
    assert model.info["rotated"]["words"] == len(model.words)
    assert model.info["rotated"] == run.stage("training").manifest["rotated"]
    assert all((v.values >= 0).all() for v in model.embed(TEXTS, non_negative=True))
    found = dict(run_vectors(run, np.asarray(model.weights)[1:]))
    for sample in word_samples(run):
        rows = found[sample.word].astype(np.float64)
        best = negative_share(rows, word_rotation(rows))
        assert negative_share(rows, np.eye(model.dim)) < best + 0.02
        (w,) = train_samples(run, [sample], "cpu")
        (alone,), _ = turned_encoders([sample], w[None])
        assert np.array_equal(alone, model.weights[model.vocabulary.ids[sample.word]])
        signed = apply(sample.tokens, w)
        assert np.abs(signed @ signed.T - rows @ rows.T).mean() < 0.05
        assert negative_share(signed.astype(np.float64), np.eye(model.dim)) > best


def test_no_number_is_negative(turned):
    """Documents, queries, long texts and both vectors at once, of texts of every awkward kind."""
    model = MiniCOIL.load(turned[0])
    found = [
        *model.embed(TEXTS, non_negative=True),
        *model.query_embed(TEXTS, non_negative=True),
        *model.embed(TEXTS[-9:], windows=True, normalize=True, non_negative=True),
        *model.embed_both(TEXTS[:9], non_negative=True)[1],
    ]
    assert all((vector.values >= 0).all() for vector in found)
    assert any((vector.values == 0).any() for vector in found)
    signed = list(model.embed(TEXTS))
    assert any((vector.values < 0).any() for vector in signed)
    for ours, theirs in zip(found, signed):
        assert np.array_equal(ours.indices, theirs.indices)  # zeros stay: all numbers of a word count alike


def test_only_what_is_negative_goes(turned):
    """A positive number stays as `embed` has it; a word without any keeps a small one."""
    model = MiniCOIL.load(turned[0])
    for cut, signed in zip(model.embed(TEXTS, non_negative=True), model.embed(TEXTS)):
        assert np.array_equal(cut.values[signed.values > 0], signed.values[signed.values > 0])
        assert (cut.values[signed.values <= 0] <= 2.2 * FAINT).all()  # BM25's greatest weight is 2.2


def test_a_vector_without_a_positive_number_still_matches():
    """It keeps its least negative number, as a small one."""
    found = closest_non_negative(np.array([[-0.9, -0.3], [-0.9, 0.3], [0.0, 0.0]]))
    assert np.allclose(found, [[0, FAINT], [0, 0.3], [FAINT, 0]])


def cosines_moved(before, after):
    """The mean squared change of cosines between two vectors of one word, {word: vector} of each text."""
    rows = {}
    for some, others in zip(before, after):
        for word in some:
            rows.setdefault(word, []).append((some[word], others[word]))
    pairs = [[np.array(vectors) for vectors in zip(*rows[word])] for word in rows]
    return float(np.mean([((x @ x.T - y @ y.T) ** 2).mean() for x, y in pairs]))


def test_a_packed_model_is_turned_as_tokens_see_it(signed_model, tmp_path, monkeypatch):
    """Packed numbers are rounded again by what token embeddings see: the words' cosines move less so."""
    small = tmp_path / "small"
    MiniCOIL.load(signed_model).save(small, form="small", reduce=True)
    exact, moved = list(MiniCOIL.load(signed_model).embed_words(TEXTS)), {}
    for name in ("seen", "unseen"):
        rotate_model(small, tmp_path / name, TEXTS)
        monkeypatch.setattr("minicoil.stages.rotation.token_moment", lambda model: None)  # then
        found = list(MiniCOIL.load(tmp_path / name).embed_words(TEXTS))
        moved[name] = cosines_moved(exact, found)
    assert moved["seen"] < moved["unseen"]


def test_cosines_hardly_move(turned, signed_model):
    """The map is orthogonal; only `tanh` after the encoder sees a difference."""
    words = [list(MiniCOIL.load(folder).embed_words(TEXTS)) for folder in (signed_model, turned[0])]
    moved = []
    for word in {word for found in words[0] for word in found}:
        before, after = (np.array([found[word] for found in some if word in found]) for some in words)
        moved.append(np.abs(before @ before.T - after @ after.T).mean())
    assert np.mean(moved) < 0.05
    assert turned[1]["negative"] < 0.05


def test_fastembed_opens_it(turned):
    """FastEmbed serves the turned directory unmodified, with the same vectors as `embed`."""
    fastembed = pytest.importorskip("fastembed")
    theirs = fastembed.SparseTextEmbedding(
        "Qdrant/minicoil-v1", specific_model_path=str(turned[0]), local_files_only=True
    )
    for a, b in zip(MiniCOIL.load(turned[0]).embed(TEXTS[:20]), theirs.embed(TEXTS[:20], batch_size=8)):
        order = [np.argsort(v.indices) for v in (a, b)]
        assert np.array_equal(a.indices[order[0]], np.asarray(b.indices)[order[1]])
        assert np.abs(a.values[order[0]] - b.values[order[1]]).max(initial=0) < 1e-4


def test_every_form_is_turned(turned):
    """The rounded encoders are those of the turned ones."""
    exact, rounded = (MiniCOIL.load(turned[0], precision=p) for p in ("float32", "int8_head"))
    for a, b in zip(exact.embed(TEXTS, non_negative=True), rounded.embed(TEXTS, non_negative=True)):
        assert np.abs(a.values - b.values).max(initial=0) < 0.1


def test_the_same_texts_give_the_same_bytes(signed_model, turned, tmp_path):
    """Nothing is drawn at random; another sample of texts gives another map."""
    for name, texts in (("a", TEXTS[:40]), ("b", TEXTS[:40]), ("c", TEXTS[20:])):
        rotate_model(signed_model, tmp_path / name, texts)
    a, b, c = ((tmp_path / name / "minicoil.triplet.model.npy").read_bytes() for name in "abc")
    assert a == b != c


def test_a_signed_model_is_refused(signed_model):
    """In one line, at once, for documents and queries."""
    model = MiniCOIL.load(signed_model)
    for embed in (model.embed, model.query_embed, model.embed_both):
        with pytest.raises(UserError, match="minicoil rotate --model"):
            embed(["a bat"], non_negative=True)
    assert len(list(model.embed(["a bat"]))) == 1


def test_the_command(signed_model, tmp_path):
    """The command turns a model; what it cannot do ends in one line, and nothing is left behind."""
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS[:30]) + "\n", encoding="utf-8")
    given = ["rotate", "--model", signed_model, "--documents", "texts.txt", "--out"]
    done = call(tmp_path, *given, "turned")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["words"] > 1
    assert json.loads((tmp_path / "turned" / "minicoil.json").read_text())["rotated"]
    assert "exists already" in one_line(call(tmp_path, *given, "turned"))
    again = call(tmp_path, "rotate", "--model", "turned", "--documents", "texts.txt", "--out", "more")
    assert "turned already" in one_line(again)
    assert "lies in" in one_line(call(tmp_path, *given, signed_model / "inside"))
    missing = call(tmp_path, "rotate", "--model", signed_model, "--documents", "no.txt", "--out", "more")
    assert "no.txt" in one_line(missing)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["texts.txt", "turned"]
