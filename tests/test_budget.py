"""Numbers spent where they pay: a word has its own count, and zeros behind it are only for FastEmbed."""

import json
import shutil

import numpy as np
import pytest
from calls import call, one_line
from chains import TO_MODEL, copy_before, digests, one_export, small_corpus, tiny_transformer, work
from safetensors.numpy import load_file

from minicoil import MiniCOIL, UserError
from minicoil.commands.words import add_words
from minicoil.retrieval.columns import by_hash, read_terms
from minicoil.retrieval.documents import dense_width, fill_collection, point_number
from minicoil.retrieval.export_vectors import export_vectors
from minicoil.retrieval.inverted import open_home
from minicoil.retrieval.search import explain_hits, search
from minicoil.runs.files import JOURNAL, load_json
from minicoil.runs.run import begin_run, check_parameters, open_run
from minicoil.serving.directory import ENCODERS_FILE, INT8_FILE
from minicoil.serving.padding import padding, without_padding
from minicoil.stages.export import add_forms
from minicoil.stages.rotation import rotate_model
from minicoil.stages.training import train_words

WORDS, DIM, BUDGET = ["bat", "bank", "seal"], 8, 3
TEXTS = [
    "The bat left its cave.",
    "A bat and a ball.",
    "The bank of the river, where a seal slept.",
    "The seal broke the seal of the bank.",
    "Nobody knows the zzyzx.",
]
DOCUMENTS = [(str(i), text) for i, text in enumerate(TEXTS)]
COUNTS = [2, 8, 1]  # of the words in the model that these tests are about


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A corpus that has bat, bank, seal and crane."""
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    return str(small_corpus(path, ("bat", "bank", "seal", "crane"), each=40))


@pytest.fixture(scope="module")
def given(corpus, tmp_path_factory):
    """Parameters of a quick run with a budget: a random transformer of two layers."""
    model = str(tiny_transformer(tmp_path_factory.mktemp("transformer") / "model", 64, seed=5))
    models = {"input_model": model, "target_model": model}
    words = {"words": WORDS, "corpus": [corpus], "samples": 30, "pictures": 0}
    return {**words, **models, "objective": "joint", "dim": DIM, "budget": BUDGET}


@pytest.fixture(scope="module")
def spent(given, tmp_path_factory):
    """The folder of a run with a budget, until the model."""
    folder = tmp_path_factory.mktemp("spent") / "run"
    with one_export():
        work(open_run(folder, **given), *TO_MODEL)
    return folder


@pytest.fixture(scope="module")
def counted(given, spent, tmp_path_factory):
    """The model of the same run with the counts `COUNTS`, which a random transformer would not give."""
    folder = copy_before(spent, "training", tmp_path_factory.mktemp("counted") / "run")
    run = open_run(folder)
    run.stage("training").path.mkdir()
    (run.stage("training").path / JOURNAL).touch()  # as a kill leaves it
    said = {"mean": 4.0, "price": 0.01, "numbers": COUNTS}
    (run.stage("training").path / "numbers.json").write_text(json.dumps(said))
    with one_export():
        work(run, "training", "model")
    return folder / "23_model"


def padded(model):
    """(words, dim) bool: columns that the words do not use."""
    return padding(model.numbers[1:], model.dim)


def of_word(model, vector, word):
    """{which number: value} of a word in a sparse vector."""
    first = model.vocabulary.ids[word] * model.dim
    return {i - first: x for i, x in vector.as_dict().items() if first <= i < first + model.dim}


def test_a_run_spends_its_budget(spent):
    """The counts are in the run and in the model, their mean is at most the budget, their errors are kept."""
    said = load_json(spent / "22_training" / "numbers.json")
    model, manifest = MiniCOIL.load(spent / "23_model"), load_json(spent / "22_training" / "manifest.json")
    assert said == model.info["budget"]
    assert said["mean"] == BUDGET
    assert 1 <= np.mean(said["numbers"]) <= BUDGET
    assert set(said["numbers"]) <= {1, 2, 4, 8}
    assert manifest["budget"] == {"price": said["price"], "mean": round(float(np.mean(said["numbers"])), 3)}
    errors = np.load(spent / "22_training" / "errors-00000.npy")
    assert errors.shape == (len(WORDS), 4)
    assert (errors > 0).all()
    encoders = np.asarray(model.weights)[1:]
    assert not encoders.transpose(0, 2, 1)[padded(model)].any()
    assert (np.abs(encoders).max(1) > 0)[~padded(model)].all()


def test_the_same_alone_and_after_a_kill(given, spent, tmp_path):
    """At one price a word is the same in any company; a run that goes on gives the same bytes."""
    price = load_json(spent / "22_training" / "numbers.json")["price"]
    alone = work(open_run(tmp_path / "alone", **{**given, "words": ["seal"]}), *TO_MODEL[:-2])
    train_words(alone, price)
    files = [run / "22_training" / "encoders.safetensors" for run in (spent, alone.dir)]
    encoders = [load_file(file)["encoders"] for file in files]
    assert encoders[0][2].tobytes() == encoders[1][0].tobytes()
    counts = [load_json(run / "22_training" / "numbers.json")["numbers"] for run in (spent, alone.dir)]
    assert counts[1] == counts[0][2:]
    again = open_run(copy_before(spent, "training", tmp_path / "again"))
    path = again.stage("training").path
    path.mkdir()
    (path / JOURNAL).touch()
    shutil.copyfile(spent / "22_training" / "errors-00000.npy", path / "errors-00000.npy")  # killed after it
    train_words(again)
    before, after = digests(spent / "22_training"), digests(path)
    kept = [name for name in before if name.endswith((".npy", ".safetensors")) or name.startswith("numbers")]
    assert len(kept) > 3
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}


def test_embed_writes_all_numbers(counted):
    """As FastEmbed does: `dim` numbers for each known word, zeros behind its own."""
    model = MiniCOIL.load(counted)
    assert model.numbers.tolist() == [DIM, *COUNTS]
    vectors = [*model.embed(TEXTS), *model.query_embed(TEXTS)]
    for text, vector, words in zip(TEXTS * 2, vectors, list(model.embed_words(TEXTS)) * 2):
        for word, numbers in words.items():
            own = COUNTS[WORDS.index(word)]
            found = of_word(model, vector, word)
            assert sorted(found) == list(range(DIM)), text
            assert numbers.shape == (DIM,)
            assert not numbers[own:].any()
            assert all(found[j] == 0 for j in range(own, DIM))
            assert abs(np.linalg.norm(numbers) - 1) < 1e-5


def test_fastembed_opens_it(counted):
    """FastEmbed opens the directory unmodified, and gives the same vectors."""
    fastembed = pytest.importorskip("fastembed")
    theirs = fastembed.SparseTextEmbedding("Qdrant/minicoil-v1", specific_model_path=str(counted))
    ours = MiniCOIL.load(counted)
    for a, b in zip(ours.embed(TEXTS), theirs.embed(TEXTS)):
        mine, rival = a.as_dict(), dict(zip(b.indices.tolist(), b.values.tolist()))
        assert mine.keys() == rival.keys()
        assert all(abs(mine[i] - rival[i]) < 1e-5 for i in mine)


@pytest.mark.parametrize("engine", ["qdrant", "numpy"])
def test_a_collection_holds_no_padding(counted, tmp_path, engine):
    """Only a word's own numbers are stored and asked, and every score is what it was with the zeros."""
    model, folder = MiniCOIL.load(counted), tmp_path / "home"
    full = dict(zip(TEXTS, model.embed(TEXTS, normalize=True, windows=True)))
    with open_home(folder, dense_width(model), engine=engine) as home:
        fill_collection(home, model, DOCUMENTS, avg_len=None)
        stored = {p.number: p.sparse for p in home.look_up([point_number(name) for name, _ in DOCUMENTS])}
        for name, text in DOCUMENTS:
            found = stored[point_number(name)]
            assert set(found.indices.tolist()) == set(without_padding(model, full[text]).indices.tolist())
            for word in next(model.embed_words(text)):
                assert len(of_word(model, found, word)) == COUNTS[WORDS.index(word)], text
        hits = search(home, model, "a bat at the bank", 5)
        assert len(hits) == 4
        for hit, words in explain_hits(home, model, "a bat at the bank", hits):
            assert sum(row["contribution"] for row in words) == pytest.approx(hit.score, abs=1e-4)


