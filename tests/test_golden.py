"""The golden file for ports, the page of the format, and a reader in JavaScript that is made from it."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import mmh3
import pytest
from calls import call

from minicoil import MiniCOIL
from minicoil.commands.golden import CLOSE, TEXTS, awkward_texts, check_golden
from minicoil.serving.directory import load_tokenizer
from minicoil.serving.sparse import Reader, bm25_weight, unknown_index, unknown_shift
from minicoil.text.pieces import WordPieces
from minicoil.text.vocabulary import Vocabulary, stop_words

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "format.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "examples" / "javascript"
ENGLISH = ROOT / "examples" / "english.golden.jsonl"


@pytest.fixture(scope="module")
def golden(model_folder, tmp_path_factory):
    """The golden file of the session's model, as `minicoil golden` writes it."""
    file = tmp_path_factory.mktemp("golden") / "golden.jsonl"
    done = call(file.parent, "golden", "--model", model_folder, "--out", file)
    assert (done.returncode, done.stderr) == (0, "")
    return file


def lines_of(file):
    """The lines of a golden file."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_the_golden_file_is_what_the_model_does(golden, model_folder):
    """Two hundred different texts; the same command compares them with the model, and knows a changed one."""
    lines = lines_of(golden)
    assert len({line["text"] for line in lines}) == TEXTS
    done = call(golden.parent, "golden", "--model", model_folder, "--check", golden)
    assert done.returncode == 0, done.stderr
    changed = golden.with_name("changed.jsonl")
    changed.write_text(golden.read_text(encoding="utf-8").replace('"values": [', '"values": [0.5, ', 1))
    done = call(golden.parent, "golden", "--model", model_folder, "--check", changed)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_the_file_of_the_packages_model():
    """The golden file in the repository is what the model of the package does; `make golden` writes it."""
    assert check_golden(MiniCOIL.load("english"), ENGLISH) <= CLOSE
    assert len(lines_of(ENGLISH)) == TEXTS


def test_every_rule_has_a_text(golden):
    """The texts reach every branch of the page: empty vectors, windows, both kinds of counts, and more."""
    lines = lines_of(golden)
    ours, theirs = [line["minicoil"] for line in lines], [line["fastembed"] for line in lines]
    assert sum(not read["indices"] for read in ours) >= 5
    assert sum(len(read["tokens"]) > 1 for read in ours) >= 3
    assert sum(len(read["tokens"][0]) == 256 for read in theirs) >= 5
    assert sum(a["indices"] != b["indices"] for a, b in zip(ours, theirs)) >= 20
    assert sum(line["text"] != line["minicoil"]["normalized"] for line in lines) >= 20
    assert any(max(read["words"].values(), default=0) > 2 for read in ours)
    assert any(len(read["stems"]) > len(set(read["indices"])) for read in ours)
    assert all("int8" in read for read in ours)
    assert all(len(read["values"]) == len(read["query"]) == len(read["indices"]) for read in ours + theirs)


def test_the_texts_are_of_the_models_words(golden, model_folder):
    """Another model's file has its own words in the texts, so its encoders are tried."""
    model = MiniCOIL.load(model_folder, threads=1)
    assert [line["text"] for line in lines_of(golden)] == awkward_texts(model)
    counted = {word for line in lines_of(golden) for word in line["minicoil"]["words"]}
    assert set(model.words[:12]) <= counted


def test_the_pages_examples_are_right():
    """The figures on the page are those of the package."""
    shift = unknown_shift(20_000, 4)
    rows = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", PAGE, flags=re.MULTILINE))
    for word in ("zzyzx", "cave"):
        assert rows[f"`m` of `{word}`"] == str(mmh3.hash(word))
        assert rows[f"index of `{word}` with that shift"] == str(unknown_index(word, shift))
    assert rows["shift, 20,000 words of 4 numbers"] == str(shift)
    assert rows["weight of c = 2, n = 5"] == f"{bm25_weight(2, 5):.6f}"


