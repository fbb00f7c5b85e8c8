"""The two readings of a text, FastEmbed's and ours; words that share an index; refusals; other processes."""
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_serving import FASTEMBED, Vector, compare, dot, python

from minicoil import MiniCOIL, UserError

# Pairs of numbers whose hashes differ by their sign alone.
SHARED = ["The Boeing 757 has tail number 4904.", "Flight 4904, 757, and 757 again", "757 4904"]
SIGNS = ["®", "™", "©", "²", "°", "🍕"]


@pytest.fixture(scope="module")
def model(model_folder):
    return MiniCOIL.load(model_folder)


@pytest.fixture(scope="module")
def other_model(model_folder):
    """A model whose parameters a test may change."""
    return MiniCOIL.load(model_folder)


def long_text(end, model, n=300):
    """A text that fills two windows and more, with `end` on the last."""
    assert "word" not in model.words
    return "word " * n + end


# Words that share an index

@pytest.mark.parametrize("text", SHARED)
@pytest.mark.parametrize("windows", [False, True])
def test_an_index_stands_once(model, text, windows):
    """Documents, queries and long texts have each index once, though two words share it."""
    whole = long_text(text, model) if windows else text
    options = {"windows": True} if windows else {}
    for vector in (next(model.embed([whole], **options)), next(model.query_embed([whole], **options)),
                   model.embed_both([whole], **options)[1][0]):
        assert len(set(vector.indices.tolist())) == len(vector.indices)
        assert vector.indices.dtype == np.int32
        assert vector.values.dtype == np.float32


@pytest.mark.parametrize("text", SHARED)
def test_a_shared_index_has_the_sum(model, text):
    """Such an index holds the sum of what FastEmbed writes twice: in documents the weights, in queries 2."""
    from minicoil.serving.sparse import bm25_weight, unknown_index
    shared = unknown_index("757", model.shift)
    assert shared == unknown_index("4904", model.shift)
    read = model.read(model.tokenizer.encode(text).ids)
    weights = [bm25_weight(read.stems[s], read.length) for s in ("757", "4904")]
    assert next(model.embed([text])).as_dict()[shared] == pytest.approx(sum(weights), abs=1e-6)
    assert next(model.query_embed([text])).as_dict()[shared] == 2


def test_fastembed_apart_from_shared_indexes(model, model_folder):
    """FastEmbed's vectors, their values summed at indexes that it writes twice, are ours."""
    pytest.importorskip("fastembed")
    found = python(FASTEMBED, model_folder, given=json.dumps(SHARED)).splitlines()
    theirs = [[Vector(*v) for v in json.loads(line)] for line in found]
    for vectors, ours in zip(theirs, (model.embed(SHARED), model.query_embed(SHARED))):
        for vector, mine in zip(vectors, ours):
            summed: dict[int, float] = {}
            for i, value in zip(vector.indices.tolist(), vector.values.tolist()):
                summed[i] = summed.get(i, 0.0) + value
            assert len(summed) < len(vector.indices)
            assert summed == pytest.approx(mine.as_dict(), abs=1e-5)


@pytest.mark.parametrize("query", ["boeing 757", "757 4904", "4904"])
@pytest.mark.parametrize("text", SHARED)
def test_a_shared_index_is_explained(model, query, text):
    """The contributions sum to the product of the vectors where words share an index."""
    rows = model.explain(query, text)
    product = dot(next(model.query_embed(query)), next(model.embed(text)))
    assert product > 0
    assert sum(row["contribution"] for row in rows) == pytest.approx(product, abs=1e-5)


# Signs, and the two readings

WAYS = [{"normalize": n, "windows": w} for n in (False, True) for w in (False, True)]


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_score_is_explained_in_its_reading(model, sign, way):
    """Whatever sign stands at a word, on either side: the contributions sum to the product of the vectors."""
    texts = [f"The new Bat{sign} account", f"A bat, the Bat{sign}", long_text(f"bat and Bat{sign}", model)]
    for query in ("bat account", f"new Bat{sign} account", "account"):
        asked = next(model.query_embed(query, **way))
        for text in texts:
            rows = model.explain(query, text, **way)
            product = dot(asked, next(model.embed(text, **way)))
            assert sum(row["contribution"] for row in rows) == pytest.approx(product, abs=1e-5), (query, text)