def test_a_true_zero_is_written(counted, tmp_path):
    """A number that is zero by its value is the word's own: it is stored, while padding is not."""
    shutil.copytree(counted, tmp_path / "model")
    encoders = np.load(tmp_path / "model" / ENCODERS_FILE)
    encoders[1 + WORDS.index("bank"), :, 5] = 0
    np.save(tmp_path / "model" / ENCODERS_FILE, encoders)
    model = MiniCOIL.load(tmp_path / "model")
    found = without_padding(model, next(model.embed("The bat at the bank.")))
    assert of_word(model, found, "bank")[5] == 0
    assert len(of_word(model, found, "bank")) == 8
    assert len(of_word(model, found, "bat")) == 2


def test_an_export_has_no_padding(counted, tmp_path):
    """Qdrant's points and the columns of other engines hold a word's own numbers only."""
    model = MiniCOIL.load(counted)
    export_vectors(model, DOCUMENTS, tmp_path / "qdrant", "qdrant", avg_len=150)
    points = load_json(tmp_path / "qdrant" / "documents-00000.json")["points"]
    full = list(model.embed(TEXTS, normalize=True, windows=True))
    for point, vector in zip(points, full):
        assert point["vector"]["minicoil"]["indices"] == without_padding(model, vector).indices.tolist()
    for engine in ("elasticsearch", "sql"):
        export_vectors(model, DOCUMENTS, tmp_path / engine, engine)
    names = load_json(tmp_path / "sql" / "export.json")["names"]
    assert {"bat_0", "bat_1", "seal_0", "bank_7"} <= set(names)
    assert not {"bat_2", "seal_1"} & set(names)
    terms = next(read_terms(model, ["The seal."]))
    assert list(by_hash(terms, model, model.vocabulary.ids)) == [3 * DIM]


