"""`minicoil add-words`.

A finished model learns new words, keeps all it knew to the byte, and survives any kill whole.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from calls import call
from chains import TO_MODEL, digests, end_all, start, tiny_transformer, work
from conftest import minicoil
from safetensors.numpy import load_file, save_file

from minicoil import MiniCOIL
from minicoil.commands.words import add_words, report
from minicoil.runs.files import UserError, load_json
from minicoil.runs.run import open_run
from minicoil.serving.directory import ENCODERS_FILE

OLD, NEW = ["bat", "bank"], ["seal", "crane"]


@pytest.fixture(autouse=True)
def no_process_left():
    yield
    end_all()


def copy_of(tiny_run, folder):
    """A copy of the run's model directory alone. Returns it."""
    return shutil.copytree(tiny_run / "23_model", folder)


def corpus_of(tiny_run):
    """The corpus the run was trained on."""
    return load_json(tiny_run / "run.json")["parameters"]["corpus"]


@pytest.fixture(scope="module")
def grown(tiny_run, tmp_path_factory):
    """(finished command, folder before, folder after, list of documents).

    Seal and crane added in place, and words that cannot be.
    """
    folder = tmp_path_factory.mktemp("grown")
    before, after = copy_of(tiny_run, folder / "before"), copy_of(tiny_run, folder / "after")
    done = minicoil(
        "add-words",
        "--model",
        "after",
        "--words",
        "Seal,crane,bat,bats,the,zzyzx,two words",
        "--corpus",
        *corpus_of(tiny_run),
        "--list",
        "list.jsonl",
        cwd=folder,
    )
    return done, before, after, folder / "list.jsonl"


def test_old_rows_and_ids_stay(grown):
    """The old words' matrices are the same bytes at the same place, new ones follow.

    Nothing else lies in the folder than before.
    """
    done, before, after, _ = grown
    assert done.returncode == 0, done.stderr
    a, b = np.load(before / ENCODERS_FILE), np.load(after / ENCODERS_FILE)
    assert b[: len(a)].tobytes() == a.tobytes()
    assert b.shape == (5, *a.shape[1:])
    assert b.dtype == a.dtype
    assert MiniCOIL.load(after).words == OLD + NEW
    assert np.abs(b[3:]).max() > 0
    assert digests(before).keys() == digests(after).keys()
    changed = {name for name, digest in digests(before).items() if digests(after)[name] != digest}
    assert changed == {
        ENCODERS_FILE,
        "minicoil.triplet.model.vocab",
        "minicoil.json",
        "README.md",
        "manifest.json",
    }
    assert not [f for f in after.parent.iterdir() if f.name.startswith(".")]


def test_old_texts_keep_their_vectors(grown):
    """A text without a new word gets the same vector as before, unknown words included."""
    before, after = map(MiniCOIL.load, grown[1:3])
    for text in (
        "Bats left the cave near the bank.",
        "zzyzx and other unknown things",
        "",
        "batting at the banks",
    ):
        a, b = next(before.embed([text])), next(after.embed([text]))
        assert np.array_equal(a.indices, b.indices)
        assert np.array_equal(a.values, b.values)


def test_new_words_are_known(grown):
    """New words are found in their inflected forms, with unit vectors at indexes of their own."""
    after = MiniCOIL.load(grown[2])
    vectors = next(after.embed_words(["Seals watched the cranes and a bat."]))
    assert list(vectors) == ["seal", "crane", "bat"]
    assert all(abs(np.linalg.norm(v) - 1) < 1e-5 for v in vectors.values())
    assert set(next(after.query_embed(["seal"])).indices.tolist()) == {9, 10, 11}