@pytest.mark.parametrize("sign", SIGNS)
def test_our_reading_finds_a_word_with_a_sign(model, sign):
    """Normalised, a word with a sign is the word on both sides; FastEmbed's reading does not know it."""
    assert "bat" not in next(model.embed_words(f"The new Bat{sign} account"))
    assert "bat" in next(model.embed_words(f"The new Bat{sign} account", normalize=True))
    assert [row["word"] for row in model.explain("bat", f"The Bat{sign}", normalize=True)] == ["bat"]
    assert [row["word"] for row in model.explain(f"bat{sign}", "The bat", normalize=True)] == ["bat"]


PRINTED = {"ｂａｔ caves": "bat caves", "ﬁne ﬂying bats": "fine flying bats",
           "pizza🍕 and bats": "pizza and bats", "ba\u00adt": "bat"}


@pytest.mark.parametrize("text, plain", PRINTED.items())
def test_our_reading_is_that_of_plain_text(model, text, plain):
    """Full-width letters, ligatures, pictures and soft hyphens of PDF text lose no word."""
    found, wanted = (next(model.readings(t, normalize=True)) for t in (text, plain))
    assert found.counts == wanted.counts
    assert wanted.stems.items() <= found.stems.items()


@pytest.mark.parametrize("control", ["\f", "\0", "\v", "\x1f", "\x85", "\x7f"], ids=ascii)
def test_a_control_character_parts_words(model, control):
    """Two words on both sides of a page's end are two words."""
    parted, spaced = (list(model.embed([f"a cave{x}bat flew"], normalize=True))[0] for x in (control, " "))
    assert parted.as_dict() == spaced.as_dict()


def test_word_spans_point_into_the_text_of_the_user(model):
    """A word is marked where it stands in the user's text, though it was normalised before."""
    text = "ﬁne🍕 Bat®, ｂａｔｓ"
    for spans in (model.word_spans(text, normalize=True), model.word_spans("A bat and bats")):
        assert len(spans["bat"]) == 2
    assert [text[a:b] for a, b in model.word_spans(text, normalize=True)["bat"]] == ["Bat", "ｂａｔｓ"]


def test_plain_text_reads_the_same_in_both(model):
    """Text in ASCII has one vector, normalised or not."""
    texts = ["A bat left its cave.", "He broke his bat; it was made of ash!", ""]
    compare(model.embed(texts, normalize=True), model.embed(texts))
    compare(model.query_embed(texts, normalize=True), model.query_embed(texts))


# Windows

def test_embed_cuts_unless_told_otherwise(model):
    """By default a text is cut after the transformer's tokens, as FastEmbed does; windows read all of it."""
    text = long_text("bat", model)
    assert list(next(model.embed_words(text))) == []
    assert list(next(model.embed_words(text, windows=True))) == ["bat"]
    first = model.tokenizer.truncation["max_length"] - 2
    compare(model.embed([text]), model.embed(["word " * first]))
    cut, whole = next(model.embed([text])).as_dict(), next(model.embed([text], windows=True)).as_dict()
    assert cut.keys() < whole.keys()


def test_a_short_text_has_one_vector(model):
    """A text that fits has the same vectors cut or in windows, dense and sparse."""
    texts = ["A bat left its cave.", "", "The bank of the river"]
    compare(model.embed(texts, windows=True), model.embed(texts))
    assert np.abs(model.embed_both(texts, windows=True)[0] - model.embed_both(texts)[0]).max() < 1e-5


def test_a_stem_in_another_window_counts_as_the_word(model):
    """The rule for a stem that is a word of the text holds over all its windows."""
    text = "bat " + long_text("Bat®", model)
    read = next(model.readings(text, windows=True))
    assert read.counts[model.vocabulary.ids["bat"]] == 2
    assert "bat" not in read.stems