def test_no_number_is_negative(counted):
    """Negative numbers are cut off; positive ones stay, and padding stays zero."""
    model = MiniCOIL.load(counted)
    for texts in (TEXTS, TEXTS[::-1]):
        for cut, signed in zip(model.embed(texts, non_negative=True), model.embed(texts)):
            assert (cut.values >= 0).all()
            assert np.array_equal(cut.values[signed.values > 0], signed.values[signed.values > 0])
            padded_away = set(signed.indices.tolist()) - set(without_padding(model, signed).indices.tolist())
            assert all(cut.as_dict()[i] == 0 for i in padded_away)


def test_turned_afterwards(counted, tmp_path):
    """A model that is turned later keeps its counts, its cosines, and zeros behind them."""
    signed = tmp_path / "signed"
    shutil.copytree(counted, signed, ignore=shutil.ignore_patterns("manifest.json"))
    info = load_json(signed / "minicoil.json")
    del info["rotated"]
    (signed / "minicoil.json").write_text(json.dumps(info))
    rotate_model(signed, tmp_path / "turned", TEXTS)
    before, after = MiniCOIL.load(signed), MiniCOIL.load(tmp_path / "turned")
    assert after.numbers.tolist() == before.numbers.tolist()
    assert not np.asarray(after.weights)[1:].transpose(0, 2, 1)[padded(after)].any()
    for word in ("bat", "bank"):
        found = [[w[word] for w in m.embed_words(TEXTS) if word in w] for m in (before, after)]
        a, b = map(np.array, found)
        assert np.abs(a @ a.T - b @ b.T).max() < 0.01


@pytest.mark.parametrize("numbers", ["int8", "float32"])
def test_the_small_form_keeps_the_counts(counted, tmp_path, numbers):
    """Small and full again: the counts stay, and nothing lies behind them."""
    model = MiniCOIL.load(counted)
    model.save(tmp_path / "small", form="small", reduce=True, numbers=numbers)
    MiniCOIL.load(tmp_path / "small").save(tmp_path / "full")
    for folder in ("small", "full"):
        found = MiniCOIL.load(tmp_path / folder)
        assert found.numbers.tolist() == model.numbers.tolist()
        assert not np.asarray(found.weights)[1:].transpose(0, 2, 1)[padded(model)].any()
        for ours, theirs in zip(found.embed(TEXTS), model.embed(TEXTS)):
            assert ours.indices.tolist() == theirs.indices.tolist()
            assert ours.values @ theirs.values > 0.9 * (theirs.values @ theirs.values)