def test_same_as_trained_at_once(grown, tiny_run, tmp_path):
    """A word added later has the matrix it would have got in the first run."""
    given = load_json(tiny_run / "run.json")["parameters"]
    run = work(open_run(tmp_path / "whole", **{**given, "words": OLD + NEW}), *TO_MODEL[:-1])
    from safetensors.numpy import load_file

    whole = load_file(run.stage("training").path / "encoders.safetensors")["encoders"]
    assert np.load(grown[2] / ENCODERS_FILE)[1:].tobytes() == whole.tobytes()


def test_left_out_words_are_named(grown):
    """Words that cannot be added are named with their reasons in one warning, and recorded."""
    done, _, after, _ = grown
    (line,) = done.stderr.splitlines()
    for part in (
        "bat: the model has it already",
        "bats: bats is a form of the model's word bat",
        "the: a stop word",
        "zzyzx: not in the corpus",
        "two words: 2 words",
    ):
        assert part in line
    (added,) = load_json(after / "minicoil.json")["added"]
    assert added["words"] == NEW
    assert set(added["left_out"]) == {"bat", "bats", "the", "zzyzx", "two words"}


def test_documents_to_embed_again(grown, tiny_run):
    """The list names exactly the documents whose vectors changed, by their number in the corpus.

    The command says how many and that the rest stays.
    """
    done, before, after, listed = grown
    texts = Path(corpus_of(tiny_run)[0]).read_text(encoding="utf-8").splitlines()
    a, b = (list(MiniCOIL.load(f).embed(texts)) for f in (before, after))
    changed = [i for i, (x, y) in enumerate(zip(a, b)) if not np.array_equal(x.indices, y.indices)]
    rows = [json.loads(line) for line in listed.read_text().splitlines()]
    assert [row["document"] for row in rows] == changed
    assert changed
    assert all(set(row["words"]) <= set(NEW) for row in rows)
    assert f"{len(changed)} of the {len(texts)} documents" in done.stdout
    assert "unknown words keep their indexes" in done.stdout


def test_card_and_record(grown):
    """Card and minicoil.json are brought up to date: number of words, table, origin of the new words."""
    card, info = (grown[2] / "README.md").read_text(), load_json(grown[2] / "minicoil.json")
    assert "# A miniCOIL model of 4 words" in card
    assert card.count("## Words added later") == 1
    assert "- seal, crane: corpus `corpus.txt`" in card
    assert all(card.count(f"| {word} |") == 1 for word in OLD + NEW)
    assert set(info["quality"]) == {*OLD, *NEW}


def test_twice_and_from_a_run(grown, tiny_run, tmp_path):
    """From an earlier run's documents, one word after the other, into new directories.

    The same rows as at once from the corpus.
    """
    start_ = copy_of(tiny_run, tmp_path / "start")
    untouched = digests(start_)
    facts = add_words(start_, ["seal"], run=tiny_run, out=tmp_path / "one")
    add_words(tmp_path / "one", ["crane"], run=tiny_run, out=tmp_path / "two")
    assert digests(start_) == untouched
    assert facts["left_out"] == {}
    assert (tmp_path / "two" / ENCODERS_FILE).read_bytes() == (grown[2] / ENCODERS_FILE).read_bytes()
    assert (tmp_path / "two" / "README.md").read_text().count("- ") >= 2
    assert len(load_json(tmp_path / "two" / "minicoil.json")["added"]) == 2
    assert sorted(f.name for f in tmp_path.iterdir()) == ["one", "start", "two"]


def test_run_stays_valid(tiny_run, tmp_path):
    """Words added to the model of a run leave a run whose stage is still whole.

    While the run is at work they are refused.
    """
    run = shutil.copytree(tiny_run, tmp_path / "run")
    add_words(run / "23_model", ["seal"], run=tiny_run)
    assert open_run(run).stage("model").done
    assert open_run(run).stage("model").manifest["words"] == 3
    with open_run(run).working("training"), pytest.raises(UserError, match="at work"):
        add_words(run / "23_model", ["crane"], run=tiny_run)