def test_readings_count_what_is_embedded(model):
    """`readings` and `embed` see the same words, in each reading."""
    texts = ["A bat®, ﬁne", long_text("bats in caves", model), ""]
    for way in WAYS:
        for read, vector in zip(model.readings(texts, **way), model.embed(texts, **way)):
            assert len(vector.indices) == len(read.counts) * model.dim + len(read.stems)


def test_an_explanation_needs_no_transformer(model, monkeypatch):
    """What an index holds of a document is enough to explain a hit: no forward pass, and the same rows."""
    from minicoil.serving.explanations import explain_vectors, read_query
    query, text = "bats in a cave", long_text("The bat left its cave.", model)
    vector, wanted = next(model.embed([text], windows=True)), model.explain(query, text, windows=True)
    asked = read_query(model, query)
    monkeypatch.setattr(model, "session", None)
    monkeypatch.setattr(model, "lane", None)
    rows = explain_vectors(model, asked, vector)
    assert [row["word"] for row in rows] == [row["word"] for row in wanted] == ["cave", "bat"]
    shares, expected = ([row["contribution"] for row in some] for some in (rows, wanted))
    assert shares == pytest.approx(expected, abs=1e-5)


# Other processes

UNGUARDED = """
import sys
from minicoil import MiniCOIL
model = MiniCOIL.load(sys.argv[1])
print(len(list(model.embed(["a bat"] * 70, batch_size=1, parallel=2))))
"""
GUARDED = UNGUARDED.replace("print(", 'if __name__ == "__main__":\n    print(')
POOL = """
import sys
from minicoil import load_sparse_encoder
if __name__ == "__main__":
    encoder, texts = load_sparse_encoder(sys.argv[1]), ["a bat in a cave", "a river bank"] * 4
    pool = encoder.start_multi_process_pool(["cpu", "cpu"])
    found = encoder.encode_document(texts, pool=pool)
    encoder.stop_multi_process_pool(pool)
    assert found.to_dense().allclose(encoder.encode_document(texts).to_dense(), atol=1e-5)
    print(len(texts))
"""


def script(tmp_path, code, model_folder):
    """A finished Python script, which takes the model's folder."""
    (tmp_path / "script.py").write_text(code)
    command = [sys.executable, tmp_path / "script.py", model_folder]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=1800, env=offline)


one_core = len(os.sched_getaffinity(0)) < 2
needs_two = pytest.mark.skipif(one_core, reason="on one core there are no other processes")


@needs_two
def test_parallel_without_a_guard(tmp_path, model_folder):
    """A script without a main guard ends soon, with one traceback and a line that says what to do."""
    done = script(tmp_path, UNGUARDED, model_folder)
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1
    assert 'if __name__ == "__main__"' in done.stderr.splitlines()[-1]


@needs_two
def test_parallel_with_a_guard(tmp_path, model_folder):
    """With the guard it runs."""
    done = script(tmp_path, GUARDED, model_folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "70\n", "")


def test_a_pool_of_sentence_transformers(tmp_path, model_folder):
    """The multi-process pool of sentence-transformers encodes with the model."""
    done = script(tmp_path, POOL, model_folder)
    assert (done.returncode, done.stdout) == (0, "8\n"), done.stderr


@needs_two
def test_parallel_reads_as_this_process_does(model):
    """Other processes get the reading, and the average length that was set after loading."""
    texts = ["The Bat® and the bank", long_text("bat", model)] * 20
    model.avg_len, before = 20.0, model.avg_len
    try:
        way = {"normalize": True, "windows": True}
        compare(model.embed(texts, batch_size=1, parallel=2, **way), list(model.embed(texts[:2], **way)) * 20)
    finally:
        model.avg_len = before