def test_int8_keeps_the_zeros(counted, tmp_path):
    """The int8 encoders have zeros where the others have them."""
    shutil.copytree(counted, tmp_path / "model")
    add_forms(tmp_path / "model")
    assert (tmp_path / "model" / INT8_FILE).exists()
    model = MiniCOIL.load(tmp_path / "model", precision="int8_head")
    assert model.numbers.tolist() == [DIM, *COUNTS]
    for words in model.embed_words(TEXTS):
        assert all(not numbers[COUNTS[WORDS.index(word)] :].any() for word, numbers in words.items())


def test_new_words_pay_the_price(spent, corpus, tmp_path):
    """A word added later has the count that its own errors give at the model's price; the old words stay."""
    before = MiniCOIL.load(spent / "23_model")
    add_words(spent / "23_model", ["crane"], [corpus], out=tmp_path / "grown")
    before.save(tmp_path / "small", form="small", reduce=True)
    add_words(tmp_path / "small", ["crane"], [corpus], out=tmp_path / "small_grown")
    for folder in ("grown", "small_grown"):
        after = MiniCOIL.load(tmp_path / folder)
        assert after.numbers[: len(before.numbers)].tolist() == before.numbers.tolist()
        assert after.info["budget"]["price"] == before.info["budget"]["price"]
        assert 1 <= after.numbers[-1] <= DIM
        assert not np.asarray(after.weights)[1:].transpose(0, 2, 1)[padded(after)].any()
        assert len(next(after.embed_words("A crane."))["crane"]) == DIM
    grown = MiniCOIL.load(tmp_path / "grown")
    assert np.array_equal(np.asarray(grown.weights)[:-1], np.asarray(before.weights))


def test_a_word_trained_again_keeps_its_count(counted, given, tmp_path):
    """A run that starts from the model gives each word as many numbers as it had."""
    from minicoil.commands.chain import from_model

    again = from_model({"start_from": str(counted), "corpus": given["corpus"], "pictures": 0})
    with one_export():
        run = work(open_run(tmp_path / "again", **again), *TO_MODEL)
    model = MiniCOIL.load(run.stage("model").path)
    assert model.numbers.tolist() == [DIM, *COUNTS]
    assert not np.asarray(model.weights)[1:].transpose(0, 2, 1)[padded(model)].any()


def test_damaged_counts_are_refused(counted, tmp_path):
    """Counts that cannot be those of the words are one clear line."""
    shutil.copytree(counted, tmp_path / "model")
    info = load_json(tmp_path / "model" / "minicoil.json")
    for wrong in ([2, 8], [2, 9, 1], [0, 8, 1], None):
        info["budget"]["numbers"] = wrong
        (tmp_path / "model" / "minicoil.json").write_text(json.dumps(info))
        with pytest.raises(UserError, match="numbers of the words do not fit"):
            MiniCOIL.load(tmp_path / "model")


REFUSED = {
    "budget is 0.5; it must be between 1 and dim, which is 16": ["--budget", "0.5", "--objective", "joint"],
    "between 1 and dim, which is 8": ["--budget", "9", "--dim", "8", "--objective", "fit"],
    "with a budget it can be 2, 4, 8 or 16": ["--budget", "3", "--dim", "6", "--objective", "joint"],
    "budget needs --objective fit or joint: graph": ["--budget", "4"],
    "budget is nan; it must be a number": ["--budget", "nan", "--objective", "joint"],
}


@pytest.mark.parametrize("message", REFUSED)
def test_refused(message, tmp_path):
    """What cannot be meant is one line, exit code 2, and nothing is written."""
    done = call(tmp_path, "run", "--words", "bat", *REFUSED[message], "--out", tmp_path / "run")
    assert message in one_line(done)
    assert not (tmp_path / "run").exists()


def test_a_finished_run_takes_no_other_budget(spent, tmp_path):
    """Neither one with another budget, nor one of before there were budgets."""
    shutil.copytree(spent, tmp_path / "run")
    with pytest.raises(UserError, match="was made with budget 3.0, not 2.0"):
        begin_run(tmp_path / "run", check_parameters({**recorded(tmp_path / "run"), "budget": 2.0}))
    record = load_json(tmp_path / "run" / "run.json")
    del record["parameters"]["budget"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="was made with budget 0.0, not 2.0: .*--from training"):
        begin_run(tmp_path / "run", check_parameters({**recorded(tmp_path / "run"), "budget": 2.0}))


def recorded(folder):
    """The parameters that a run's folder records."""
    return load_json(folder / "run.json")["parameters"]