def test_moved_indexes_are_said(tmp_path):
    """When unknown words' indexes move, the report says so plainly and asks for all documents."""
    facts = dict(
        words=["w"],
        first_id=8000,
        touched=3,
        documents=10,
        looked_through=10,
        indexed=False,
        shift=[64_000, 96_000],
        list="",
    )
    assert "MOVED" in report(facts)[-1]
    assert "every document" in report(facts)[-1]
    assert "96,000" in report(facts)[-1]
    assert "MOVED" not in "".join(report({**facts, "shift": [64_000, 64_000]}))


def test_shift_of_a_large_model(tiny_run, tmp_path, monkeypatch):
    """At the edge of a step of 32,000 one more word moves the indexes of unknown words.

    `add_words` reports where they began and begin.
    """
    folder = copy_of(tiny_run, tmp_path / "model")
    n = 32_000 // 3 - 1
    vocabulary = json.loads((folder / "minicoil.triplet.model.vocab").read_text())
    filler = [f"filler{'abcdefghij'[i % 10]}{i}" for i in range(n - 2)]
    vocabulary = {
        "vocab": [*vocabulary["vocab"], *filler],
        "stem_mapping": {**vocabulary["stem_mapping"], **{w: w for w in filler}},
    }
    (folder / "minicoil.triplet.model.vocab").write_text(json.dumps(vocabulary))
    np.save(
        folder / ENCODERS_FILE,
        np.concatenate([np.load(folder / ENCODERS_FILE), np.zeros((n - 2, 64, 3), np.float32)]),
    )
    before = np.load(folder / ENCODERS_FILE)
    facts = add_words(folder, ["seal"], run=tiny_run)
    assert facts["shift"] == [64_000, 96_000]
    assert "MOVED" in report(facts)[-1]
    assert facts["first_id"] == n + 1
    assert np.load(folder / ENCODERS_FILE)[:-1].tobytes() == before.tobytes()