@pytest.mark.parametrize("most", [1, 3, 10**9])
def test_max_active_dims(model_folder, most):
    """A SparseEncoder keeps the numbers of a text that are largest, as many as it is asked for."""
    from minicoil import load_sparse_encoder
    encoder, texts = load_sparse_encoder(model_folder), ["a bat in a cave", "the bank by the river", ""]
    for encode in (encoder.encode_document, encoder.encode_query):
        whole, few = encode(texts).to_dense(), encode(texts, max_active_dims=most).to_dense()
        for all_of_it, kept in zip(whole, few):
            size = min(most, int((all_of_it != 0).sum()))
            assert int((kept != 0).sum()) == size
            assert all_of_it.abs().topk(size).values.equal(kept.abs().topk(size).values)
    with pytest.raises(ValueError):
        encoder.encode_document(texts, max_active_dims=0)


# What is refused

ODD = st.one_of(
    st.none(), st.booleans(), st.text(max_size=5), st.binary(max_size=5), st.floats(), st.integers(),
    st.sampled_from([0, -1, 10**6, 10**9, 10**30, 1e9, -0.0, float("nan"), float("inf"), [], {}, [1]]))
# A number of processes that is taken starts them, and they load the model: those are tried above.
NO_PROCESS = ODD.filter(lambda x: not isinstance(x, int) or x in (True, 1) or x < 0)
tried = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))


def right_or_one_line(call, right):
    """A call gives the right result, or a `UserError` of one line that is not long."""
    try:
        found = call()
    except UserError as e:
        assert "\n" not in str(e)
        assert len(str(e)) < 250
        return
    assert right(found)


@tried
@given(size=ODD, parallel=NO_PROCESS)
def test_fuzz_of_counts(model, size, parallel):
    """`batch_size` and `parallel` of every method: the right vectors, or one line."""
    text, right = "a bat in a cave", next(model.embed("a bat in a cave")).indices.tolist()

    def same(vectors):
        return [v.indices.tolist() for v in vectors] == [right]
    right_or_one_line(lambda: list(model.embed(text, batch_size=size, parallel=parallel)), same)
    right_or_one_line(lambda: list(model.query_embed(text, batch_size=size)), same)
    right_or_one_line(lambda: model.embed_both(text, batch_size=size, parallel=parallel)[1], same)
    right_or_one_line(lambda: list(model.embed_words(text, batch_size=size)), lambda words: len(words) == 1)


@tried
@given(name=st.sampled_from(["threads", "k", "b", "avg_len", "precision", "providers"]), value=ODD)
def test_fuzz_of_loading(model_folder, name, value):
    """The numbers of `MiniCOIL.load`: a model whose vectors are finite, or one line."""
    def finite(model):
        return all(np.isfinite(v.values).all() for v in model.embed(["bat", "a bat in a cave " * 30]))
    right_or_one_line(lambda: MiniCOIL.load(model_folder, **{name: value}), finite)


@tried
@given(name=st.sampled_from(["k", "b", "avg_len"]), value=ODD)
def test_fuzz_of_setting(other_model, name, value):
    """A number that is set on an opened model: its vectors are finite, or one line and the old number."""
    model = other_model
    before = getattr(model, name)

    def set_and_embed():
        setattr(model, name, value)
        return list(model.embed(["bat", "a bat in a cave " * 30]))

    right_or_one_line(set_and_embed, lambda found: all(np.isfinite(v.values).all() for v in found))
    assert np.isfinite(getattr(model, name))
    setattr(model, name, before)


@pytest.mark.parametrize("name, value", [
    ("k", float("inf")), ("k", -1), ("k", "much"), ("b", 1.1), ("b", -0.1), ("b", None), ("b", float("nan")),
    ("avg_len", -1), ("avg_len", 0), ("avg_len", 1e300), ("avg_len", "auto"), ("avg_len", [150]),
])
def test_a_parameter_that_is_set_is_checked(model, name, value):
    """BM25's parameters are checked where they are set on an opened model, not only where it is opened."""
    before = getattr(model, name)
    with pytest.raises(UserError, match=rf"^{name} is .*: it must be a number from"):
        setattr(model, name, value)
    assert getattr(model, name) == before