def test_the_pages_text_is_read_as_it_says(model_folder):
    """The table of one text through all steps: forms, tokens, positions, counts, indices and weights."""
    pieces = WordPieces(load_tokenizer(model_folder))
    vocabulary = Vocabulary(["bat", "cave"], {"bat": "bat", "cave": "cave"}, stop_words())
    ids = pieces.tokenizer.encode(re.search(r"The text is `(.+?)`\. ", PAGE)[1]).ids
    ends, read = pieces.spans(ids).tolist(), Reader(pieces, vocabulary)(ids)
    rows = re.findall(r"^\| `(\S+)` \| (`.+?) \| ([\d, ]+) \| (.+) \|$", PAGE, flags=re.MULTILINE)
    assert len(rows) == len(ends) - 1
    for (form, tokens, positions, counts), a, b in zip(rows, ends[:-1], ends[1:]):
        assert form == pieces.glue(ids[a:b])
        assert re.findall("`([^`]+)`", tokens) == [pieces.tokenizer.id_to_token(i) for i in ids[a:b]]
        assert positions == ", ".join(map(str, range(a, b)))
        found = vocabulary.look_up(form)
        said = re.match(r"id (\d)|stem `(\w+)`|nothing", counts)
        assert said[1] == (str(found.id) if found.id else None)
        assert [said[2]] == [*found.stems] or not found.stems and not said[2]
    assert f"length `n` is {read.length}." in PAGE
    bat, cave = ("the mean of the embeddings at {} and {}", "those of `cave` from {}, {} and {}.")
    assert f"{bat.format(*read.positions[1])}, {cave.format(*read.positions[2])}" in PAGE
    shift = unknown_shift(2, 4)
    assert f"`shift` is {shift}" in PAGE
    indices = [*range(4, 12), *(unknown_index(stem, shift) for stem in read.stems)]
    assert f"The indices are {', '.join(map(str, indices))}." in PAGE
    known, unknown = (f"{bm25_weight(count, read.length):.6f}" for count in (2, 1))
    assert set(read.counts.values()) == {2} and set(read.stems.values()) == {1}
    assert f"both known words weigh {known} and both stems {unknown}." in PAGE


def test_the_page_names_every_field(golden, model_folder):
    """The table of the golden file has the fields that each reading has, and no other."""
    table = PAGE.split("## The golden file")[1]
    cells = "".join(re.findall(r"^\| (`.+?) \|", table, flags=re.MULTILINE))
    named = set(re.findall(r"`(\w+)`", cells))
    line = lines_of(golden)[0]
    assert set(line) == {"text", "fastembed", "minicoil"}
    assert named == set(line["minicoil"])
    assert named - {"normalized"} == set(line["fastembed"])


def test_a_tokenizer_that_truncates_and_pads_is_read_whole(model_folder, tmp_path):
    """What `tokenizer.json` says of truncation and padding has no effect, as the page says."""
    folder = tmp_path / "model"
    shutil.copytree(model_folder, folder)
    state = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    state["truncation"] = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
    state["padding"] = {"strategy": {"Fixed": 20}, "direction": "Right", "pad_to_multiple_of": None,
                        "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}
    (folder / "tokenizer.json").write_text(json.dumps(state), encoding="utf-8")
    plain, other = MiniCOIL.load(model_folder, threads=1), MiniCOIL.load(folder, threads=1)
    text = "At dusk the fruit bats leave their cave by the river bank"
    for how in ({}, {"normalize": False, "windows": False}):
        (a,), (b,) = plain.embed([text], **how), other.embed([text], **how)
        assert a.as_dict() == b.as_dict()


@pytest.fixture(scope="module")
def javascript(tmp_path_factory):
    """A function that checks a golden file with the example on Node, installed once."""
    if not shutil.which("npm"):
        pytest.skip("NO NODE: npm is not installed")
    folder = tmp_path_factory.mktemp("node") / "javascript"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("node_modules"))
    # onnxruntime-node brings its library for processors along; its script would fetch one for GPUs
    install = ["npm", "install", "--silent", "--ignore-scripts"]
    done = subprocess.run(install, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    def checked(model, file):
        call = ["node", "check.mjs", str(model), str(file)]
        return subprocess.run(call, cwd=folder, capture_output=True, text=True)

    return checked


def reproduces(done):
    """Assert that a check has found every step right."""
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["texts"] == TEXTS
    assert found["wrong"] == 0
    assert found["worst"] < 1e-5


@pytest.mark.slow
def test_the_reader_in_javascript(golden, model_folder, javascript):
    """The example on Node reproduces the golden file in both readings and in int8, and sees a changed one."""
    reproduces(javascript(model_folder, golden))
    changed = golden.with_name("other.jsonl")
    changed.write_text(golden.read_text(encoding="utf-8").replace('"zzyzx": 1', '"zzyzx": 2', 1))
    assert javascript(model_folder, changed).returncode == 1


@pytest.mark.slow
def test_the_reader_in_javascript_with_the_packages_model(javascript, tmp_path):
    """It reproduces the file in the repository too, with the model of the package in full."""
    MiniCOIL.load("english").save(tmp_path / "english")
    reproduces(javascript(tmp_path / "english", ENGLISH))