@pytest.fixture(scope="module")
def small_grown(tiny_run, grown, tmp_path_factory):
    """(small form before, the same after `add-words` in place)."""
    from minicoil.stages.centroids import write_centroids

    folder = tmp_path_factory.mktemp("small")
    MiniCOIL.load(grown[1]).save(folder / "before", form="small", reduce=True)
    write_centroids(tiny_run, folder / "before")
    shutil.copytree(folder / "before", folder / "after")
    given = ("--words", "seal,crane", "--corpus", *corpus_of(tiny_run))
    done = minicoil("add-words", "--model", "after", *given, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["after", "before"]
    return folder / "before", folder / "after"


def test_a_small_form_learns_words(small_grown, grown, tiny_run):
    """A model in the small form stays in it; old words keep their vectors, new ones mean what they should."""
    before, after, full = map(MiniCOIL.load, (*small_grown, grown[2]))
    assert not (small_grown[1] / ENCODERS_FILE).exists()
    assert after.words == OLD + NEW
    assert (after.folder / "README.md").read_text().count("of 4 words") == 1
    for text in ("Bats left the cave near the bank.", "zzyzx", ""):
        a, b = next(before.embed([text])), next(after.embed([text]))
        assert np.array_equal(a.indices, b.indices)
        assert np.array_equal(a.values, b.values)
    corpus = Path(corpus_of(tiny_run)[0]).read_text(encoding="utf-8").splitlines()
    for word in NEW:
        texts = [text for text in corpus if word in text]
        rows = [np.array([v[word] for v in m.embed_words(texts) if word in v]) for m in (after, full)]
        nearness = [(found @ found.T).ravel() for found in rows]
        assert len(rows[0]) == len(rows[1]) > 20
        assert np.corrcoef(*nearness)[0, 1] > 0.4  # by chance 0; turned words, in few bits


def test_a_small_form_keeps_its_facts(small_grown):
    """Facts, centroids and manifest are brought up to date; the old centroids stay where they are."""
    from minicoil.serving.centroids import load_centroids

    before, after = map(MiniCOIL.load, small_grown)
    assert list(after.info["quality"]) == OLD + NEW
    assert after.info["added"][0]["words"] == NEW
    assert len((small_grown[1] / "minicoil.json").read_text().splitlines()) < 40
    old, new = load_centroids(before), load_centroids(after)
    assert new.numbers.shape == (4, old.numbers.shape[1])
    assert np.array_equal(new.numbers[:2], old.numbers)
    assert np.abs(new.numbers[2:]).max() > 0
    facts = load_json(small_grown[1] / "manifest.json")
    assert facts["words"] == 4
    assert all((small_grown[1] / name).stat().st_size == size for name, size in facts["files"].items())


def test_a_small_form_that_grew_is_expanded(small_grown, tmp_path):
    """`export --form full` of the grown small form gives the same vectors, to 1e-5."""
    MiniCOIL.load(small_grown[1]).save(tmp_path / "full", form="full")
    texts = ["Seals watched the cranes and a bat.", "The bank."]
    full, small = MiniCOIL.load(tmp_path / "full"), MiniCOIL.load(small_grown[1])
    for a, b in zip(full.embed(texts), small.embed(texts)):
        assert np.array_equal(a.indices, b.indices)
        assert np.allclose(a.values, b.values, atol=1e-5)


def test_the_model_in_the_package_is_not_changed(tiny_run, small_grown, tmp_path, monkeypatch):
    """`english` grows into a new folder only; without --out one line says so."""
    shutil.copytree(small_grown[0], tmp_path / "box" / "english")
    monkeypatch.setenv("MINICOIL_BOX", str(tmp_path / "box"))
    monkeypatch.setenv("MINICOIL_CACHE", str(tmp_path / "cache"))
    untouched = digests(tmp_path / "box")
    given = ("add-words", "--model", "english", "--words", "seal", "--corpus", *corpus_of(tiny_run))
    done = minicoil(*given, cwd=tmp_path)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
    assert "--out" in done.stderr
    done = minicoil(*given, "--out", "grown", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert MiniCOIL.load(tmp_path / "grown").words == [*OLD, "seal"]
    assert digests(tmp_path / "box") == untouched


REFUSED = {
    "known": (
        "--words bat,banks",
        "no word can be added (bat: the model has it already; banks: banks is a form of the model's word "
        "bank)",
    ),
    "form-of-known": ("--words flyer/bats", "bats is a form of the model's word bat"),
    "stop-words": ("--words the,of", "the: a stop word"),
    "not-in-the-corpus": ("--words zzyzx", "zzyzx: not in the corpus"),
    "too-rare": ("--words cave --corpus rare.txt", "cave: in 1 sentences"),
    "no-words": ("", "none was named"),
    "no-text": ("--words seal", "--corpus"),
    "both-texts": ("--words seal --corpus CORPUS --run RUN", "not both"),
    "corpus-missing": ("--words seal --corpus nowhere.txt", "nowhere.txt"),
    "corpus-empty": ("--words seal --corpus empty.txt", "empty.txt"),
    "run-missing": ("--words seal --run nowhere", "nowhere"),
    "out-exists": ("--words seal --corpus CORPUS --out rare.txt", "rare.txt exists already"),
}

AS_A_PROCESS = ("known", "too-rare")  # refused at once, and after work; the others are called in this process


@pytest.mark.parametrize("case", REFUSED)
def test_refused(tiny_run, tmp_path, case):
    """What cannot be done ends with exit code 2 and one line that names it.

    The model and all around it stay as they are.
    """
    options, named = REFUSED[case]
    copy_of(tiny_run, tmp_path / "model")
    (tmp_path / "rare.txt").write_text("A bat left its cave at dusk.\nThe bank was closed on Monday.\n")
    (tmp_path / "empty.txt").write_text("")
    before = digests(tmp_path)
    if case in ("known", "form-of-known", "stop-words", "not-in-the-corpus", "no-words"):
        options += " --corpus CORPUS"
    given = [{"CORPUS": corpus_of(tiny_run)[0], "RUN": str(tiny_run)}.get(o, o) for o in options.split()]
    asked = ("add-words", "--model", "model", *given)
    done = minicoil(*asked, cwd=tmp_path) if case in AS_A_PROCESS else call(tmp_path, *asked)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
    assert named in done.stderr
    assert digests(tmp_path) == before
    assert not [f for f in tmp_path.iterdir() if f.name.startswith(".")]


def test_models_that_cannot_learn(tiny_run, tmp_path):
    """A model whose input model is gone or changed, or that never said how it was trained, is refused."""
    folder = copy_of(tiny_run, tmp_path / "model")
    info = load_json(folder / "minicoil.json")
    other = tiny_transformer(tmp_path / "other", 64, seed=6)
    for change, named in (
        ({"input_model": "no/such-model"}, "no/such-model"),
        ({"input_model": str(other)}, "is not the one"),
        ({"target_model": str(tmp_path / "gone")}, "gone"),
    ):
        (folder / "minicoil.json").write_text(json.dumps({**info, **change}))
        with pytest.raises(UserError, match=named):
            add_words(folder, ["seal"], run=tiny_run)
    (folder / "minicoil.json").unlink()
    with pytest.raises(UserError, match="does not say"):
        add_words(folder, ["seal"], run=tiny_run)


# Adds a word that is trained already: from "ready" on, what a kill can hit is building and swapping.
LOOP = """
import sys
from minicoil.commands import words
from minicoil.runs.run import open_run
model, trained, run = sys.argv[1:4]
def train_new(*_, **__):
    print("ready", flush=True)
    return open_run(trained)
words.train_new, words.same_input_model = train_new, lambda model: None
words.add_words(model, ["seal"], run=run)
print("done", flush=True)
"""


@pytest.fixture(scope="module")
def trained(tiny_run, tmp_path_factory):
    """(a run with the new word trained, digests of the model before, digests after)"""
    from minicoil.commands.words import train_new

    folder = tmp_path_factory.mktemp("trained")
    model = copy_of(tiny_run, folder / "model")
    train_new(folder / "run", MiniCOIL.load(model), ["seal"], run=tiny_run)
    before = digests(model)
    add_words(model, ["seal"], run=tiny_run)
    return folder / "run", before, digests(model)


def loop(model, tiny_run, trained):
    """A started process that is about to build a model with a new word."""
    process = start([sys.executable, "-c", LOOP, str(model), str(trained[0]), str(tiny_run)])
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    return process


def kill_at_random(tiny_run, trained, folder, trials, seed):
    """Kill `trials` calls at random moments; after each the model is the old one or the new one, whole.

    Returns how often each.
    """
    rng, seen = random.Random(seed), {"old": 0, "new": 0}
    model = copy_of(tiny_run, folder / "model")
    process, begin = loop(shutil.copytree(model, folder / "timed"), tiny_run, trained), time.perf_counter()
    assert process.stdout.readline() == "done\n", process.stderr.read()
    lasts = time.perf_counter() - begin
    for _ in range(trials):
        process = loop(model, tiny_run, trained)
        time.sleep(rng.uniform(0.2, 1.2) * lasts)  # the swap comes last
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        found = digests(model)
        assert found in trained[1:], "neither the old nor the new model"
        seen["old" if found == trained[1] else "new"] += 1
        if found == trained[2]:
            shutil.rmtree(model)
            copy_of(tiny_run, model)
    print(f"{trials} kills within {lasts:.2f} s: {seen}")
    add_words(model, ["seal"], run=tiny_run)
    assert digests(model) == trained[2]
    assert not [f for f in folder.iterdir() if f.name.startswith(".")]
    return seen


def test_killed_at_random_moments(tiny_run, trained, tmp_path):
    """Killed at any moment, the model is the old one, whole, or the new one, whole.

    The next call goes through and leaves no litter.
    """
    kill_at_random(tiny_run, trained, tmp_path, 8, seed=0)


@pytest.mark.slow
def test_killed_at_many_moments(tiny_run, trained, tmp_path):
    """The same with fifty kills."""
    kill_at_random(tiny_run, trained, tmp_path, 50, seed=1)


@pytest.mark.parametrize("killed_after", ["nothing", "the first rename", "the swap"])
def test_killed_around_the_swap(tiny_run, trained, tmp_path, monkeypatch, killed_after):
    """Stopped right before or after the old model is replaced, the next call finds a whole model.

    So it does after a kill between two renames, where folders cannot be swapped.
    """
    from minicoil.commands import words
    from minicoil.runs import swap as folders

    class Killed(BaseException):
        pass

    def stop(*_):
        raise Killed

    model, whole = copy_of(tiny_run, tmp_path / "model"), trained[1:]
    monkeypatch.setattr(words, "train_new", lambda *_, **__: open_run(trained[0]))
    monkeypatch.setattr(folders.shutil, "rmtree", lambda *_, **__: None)  # a killed process sweeps nothing
    with monkeypatch.context() as m:
        if killed_after == "nothing":
            m.setattr(folders, "swap", stop)
        elif killed_after == "the first rename":
            m.setattr(folders, "swap", lambda *_: False)
            rename, calls = os.rename, []
            m.setattr(
                folders.os,
                "rename",
                lambda a, b: (calls.append(a), rename(a, b) if len(calls) == 1 else stop()),
            )
        else:
            swap = folders.swap
            m.setattr(folders, "swap", lambda *pair: (swap(*pair), stop()))
        with pytest.raises(Killed):
            add_words(model, ["seal"], run=tiny_run)
    monkeypatch.undo()
    if killed_after == "the first rename":
        assert not model.exists()
        assert digests(tmp_path / ".model.adding" / "old") == whole[0]
    else:
        assert digests(model) == whole[killed_after == "the swap"]
    if killed_after == "the swap":
        with pytest.raises(UserError, match="has it already"):
            add_words(model, ["seal"], run=tiny_run)
    else:
        add_words(model, ["seal"], run=tiny_run)
    assert digests(model) == whole[1]
    assert [f.name for f in tmp_path.iterdir()] == ["model"]


def test_one_at_a_time(tiny_run, trained, tmp_path):
    """While words are added to a model, a second call is refused with the pid of the first."""
    from minicoil.runs.swap import workshop

    model = copy_of(tiny_run, tmp_path / "model")
    with workshop(model), pytest.raises(UserError, match=str(os.getpid())):
        add_words(model, ["seal"], run=tiny_run)
    assert digests(model) == trained[1]


def test_listed_documents_of_an_index(tiny_run, tmp_path):
    """With --index the documents of somebody's own index are listed, not those learned from.

    They are counted over all its files.
    """
    copy_of(tiny_run, tmp_path / "model")
    (tmp_path / "a.txt").write_text("A bat.\nTwo seals on the ice.\n", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('{"body": "nothing"}\n{"body": "The SEAL barked."}\n', encoding="utf-8")
    done = minicoil(
        "add-words",
        "--model",
        "model",
        "--words",
        "seal",
        "--run",
        str(tiny_run),
        "--index",
        "a.txt",
        "--index",
        "b.jsonl",
        "--text-field",
        "body",
        "--list",
        "list.jsonl",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "list.jsonl").read_text().splitlines()]
    assert [(row["document"], row["words"]) for row in rows] == [(1, ["seal"]), (3, ["seal"])]
    assert "2 of the 4 documents named" in done.stdout


def test_every_form_learns_the_word(run_folder, tmp_path):
    """In a model with int8 and head graphs, an added word is in all of them.

    The old words' int8 rows are the same bytes.
    """
    import onnxruntime as ort

    from minicoil.serving.directory import INT8_FILE, SCALES_FILE
    from minicoil.stages.export import HEAD_FILE, INT8_HEAD_FILE, head_parity

    model = shutil.copytree(run_folder / "23_model", tmp_path / "model")
    add_words(model, ["river"], corpus=["demo"])
    for name in (ENCODERS_FILE, INT8_FILE, SCALES_FILE):
        a, b = np.load(run_folder / "23_model" / name), np.load(model / name)
        assert len(b) == len(a) + 1, name
        assert b[: len(a)].tobytes() == a.tobytes(), name
        assert np.abs(b[-1].astype(float)).max() > 0, name
    text = "The river rose above the bank while bats flew."
    for precision, head in (("float32", HEAD_FILE), ("int8_head", INT8_HEAD_FILE), ("int8", INT8_HEAD_FILE)):
        loaded = MiniCOIL.load(model, precision=precision)
        assert "river" in next(loaded.embed_words([text])), precision
        if precision != "int8":
            assert head_parity(loaded, ort.InferenceSession(str(model / head)), [text]) < 1e-5


def test_an_old_shared_projection_is_kept(tiny_run, tmp_path):
    """A model whose words share a projection opens, is saved small, and its new words lie below it too."""
    from minicoil.stages.growth import below_projection, grow_projection

    old = tmp_path / "old"
    shutil.copytree(tiny_run / "23_model", old)
    full = np.load(old / ENCODERS_FILE)
    shared = np.linalg.qr(np.random.default_rng(0).normal(size=(full.shape[1], 64)))[0].astype(np.float32)
    factors = shared.T @ full[1:]
    np.save(old / ENCODERS_FILE, np.concatenate([full[:1], shared @ factors]))
    save_file({"projection": shared, "factors": factors}, old / "projection.safetensors")
    model = MiniCOIL.load(old)
    assert np.array_equal(model.projection, shared)
    assert np.array_equal(model.factors, factors)
    assert model.save(tmp_path / "small", form="small").lost is None  # nothing is packed: it was small before
    assert MiniCOIL.load(tmp_path / "small").factors.shape == factors.shape
    rows = below_projection(model, full[1:3])
    (tmp_path / "grown").mkdir()
    grow_projection(model, rows, tmp_path / "grown")
    kept = load_file(tmp_path / "grown" / "projection.safetensors")
    assert np.array_equal(kept["factors"][: len(factors)], factors)
    assert np.abs(shared @ kept["factors"][len(factors) :] - rows).max() < 1e-6
    assert np.abs(rows - shared @ factors[:2]).max() < 1e-6  # the nearest there is below the projection
    assert np.array_equal(below_projection(MiniCOIL.load(tiny_run / "23_model"), full[1:3]), full[1:3])


def test_a_turned_model_stays_turned(tiny_run, tmp_path):
    """New words of a turned model are turned too, by what they were trained with; old rows stay."""
    from minicoil.serving.non_negative import negative_share

    shutil.copytree(tiny_run / "23_model", tmp_path / "turned")
    shutil.copytree(tmp_path / "turned", tmp_path / "before")
    add_words(tmp_path / "turned", ["seal"], corpus_of(tiny_run))
    before, after = MiniCOIL.load(tmp_path / "before"), MiniCOIL.load(tmp_path / "turned")
    assert after.info["rotated"] == before.info["rotated"]
    assert np.array_equal(np.asarray(after.weights)[: len(before.words) + 1], np.asarray(before.weights))
    texts = [t for t in Path(corpus_of(tiny_run)[0]).read_text(encoding="utf-8").splitlines() if "seal" in t]
    rows = np.array([words["seal"] for words in after.embed_words(texts) if "seal" in words])
    assert len(rows) > 9
    assert negative_share(rows.astype(float), np.eye(after.dim)) < 0.1
    assert all((v.values >= 0).all() for v in after.embed(texts, non_negative=True))