def test_a_parameter_that_is_set_counts(model_folder):
    """A number that is set is used by the next vectors, and by a copy of the model."""
    import pickle
    model, other = MiniCOIL.load(model_folder), MiniCOIL.load(model_folder, k=2, b=0, avg_len=10)
    model.k, model.b, model.avg_len = 2, np.float32(0), "10"
    for one in (model, pickle.loads(pickle.dumps(model))):
        assert (one.k, one.b, one.avg_len) == (2.0, 0.0, 10.0)
        assert next(one.embed("a bat, a bat")).as_dict() == next(other.embed("a bat, a bat")).as_dict()


@pytest.mark.parametrize("path", [None, 3, b"model", "", "\0", "x" * 5000, [], float("nan")])
def test_a_path_that_is_none(path):
    """Something that cannot be a model's path is refused in one line."""
    with pytest.raises(UserError) as e:
        MiniCOIL.load(path)
    assert "\n" not in str(e.value)


NESTED = st.recursive(ODD, lambda inner: st.lists(inner, max_size=3), max_leaves=4)


@tried
@given(texts=NESTED)
def test_fuzz_of_texts(model, texts):
    """Whatever is given for texts: as many vectors as there are texts, or one line."""
    def counted(vectors):
        return len(vectors) == (1 if isinstance(texts, str) else len(texts))
    for windows in (False, True):
        right_or_one_line(lambda w=windows: list(model.embed(texts, windows=w)), counted)
        right_or_one_line(lambda w=windows: list(model.query_embed(texts, windows=w)), counted)
        right_or_one_line(lambda w=windows: list(model.embed_words(texts, windows=w)), counted)
        right_or_one_line(lambda w=windows: list(model.readings(texts, windows=w)), counted)
        right_or_one_line(lambda w=windows: model.embed_both(texts, windows=w)[1], counted)


@tried
@given(query=ODD, text=ODD, idf=ODD)
def test_fuzz_of_explain(model, query, text, idf):
    """Whatever is explained or marked: rows, or one line."""
    right_or_one_line(lambda: model.word_spans(text, normalize=True), lambda spans: isinstance(spans, dict))
    right_or_one_line(lambda: model.explain(query, text, idf), lambda rows: isinstance(rows, list))


CHARACTERS = st.one_of(st.characters(), st.sampled_from("®™©²°½🍕ﬁｂ\u00ad\u200b\ufeff'-./4"))


@tried
@given(words=st.lists(st.one_of(st.just("bat"), st.just("bats"), st.just("757"), st.just("4904"),
                                st.text(CHARACTERS, max_size=6)), max_size=12),
       joints=st.lists(CHARACTERS, min_size=12, max_size=12), query=st.text(CHARACTERS, max_size=8))
def test_fuzz_of_signs(model, words, joints, query):
    """Any text with signs, in any reading: each index once, and explanations that sum to the score."""
    text, query = "".join(w + j for w, j in zip(words, joints)), f"bat 757 {query}"
    for way in WAYS:
        try:
            vector, asked = next(model.embed(text, **way)), next(model.query_embed(query, **way))
        except UserError:  # a lone surrogate
            continue
        assert len(set(vector.indices.tolist())) == len(vector.indices)
        total = sum(row["contribution"] for row in model.explain(query, text, **way))
        assert total == pytest.approx(dot(asked, vector), abs=1e-4)


@pytest.mark.parametrize("empty", [[], (), iter([]), np.array([], str), {}])
def test_no_texts(model, empty):
    """No texts have no vectors."""
    assert list(model.embed(empty)) == []
    dense, sparse = model.embed_both([])
    assert dense.shape == (0, model.embed_both(["bat"])[0].shape[1])
    assert sparse == []


def test_a_generator_and_an_array(model):
    """Texts may come from a generator, or as an array of texts."""
    texts = ["a bat", "a cave"]
    compare(model.embed(t for t in texts), model.embed(texts))
    compare(model.embed(np.array(texts)), model.embed(texts))
