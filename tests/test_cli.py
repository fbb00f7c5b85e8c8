"""The `minicoil` command from outside: what it refuses, what it prints, and what it leaves behind."""

import contextlib
import gzip
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from calls import call, one_line
from conftest import minicoil
from homes import linked

from minicoil.text.readers import DATA, bundled_sentences

MINICOIL = str(Path(sys.executable).with_name("minicoil"))
PATH_WORD, LONG_WORD, ESCAPE_WORD, EMOJI_WORD = "../../x", "a" * 10_000, "\x1b[31m\x07", "🦇"


def command(folder, *arguments, **options):
    """The finished `minicoil` command, in a process of its own; run in `folder`, offline, with temporary
    files in `folder`/tmp."""
    (folder / "tmp").mkdir(exist_ok=True)
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "TMPDIR": str(folder / "tmp")}
    return minicoil(*arguments, cwd=folder, env=offline, **{"stdin": subprocess.DEVNULL, **options})


def contents(folder):
    """{path: bytes, or None for a folder} of everything in a folder; of a lock only that it is there.
    `.ses` is ONNX Runtime's own."""
    found = [p for p in folder.rglob("*") if p.name != ".ses"]
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() and p.suffix != ".lock" else None
        for p in found
    }


# Bad input: name of the case: (arguments, what the line has to name). MODEL stands for the finished model.
AT_ONCE = {
    "unknown-command": ("nonsense", "nonsense"),
    "unknown-option": ("run --nonsense 1 --out new", "--nonsense"),
    "no-number": ("run --dim four --out new", "--dim"),
    "unknown-stage": ("run --until nonsense --out new", "nonsense"),
    "unknown-stage-from": ("run --from nonsense --out new", "nonsense"),
    "unknown-objective": ("run --objective nonsense --out new", "nonsense"),
    "unknown-language": ("run --language klingon --out new", "klingon"),
    "only-stop-words": ("run --words the,of --out new", "the: a stop word"),
    "no-words": ("run --words , --out new", "--words"),
    "no-words-for-a-corpus": ("run --corpus good.txt --out new", "--words"),
    "words-file-missing": ("run --words-file nowhere.txt --out new", "nowhere.txt"),
    "words-file-undecodable": ("run --words-file undecodable.txt --out new", "undecodable.txt"),
    "path-as-word": (["run", "--words", PATH_WORD, "--out", "new"], PATH_WORD),
    "long-word": (["run", "--words", LONG_WORD, "--out", "new"], "aaaaaaaa"),
    "control-characters-as-word": (["run", "--words", ESCAPE_WORD, "--out", "new"], "no word can be trained"),
    "emoji-as-word": (["run", "--words", EMOJI_WORD, "--out", "new"], EMOJI_WORD),
    "bytes-as-word": (["run", "--words", os.fsdecode(b"b\xff\xfet"), "--out", "new"], "word"),
    "empty-corpus": ("run --words bat --corpus empty.txt --out new", "empty.txt"),
    "corpus-missing": ("run --words bat --corpus nowhere.txt --out new", "nowhere.txt"),
    "folder-without-texts": ("run --words bat --corpus pictures --out new", "pictures"),
    "unknown-kind-of-file": ("run --words bat --corpus pictures/bat.png --out new", "bat.png"),
    "input-model-offline": ("run --input-model nobody/no-such-model --out new", "nobody/no-such-model"),
    "target-model-offline": ("run --target-model nobody/no-such-model --out new", "nobody/no-such-model"),
    "folder-that-is-no-model": ("run --input-model pictures --out new", "pictures"),
    "dim-above-samples": ("run --dim 20 --samples 10 --out new", "dim 20"),
    "dim-too-small": ("run --dim 1 --out new", "dim"),
    "other-parameters": ("run --seed 7 --out old", "seed 0, not 7"),
    "out-is-a-file": ("run --out good.txt", "good.txt"),
    "out-below-a-file": ("run --out good.txt/new", "good.txt"),
    "out-where-nobody-writes": ("run --out /sys/minicoil-test", "/sys/minicoil-test"),
    "out-unwritable": ("run --out locked/new", "locked"),
    "embed-model-missing": ("embed --model nowhere good.txt", "nowhere"),
    "embed-model-offline": ("embed --model nobody/no-such-model good.txt", "nobody/no-such-model"),
    "embed-no-model": ("embed --model pictures good.txt", "pictures"),
    "embed-file-missing": ("embed --model MODEL nowhere.txt", "nowhere.txt"),
    "embed-a-folder": ("embed --model MODEL pictures", "pictures"),
    "embed-unknown-format": ("embed --model MODEL --format xml good.txt", "xml"),
    "embed-npz-to-stdout": ("embed --model MODEL --format npz good.txt", "--out"),
    "embed-batch-size": ("embed --model MODEL --batch-size 0 good.txt", "batch size"),
    "embed-out-is-a-folder": ("embed --model MODEL --out pictures good.txt", "pictures"),
    "embed-out-below-a-file": ("embed --model MODEL --out good.txt/new good.txt", "good.txt"),
    "search-without-query": ("search --model MODEL", "query"),
    "search-documents-missing": ("search --model MODEL --documents nowhere.txt bat", "nowhere.txt"),
    "search-documents-empty": ("search --model MODEL --documents empty.txt bat", "empty.txt"),
    "search-documents-undecodable": (
        "search --model MODEL --documents undecodable.txt bat",
        "undecodable.txt line 3",
    ),
    "search-limit": ("search --model MODEL --documents good.txt --limit 0 bat", "limit"),
    "search-query-undecodable": (
        ["search", "--model", "MODEL", "--documents", "good.txt", os.fsdecode(b"\xff bat")],
        "UTF-8",
    ),
    "senses-data-missing": ("benchmark senses --model MODEL --data nowhere.jsonl", "nowhere.jsonl"),
    "senses-data-broken": ("benchmark senses --model MODEL --data good.txt", "good.txt line 1"),
    "senses-data-without-spans": ("benchmark senses --model MODEL --data spans.jsonl", "spans.jsonl line 1"),
    "retrieval-no-collection": ("benchmark retrieval --model MODEL --data pictures", "pictures"),
    "retrieval-unknown-system": (
        "benchmark retrieval --model MODEL --data demo --systems nonsense",
        "nonsense",
    ),
    "retrieval-avg-len": ("benchmark retrieval --model MODEL --data demo --avg-len ²", "avg-len"),
}
# What only reading the corpus can show.
WHILE_READING = {
    "undecodable-file": ("run --words bat --corpus undecodable.txt --out new", "undecodable.txt line 3"),
    "blank-file": ("run --words bat --corpus blank.txt --out new", "blank.txt"),
    "only-unknown-words": (
        "run --words zzyzx,qwrtpsd --corpus good.txt --until sentences --out new",
        "zzyzx",
    ),
    "too-rare-word": ("run --words bat --corpus good.txt --until sentences --out new", "bat: in 1 sentences"),
}
CASES = {**AT_ONCE, **WHILE_READING}
# Those that start kernels, and a few of each kind: the others call `main` in this process.
AS_A_PROCESS = {
    *WHILE_READING,
    "unknown-command",
    "bytes-as-word",
    "other-parameters",
    "embed-file-missing",
    "retrieval-avg-len",
}


def spoiled_folder(folder, run_folder):
    """A folder with every kind of bad input."""
    (folder / "empty.txt").write_bytes(b"")
    (folder / "blank.txt").write_bytes(b"\n \n\n")
    (folder / "good.txt").write_bytes(
        b"A bat flew out of the cave at night.\nThis line is only here to be read.\n"
    )
    (folder / "undecodable.txt").write_bytes(b"First line of the file.\nSecond line.\nThird \xff line.\n")
    (folder / "spans.jsonl").write_text(
        json.dumps(
            {"word": "bat", "sense": "animal", "sentence": "A bat.", "start": None, "end": 5, "split": "test"}
        )
    )
    (folder / "pictures").mkdir()
    (folder / "pictures" / "bat.png").write_bytes(b"\x89PNG")
    (folder / "old").mkdir()
    for file in run_folder.iterdir():
        if file.is_file():
            shutil.copy(file, folder / "old")
    (folder / "locked").mkdir(mode=0o555)


@pytest.fixture(scope="module", params=CASES)
def refusal(request, run_folder, model_folder, tmp_path_factory):
    """(finished command, what the line has to name, contents before, contents after) of a case."""
    if request.param == "out-where-nobody-writes" and not os.path.isdir("/sys"):
        pytest.skip("this system has no /sys")
    arguments, named = CASES[request.param]
    arguments = arguments.split() if isinstance(arguments, str) else arguments
    folder = tmp_path_factory.mktemp("refused")
    spoiled_folder(folder, run_folder)
    if request.param == "out-unwritable" and os.access(folder / "locked", os.W_OK):
        pytest.skip("root may write everywhere")
    (folder / "tmp").mkdir()
    before = contents(folder)
    run = command if request.param in AS_A_PROCESS else call
    done = run(folder, *(str(model_folder) if a == "MODEL" else a for a in arguments))
    return done, named, before, contents(folder)


def test_bad_input_ends_in_one_line(refusal):
    """Bad input ends with exit code 2 and one line on stderr, which names the thing, without a traceback
    and with no raw control character."""
    done, named, *_ = refusal
    assert named in one_line(done) and done.stdout == ""


def test_bad_input_leaves_nothing_behind(refusal):
    """After bad input every file is as it was, and there is no new one: no run folder, no temporary file."""
    *_, before, after = refusal
    assert sorted(after.keys() - before.keys()) == []
    assert sorted(path for path in before if path not in after or after[path] != before[path]) == []


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """(finished command, run folder) of a run with usable and unusable words."""
    folder = tmp_path_factory.mktemp("mixed")
    words = [
        "bat",
        "the",
        "zzyzx",
        PATH_WORD,
        LONG_WORD,
        ESCAPE_WORD,
        EMOJI_WORD,
        "ice cream",
        "sea\x07l",
        "Mouse/mice",
    ]
    (folder / "words.txt").write_text("\n".join(words), encoding="utf-8")
    return command(
        folder, "run", "--words-file", "words.txt", "--until", "sentences", "--out", "new"
    ), folder / "new"


def test_unusable_words_are_named_once(mixed):
    """Of several words the unusable ones are named, with reasons, in one warning; exit code 0."""
    done, _ = mixed
    assert done.returncode == 0, done.stderr
    (warning,) = [line for line in done.stderr.splitlines() if line.startswith("warning:")]
    for named in (
        "the: a stop word",
        "zzyzx: not in the corpus",
        f"{PATH_WORD}: ",
        f"{'a' * 39}…: longer",
        EMOJI_WORD,
        "ice cream: ",
    ):
        assert named in warning
        assert done.stderr.count(named) == 1
    assert "bat" not in warning and "ouse" not in warning
    assert all(line.isprintable() for line in done.stderr.splitlines())


def test_usable_words_are_trained(mixed):
    """The usable words are trained, each with its forms, lower-cased as the user wrote it."""
    vocabulary = json.loads((mixed[1] / "11_sentences" / "vocabulary.json").read_text(encoding="utf-8"))
    assert {"bat", "mouse"} <= set(vocabulary["words"])
    assert {"bat", "bats"} <= set(vocabulary["vocabulary"]["bat"]["forms"]) and "mice" in vocabulary[
        "vocabulary"
    ]["mouse"]["forms"]
    assert not {"the", "zzyzx", PATH_WORD, LONG_WORD, EMOJI_WORD} & set(vocabulary["words"])


def test_control_characters_never_enter_a_vocabulary(mixed):
    """A word with a control character is not trained under that name."""
    vocabulary = json.loads((mixed[1] / "11_sentences" / "vocabulary.json").read_text(encoding="utf-8"))
    assert [word for word in vocabulary["words"] if not word.isprintable()] == []


def test_words_never_become_paths(mixed):
    """No file or folder of a run is named after a word, and nothing lies outside of it."""
    names = {part for path in contents(mixed[1]) for part in path.split("/")}
    assert not [name for name in names if "bat" in name or "aaaa" in name or not name.isascii()]
    assert {path.name for path in mixed[1].parent.iterdir()} == {"words.txt", "new", "tmp"}


def test_a_run_leaves_no_temporary_files(mixed):
    """When a run is over, nothing of it lies in the folder for temporary files."""
    assert sorted(contents(mixed[1].parent / "tmp")) == []


LINES = [
    b"a bat in a cave",
    b"",
    b"   ",
    b"bad \xff bat",
    b"a seal on the ice\r",
    "bat\u2028cave\u0085bat".encode(),
    b"caf\xe9 au lait",
    "\ud7ff \U0001f987 bat".encode(),
    b"<b>bat</b> \x00 \x1b[31m",
    b"last line, no newline",
]
EMPTY, WITH_BAT, UNKNOWN_ONLY = [1, 2], [0, 3, 5, 7, 8], 9


@pytest.fixture(scope="module")
def embedded(model_folder, tmp_path_factory):
    """(folder with lines.txt, finished `embed` of it)"""
    folder = tmp_path_factory.mktemp("embedded")
    (folder / "lines.txt").write_bytes(b"\n".join(LINES))
    return folder, command(folder, "embed", "--model", model_folder, "lines.txt")


def vectors_of(text):
    """[{index: value}] of lines of JSON."""
    rows = [json.loads(line) for line in text.splitlines()]
    assert all(
        row.keys() == {"indices", "values"} and len(row["indices"]) == len(row["values"]) for row in rows
    )
    return [dict(zip(row["indices"], row["values"])) for row in rows]


def test_embed_a_line_for_every_line(embedded):
    """One vector comes out for every line that goes in, empty only where the line is: other line separators
    and bad bytes cut nothing."""
    done = embedded[1]
    assert done.returncode == 0, done.stderr
    vectors = vectors_of(done.stdout)
    assert len(vectors) == len(LINES)
    assert [i for i, v in enumerate(vectors) if not v] == EMPTY
    bat = set.intersection(*(set(vectors[i]) for i in WITH_BAT))
    assert bat and not bat & set(vectors[UNKNOWN_ONLY])


def test_embed_a_megabyte(embedded, model_folder):
    """A line of a megabyte is one line like any other."""
    (embedded[0] / "long.txt").write_bytes(b"bat\n" + b"bat cave " * 115_000 + b"\nbat\n")
    done = call(embedded[0], "embed", "--model", model_folder, "--cut", "long.txt")
    assert (done.returncode, done.stderr.count("\n")) == (
        0,
        1,
    ) and "1 line, the first is line 2" in done.stderr
    first, long, last = vectors_of(done.stdout)
    assert first == last and first.keys() < long.keys()


def test_embed_counts_undecodable_lines(embedded):
    """Lines that are not UTF-8 are read all the same, and counted in one line on stderr, which names the
    first."""
    (line,) = embedded[1].stderr.splitlines()
    assert re.findall(r"\d+", line.replace("UTF-8", "")) == ["2", "4"]


def test_embed_nothing(embedded, model_folder):
    """An empty file gives no line, no warning and exit code 0."""
    (embedded[0] / "empty.txt").write_bytes(b"")
    done = call(embedded[0], "embed", "--model", model_folder, "empty.txt")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_embed_standard_input_and_file(embedded, model_folder):
    """Lines from standard input give the same vectors, and --out the same bytes as standard output."""
    with open(embedded[0] / "lines.txt", "rb") as lines:
        done = command(embedded[0], "embed", "--model", model_folder, "--out", "vectors.jsonl", stdin=lines)
    assert (done.returncode, done.stdout) == (0, "")
    assert (embedded[0] / "vectors.jsonl").read_text() == embedded[1].stdout


def test_embed_npz(embedded, model_folder):
    """npz holds the same vectors as rows of a sparse matrix, without a pickle."""
    done = call(
        embedded[0], "embed", "--model", model_folder, "--format", "npz", "--out", "vectors.npz", "lines.txt"
    )
    assert done.returncode == 0, done.stderr
    with np.load(embedded[0] / "vectors.npz", allow_pickle=False) as found:
        indptr, indices, values = found["indptr"], found["indices"], found["values"]
    expected = vectors_of(embedded[1].stdout)
    assert np.diff(indptr).tolist() == [len(v) for v in expected] and indptr[-1] == len(indices) == len(
        values
    )
    for a, b, vector in zip(indptr[:-1], indptr[1:], expected):
        assert indices[a:b].tolist() == list(vector)
        assert values[a:b].tolist() == pytest.approx(list(vector.values()), abs=1e-6)


def test_embed_query(embedded, model_folder):
    """As queries the lines have the same indexes, and a word that the model does not know weighs 1."""
    done = call(embedded[0], "embed", "--model", model_folder, "--query", "lines.txt")
    queries, documents = vectors_of(done.stdout), vectors_of(embedded[1].stdout)
    assert [q.keys() for q in queries] == [d.keys() for d in documents]
    assert set(queries[UNKNOWN_ONLY].values()) == {1.0}
    assert set(documents[UNKNOWN_ONLY].values()) != {1.0}


def test_embed_into_a_pipe(embedded, model_folder):
    """An --out that is a pipe or a device is written to or refused, never replaced by a file."""
    pipe = embedded[0] / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        done = command(
            embedded[0], "embed", "--model", model_folder, "--out", "pipe", "lines.txt", timeout=600
        )
        assert stat.S_ISFIFO(pipe.stat().st_mode)
        assert done.returncode == 2 or os.read(reader, 1 << 16).decode() == embedded[1].stdout
    finally:
        os.close(reader)


@pytest.fixture(scope="module")
def bat_documents(tmp_path_factory):
    """(file of the bundled sentences with a bat, animals and clubs mixed, and of others; {its line number:
    sense})"""
    rows = [row for row in bundled_sentences() if row["word"] == "bat"] + [
        row for row in bundled_sentences() if not row["word"]
    ][:60]
    path = tmp_path_factory.mktemp("documents") / "bats.txt"
    path.write_text("\n".join(row["sentence"] for row in rows), encoding="utf-8")
    return path, {number: row["sense"] for number, row in enumerate(rows, 1)}


@pytest.mark.parametrize(
    "query, sense, word", [("bat in a cave", "animal", "cave"), ("he swung the bat", "sport", "swung")]
)
def test_search(model_folder, bat_documents, tmp_path, query, sense, word):
    """The right bats come out on top, best first, each with the words that earned its score."""
    path, senses = bat_documents
    done = call(tmp_path, "search", "--model", model_folder, "--documents", path, "--limit", 5, query)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    hits = [
        re.fullmatch(r"(\d+)\. (-?[\d.]+)  (.+)  \[bats\.txt:(\d+)\]", line).groups() for line in lines[::2]
    ]
    assert [int(rank) for rank, *_ in hits] == [1, 2, 3, 4, 5]
    assert sorted((float(score) for _, score, *_ in hits), reverse=True) == [
        float(score) for _, score, *_ in hits
    ]
    assert [senses[int(number)] for *_, number in hits[:3]] == [sense] * 3
    assert re.search(rf"\b{word} \+[\d.]+ \(weight [\d.]+, plain BM25 word\)", lines[1])
    assert all(
        re.search(r"\bbat [+-][\d.]+ \(weight [\d.]+, meaning [+-][\d.]+\)", line) for line in lines[1:6:2]
    )


def test_search_finds_nothing(model_folder, tmp_path):
    """A query without a word of the documents finds nothing, says so, and is no error."""
    (tmp_path / "bats.txt").write_text("a bat in a cave\n")
    done = call(tmp_path, "search", "--model", model_folder, "--documents", "bats.txt", "qwrtpsd")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 1 and "none of" in done.stdout


def last_line(done):
    """The last line of standard output as JSON without NaN."""
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(done.stdout.splitlines()[-1], parse_constant=refuse)


def test_benchmark_senses(model_folder, tmp_path):
    """`benchmark senses` ends with one line of JSON: data, model, words, results and per_word, scores as
    fractions."""
    rows = [row for row in bundled_sentences() if row["word"] in ("bat", "mouse")]
    with gzip.open(tmp_path / "two.jsonl.gz", "wt", encoding="utf-8") as f:
        f.writelines(json.dumps(row) + "\n" for row in rows)
    found = last_line(
        call(tmp_path, "benchmark", "senses", "--model", model_folder, "--data", "two.jsonl.gz")
    )
    assert {"data", "words", "results", "per_word"} <= found.keys()
    assert (
        found["data"].endswith("two.jsonl.gz")
        and found["words"] == 2
        and set(found["per_word"]) == {"bat", "mouse"}
    )
    assert {"minicoil", "token_full", "sentence", "pca", "random", "majority", "lda_labels"} <= found[
        "results"
    ].keys()
    for system, scores in found["results"].items():
        assert scores.keys() >= ({"nn1"} if system == "majority" else {"nn1", "nn5", "auc", "mauc"})
        assert all(0 <= score <= 1 for score in scores.values())


def beir_lines(name):
    """The lines of a file of the bundled collection."""
    return (DATA / "beir" / name).read_text(encoding="utf-8").splitlines(keepends=True)


@pytest.fixture(scope="module")
def retrieval(model_folder, tmp_path_factory):
    """The result of `benchmark retrieval` on the bundle's queries about bats, mice and seals, and what they
    are judged on."""
    folder = tmp_path_factory.mktemp("retrieval")
    (folder / "small" / "qrels").mkdir(parents=True)
    queries = [
        line for line in beir_lines("queries.jsonl") if re.search(r"\b(bat|bats|mouse|mice|seals?)\b", line)
    ]
    ids = {json.loads(line)["_id"] for line in queries}
    header, *judged = beir_lines("qrels/test.tsv")
    judged = [line for line in judged if line.split("\t")[0] in ids]
    kept = {line.split("\t")[1] for line in judged}
    numbered = [(json.loads(line)["_id"], line) for line in beir_lines("corpus.jsonl")]
    corpus = [line for name, line in numbered if name in kept or name.endswith("0")]
    files = {"queries.jsonl": queries, "qrels/test.tsv": [header, *judged], "corpus.jsonl": corpus}
    for name, some in files.items():
        (folder / "small" / name).write_text("".join(some), encoding="utf-8")
    done = call(folder, "benchmark", "retrieval", "--model", model_folder, "--data", "small")
    return last_line(done), len(queries)


def test_benchmark_retrieval(retrieval):
    """`benchmark retrieval` ends with one line of JSON: data, model, queries, results, gain and parameters,
    scores as fractions."""
    found, n_queries = retrieval
    assert {"data", "model", "queries", "results", "gain", "parameters"} <= found.keys()
    assert found["data"].endswith("small") and found["queries"] == n_queries >= 8
    assert {"bm25", "minicoil", "token_full", "dense"} <= found["results"].keys()
    for scores in found["results"].values():
        assert scores.keys() == {"ndcg@10", "recall@100", "mrr@10"} and all(
            0 <= score <= 1 for score in scores.values()
        )
    for mean, low, high in found["gain"].values():
        assert -1 <= low <= mean <= high <= 1


def test_benchmark_retrieval_systems(retrieval):
    """`benchmark retrieval` compares every system it names, or says why it skipped one: only SPLADE needs a
    model of its own."""
    from minicoil.retrieval.systems import SYSTEMS

    assert sorted([*retrieval[0]["results"], *retrieval[0]["skipped"]]) == sorted(SYSTEMS) and list(
        retrieval[0]["skipped"]
    ) == ["splade"]


# What is read is never written over


def texts_and_model(folder, model_folder):
    """`folder` with texts under several names, labelled sentences, and a copy of the model in a run."""
    (folder / "texts").mkdir()
    (folder / "texts" / "a.txt").write_text("A bat flew out of the cave.\nThe bank of the river.\n")
    (folder / "a.txt").write_text("A bat flew out of the cave.\n")
    (folder / "link.txt").symlink_to("a.txt")
    (folder / "twin.txt").hardlink_to(folder / "a.txt")
    (folder / "linked").symlink_to("texts")
    (folder / "words.txt").write_text("seal\n")
    shutil.copytree(model_folder, folder / "old" / "23_model", copy_function=linked)
    (folder / "old" / "10_corpus").mkdir()
    shutil.copy(DATA / "sentences.jsonl", folder / "corpus.jsonl")
    (folder / "old" / "10_corpus" / "a.txt").write_text("seal\n")
    for name in ("beir", "odd/gain.png"):
        shutil.copytree(DATA / "beir", folder / name)
    (folder / "linked-beir").symlink_to("beir")


ITS_OWN_INPUT = {
    "embed": "embed a.txt --model MODEL --out a.txt",
    "embed-other-spelling": "embed a.txt --model MODEL --out texts/../a.txt",
    "embed-onto-a-link": "embed a.txt --model MODEL --out link.txt",
    "embed-of-a-link": "embed link.txt --model MODEL --out a.txt",
    "embed-hard-link": "embed twin.txt --model MODEL --format npz --out a.txt",
    "embed-through-a-linked-folder": "embed texts/a.txt --model MODEL --out linked/a.txt",
    "embed-into-the-model": "embed a.txt --model MODEL --out old/23_model/tokenizer.json",
    "list-of-the-corpus": "ADD --words seal --corpus a.txt --out new --list a.txt",
    "list-of-the-index": "ADD --words seal --corpus demo --index a.txt --out new --list link.txt",
    "list-of-the-words": "ADD --words-file words.txt --corpus demo --out new --list words.txt",
    "list-in-the-model": "ADD --words seal --corpus demo --list old/23_model/minicoil.json",
    "list-in-the-new-model": "ADD --words seal --corpus demo --out new --list new/list.jsonl",
    "new-model-in-the-corpus": "ADD --words seal --corpus texts --out linked/new",
    "new-model-in-the-old": "ADD --words seal --corpus demo --out old/23_model/new",
    "run-in-the-corpus": "RUN --corpus texts --out linked/run",
    "run-is-the-corpus": "RUN --corpus texts --out texts",
    "run-over-its-model": "run --start-from old/23_model --out old",
    "run-over-its-input-model": "RUN --input-model old/23_model --out old",
    "run-over-its-corpus": "RUN --corpus old/10_corpus --from corpus --out old",
    "run-over-its-words": "run --words-file old/10_corpus/a.txt --out old",
    "collection-is-the-documents": "search --model MODEL --documents texts --collection linked bat",
    "collection-has-the-documents": "search --model MODEL --documents texts/a.txt --collection texts bat",
    "collection-is-the-model": "search --model MODEL --documents a.txt --collection old/23_model bat",
    "senses-collection": "benchmark make-collection --data corpus.jsonl --out .",
    "results-in-the-model": "benchmark retrieval --model MODEL --data demo --out old/23_model",
    "cache-in-the-model": "benchmark retrieval --model MODEL --data demo --cache old/23_model/cache",
    "results-are-the-data": "benchmark retrieval --model MODEL --data beir --out beir",
    "results-in-the-data": "benchmark retrieval --model MODEL --data demo --data beir --out linked-beir/new",
    "cache-is-the-data": "benchmark retrieval --model MODEL --data linked-beir --cache beir",
    "cache-in-the-data": "benchmark retrieval --model MODEL --data beir --cache beir/qrels",
    "results-over-the-data": "benchmark retrieval --model MODEL --data odd/gain.png --out odd",
    "collection-in-the-documents": "search --model MODEL --documents texts --collection texts/index bat",
    "collection-in-the-model": "search --model MODEL --documents a.txt --collection old/23_model/index bat",
    "list-in-the-run": "ADD --words seal --run old --out new --list old/run.json",
    "new-model-in-the-run": "ADD --words seal --run old --out old/10_corpus/new",
}


def spelled_out(line):
    """The arguments of a line of the table."""
    for short, meant in (
        ("ADD", "add-words --model MODEL"),
        ("RUN", "run --words bat"),
        ("MODEL", "old/23_model"),
    ):
        line = line.replace(short, meant)
    return line.split()


@pytest.mark.parametrize("case", ITS_OWN_INPUT)
def test_an_output_is_never_an_input(case, model_folder, tmp_path):
    """A command that would write over what it reads, or into it, is refused in one line, and nothing has
    changed."""
    texts_and_model(tmp_path, model_folder)
    before = contents(tmp_path)
    line = one_line(call(tmp_path, *spelled_out(ITS_OWN_INPUT[case])))
    assert re.search(r"is read|are read|what is read|is the file that|exists already", line), line
    assert contents(tmp_path) == before


def test_a_name_of_the_package_is_not_a_folder(model_folder, tmp_path):
    """`demo` is the bundled data, also where the user has a folder of that name: it may be written to."""
    from minicoil.commands.options import keep_apart

    (tmp_path / "demo").mkdir()
    with contextlib.chdir(tmp_path):
        keep_apart("demo/results", ["demo"])


@pytest.mark.parametrize("out", ["new/", "new/.", "texts/..", "new//", "./"])
@pytest.mark.parametrize(
    "what", ["embed a.txt --model MODEL --out", "ADD --words seal --corpus a.txt --list"]
)
def test_a_path_that_means_a_folder_is_no_file(what, out, model_folder, tmp_path):
    """Where a file is written, a path with a slash at its end is refused, and no file is made of it."""
    texts_and_model(tmp_path, model_folder)
    before = contents(tmp_path)
    assert f"{out} names a folder" in one_line(call(tmp_path, *spelled_out(f"{what} {out}")))
    assert contents(tmp_path) == before


def test_an_output_is_not_standard_input(model_folder, tmp_path):
    """The file that standard input comes from is not written over either."""
    (tmp_path / "a.txt").write_text("A bat.\n")
    for how in ([], ["-"], ["/dev/stdin"]):
        with open(tmp_path / "a.txt", encoding="utf-8") as texts:
            done = minicoil(
                "embed", "--model", model_folder, "--out", "a.txt", *how, cwd=tmp_path, stdin=texts
            )
        assert "a.txt" in one_line(done)
    assert (tmp_path / "a.txt").read_text() == "A bat.\n"


# Numbers

ODD_NUMBERS = [
    "-1",
    "0",
    str(-(2**31) - 1),
    "1000000000000",
    "1" + "0" * 30,
    "9" * 5000,
    "nan",
    "inf",
    "1e9",
    "0x10",
    "",
    "four",
    "\u00b2",
    "-",
]
NUMBERS = {  # option: (command, numbers of the list that are none of its own)
    "--dim": ("run --corpus nowhere.txt --words bat --out new", ODD_NUMBERS),
    "--samples": ("run --corpus nowhere.txt --words bat --out new", ODD_NUMBERS),
    "--top-words": ("run --corpus nowhere.txt --out new", [n for n in ODD_NUMBERS if n != "0"]),
    "--seed": ("run --corpus nowhere.txt --words bat --out new", [n for n in ODD_NUMBERS if n != "0"]),
    "--pictures": ("run --corpus nowhere.txt --words bat --out new", [n for n in ODD_NUMBERS if n != "0"]),
    "--jobs": ("run --corpus nowhere.txt --words bat --out new", [n for n in ODD_NUMBERS if n != "0"]),
    "--batch-size": ("embed --model MODEL a.txt", ODD_NUMBERS),
    "--limit": ("search --model MODEL --documents a.txt bat", ODD_NUMBERS),
    "--avg-len": (
        "search --model MODEL --documents a.txt bat",
        [n for n in ODD_NUMBERS if n != "1e9"] + ["1e300", "1e-300"],
    ),
    "--most": ("benchmark make-collection --data senses.jsonl --out new", ODD_NUMBERS),
    "--port": ("explore --model MODEL", [n for n in ODD_NUMBERS if n != "0"] + ["65536"]),
}


@pytest.mark.parametrize("option", NUMBERS)
def test_numbers_out_of_range(option, model_folder, tmp_path):
    """A number that an option cannot take is refused in one line that names the option; nothing is written.
    A number that an option cannot take is refused in one line that names the option; nothing is written."""
    arguments, numbers = NUMBERS[option]
    (tmp_path / "a.txt").write_text("A bat.\n")
    shutil.copy(DATA / "sentences.jsonl", tmp_path / "senses.jsonl")
    before = contents(tmp_path)
    for number in numbers:
        given = [str(model_folder) if a == "MODEL" else a for a in arguments.split()]
        line = one_line(
            call(
                tmp_path,
                given[0],
                *given[1:2][: given[0] == "benchmark"],
                f"{option}={number}",
                *given[1 + (given[0] == "benchmark") :],
            )
        )
        plain = option.strip("-")
        assert plain in line or plain.replace("-", " ") in line or plain.replace("-", "_") in line, line
    assert contents(tmp_path) == before


# Terminals

SPOKEN = {
    "help": (["run", "--help"], 0),
    "refusal": (["run", "--words", "\u00e9t\u00e9\U0001f987,\u044f\u2026", "--out", "new"], 2),
    "hits": (["search", "--model", "MODEL", "--documents", "caf\u00e9.txt", "bat"], 0),
    "vectors": (["embed", "--model", "MODEL", "caf\u00e9.txt"], 0),
}


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-16", "utf-8"])
@pytest.mark.parametrize("what", SPOKEN)
def test_any_encoding_of_a_terminal(what, encoding, model_folder, tmp_path):
    """What a terminal's encoding lacks is written as an escape: nothing fails, and the exit code is as
    ever."""
    arguments, code = SPOKEN[what]
    (tmp_path / "caf\u00e9.txt").write_text(
        "A bat flew \u2026 to the caf\u00e9 \U0001f987 \u044f.\n" * 2, encoding="utf-8"
    )
    done = call(tmp_path, *(str(model_folder) if a == "MODEL" else a for a in arguments), encoding=encoding)
    assert done.returncode == code and "Traceback" not in done.stderr
    if code == 2:
        one_line(done)
    elif what == "hits":
        assert ("caf\u00e9" if encoding != "ascii" else "caf\\xe9") in done.stdout


@pytest.mark.parametrize("columns", ["1", "0", "-5", "1000000000", "x", ""])
def test_any_width_of_a_terminal(columns, tmp_path):
    """Help is printed whatever a terminal says its width is."""
    for arguments in (["--help"], ["run", "--help"], ["benchmark", "retrieval", "-h"]):
        done = call(tmp_path, *arguments, COLUMNS=columns, TERM="dumb")
        assert (done.returncode, done.stderr) == (0, "") and "--" in done.stdout


def close(*numbers):
    """Close standard streams, in a new process before the command begins."""
    return lambda: [os.close(number) for number in numbers]


@pytest.mark.parametrize("numbers", [(0,), (1,), (2,), (0, 1, 2)], ids=str)
def test_closed_streams(numbers, model_folder, tmp_path):
    """With a standard stream closed a file is written whole, a refusal has exit code 2, and no file gets
    what the stream should have."""
    (tmp_path / "a.txt").write_bytes(b"A \xff bat.\n")
    options = dict(cwd=tmp_path, preexec_fn=close(*numbers))
    done = minicoil("embed", "--model", model_folder, "--out", "v.jsonl", "a.txt", **options)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert [
        len(json.loads(line)["indices"]) > 0 for line in (tmp_path / "v.jsonl").read_text().splitlines()
    ] == [True]
    refused = minicoil("embed", "--model", model_folder, "nowhere.txt", **options)
    assert refused.returncode == 2 and "Traceback" not in refused.stderr


def test_full_streams(model_folder, tmp_path):
    """A full device as standard output is one line and exit code 2; as standard error it changes nothing."""
    (tmp_path / "a.txt").write_bytes(b"A bat.\n")
    with open("/dev/full", "w", encoding="utf-8") as full:
        for arguments in (["embed", "--model", str(model_folder), "a.txt"], ["--version"]):
            done = subprocess.run(
                [MINICOIL, *arguments], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True
            )
            assert (
                done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "No space left" in done.stderr
            ), done.stderr
        done = subprocess.run([MINICOIL, "embed", "--model", "none", "a.txt"], cwd=tmp_path, stderr=full)
        assert done.returncode == 2


@pytest.mark.parametrize("arguments", [["run", "--help"], ["--version"]])
def test_a_reader_that_leaves_at_once(arguments):
    """Nobody reading is no error, of no command: no word on stderr, and the code that a shell gives."""
    process = subprocess.Popen([MINICOIL, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert (process.stderr.read(), process.wait(600)) == (b"", 141)


# What people try

HELP = [
    ["-h"],
    ["--help"],
    ["help"],
    ["run", "-h"],
    ["help", "run"],
    ["run", "help"],
    ["benchmark", "-h"],
    ["help", "benchmark"],
    ["benchmark", "senses", "-h"],
]


@pytest.mark.parametrize("arguments", HELP, ids=" ".join)
def test_ways_to_ask_for_help(arguments, tmp_path):
    """Help comes however it is asked for, about the command that is named."""
    done = call(tmp_path, *arguments)
    named = [a for a in arguments if a.isalpha() and a != "help"]
    assert (done.returncode, done.stderr) == (
        0,
        "",
    ) and f"Usage: {' '.join(['minicoil', *named])}" in done.stdout


@pytest.mark.parametrize("arguments", [["--version"], ["-V"], ["version"]], ids=" ".join)
def test_version(arguments, tmp_path):
    """The version is one line."""
    import minicoil as package

    done = call(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (0, f"minicoil {package.__version__}\n")


def test_as_a_module(tmp_path):
    """`python -m minicoil` is the command, also in what it says about itself."""
    done = subprocess.run(
        [sys.executable, "-m", "minicoil", "run", "-h"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout.startswith("Usage: minicoil run ")


@pytest.mark.parametrize("dash", [["-"], ["/dev/stdin"], []], ids=str)
def test_a_dash_is_standard_input(dash, model_folder, tmp_path):
    """`embed -` reads standard input, and `--out -` writes to standard output."""
    done = call(
        tmp_path,
        "embed",
        "--model",
        model_folder,
        "--out",
        "-",
        *dash[:1] if dash != ["/dev/stdin"] else ["-"],
        given=b"a bat\n\n",
    )
    assert (
        done.returncode == 0
        and [bool(v) for v in vectors_of(done.stdout)] == [True, False]
        and not list(tmp_path.iterdir())
    )


@pytest.mark.parametrize(
    "systems",
    [["bm25,minicoil"], ["bm25, minicoil"], ['"bm25", "minicoil"'], ["BM25,MiniCOIL"], ["bm25", "minicoil"]],
    ids=str,
)
def test_a_list_of_systems(systems, monkeypatch, model_folder, tmp_path):
    """Systems are taken with spaces, quotes and capitals, and from several options."""
    from minicoil.retrieval import comparison

    asked = []
    monkeypatch.setattr(
        comparison, "benchmark_collections", lambda *_, systems, **__: asked.extend(systems) or {}
    )
    given = [part for text in systems for part in ("--systems", text)]
    assert (
        call(tmp_path, "benchmark", "retrieval", "--model", model_folder, "--data", "demo", *given).returncode
        == 0
    )
    assert asked == ["bm25", "minicoil"]


WORD_LISTS = ["bat,bank", "bat, bank", '"bat", "bank"', "['bat', 'bank']", "bat;bank", " Bat ,BANK,,bat"]


@pytest.mark.parametrize("words", [*([w] for w in WORD_LISTS), ["bat", "bank"]], ids=str)
def test_a_list_of_words(words, monkeypatch, tmp_path):
    """Words are taken however a list is written, also from several options; what a run is asked for is the
    same."""
    asked = parameters_of(monkeypatch, tmp_path, *(part for text in words for part in ("--words", text)))
    assert list(dict.fromkeys(word.lower() for word in asked.words)) == ["bat", "bank"]


def parameters_of(monkeypatch, folder, *options):
    """The parameters that `minicoil run` with these options would run."""
    from minicoil.commands import pipeline

    asked = []

    def remember(out, params, execution):
        asked.append((params, execution))
        raise pipeline.UserError("far enough")

    monkeypatch.setattr(pipeline, "run_chain", remember)
    done = call(folder, "run", "--out", "new", *options)
    assert done.stderr == "minicoil: far enough\n", done.stderr
    return asked[0][0] if len(options) != 1 else asked[0]


def test_choices_in_capitals(monkeypatch, tmp_path):
    """Choices and names of options may be written in capitals, options with underscores, and a stage as its
    folder."""
    params = parameters_of(
        monkeypatch,
        tmp_path,
        "--OBJECTIVE",
        "Fit",
        "--top_words",
        "20",
        "--language",
        "English",
        "--encode",
        "ALL",
        "--on-bad-input",
        "Skip",
    )
    assert (params.objective, params.top_words, params.language, params.encode, params.on_bad_input) == (
        "fit",
        20,
        "english",
        "all",
        "skip",
    )
    _, how = parameters_of(monkeypatch, tmp_path, "--until=22_training")
    assert how.until == "training"
    _, how = parameters_of(monkeypatch, tmp_path, "--from=22_training.ipynb")
    assert how.from_stage == "training"


def test_a_query_without_quotes(model_folder, tmp_path):
    """A query of several words needs no quotes."""
    (tmp_path / "a.txt").write_text("A bat in a cave.\nA club.\n")
    options = ("--model", model_folder, "--documents", "a.txt")
    assert (
        call(tmp_path, "search", *options, "bat", "cave").stdout
        == call(tmp_path, "search", *options, "bat cave").stdout
        != ""
    )


# Options that would do nothing

NOTHING_DONE = {
    "name-without-collection": ("search --model MODEL --collection-name mine bat", "--collection"),
    "from-after-until": ("run --from model --until corpus --out new", "nothing would be done"),
    "redo-after-the-end": ("run --from benchmark --until export --out old", "nothing would be done"),
    "ray-without-ray": ("run --words bat --ray-address auto --out new", "--engine ray"),
    "splade-that-is-not-asked": (
        "benchmark retrieval --model MODEL --data demo --systems bm25 --splade some/model",
        "--systems",
    ),
}


@pytest.mark.parametrize("case", NOTHING_DONE)
def test_an_option_without_effect_is_refused(case, model_folder, tmp_path):
    """An option that would be passed over in silence is refused in one line, and nothing has changed."""
    arguments, named = NOTHING_DONE[case]
    texts_and_model(tmp_path, model_folder)
    (tmp_path / "old" / "run.json").write_text('{"parameters": {"words": ["bat"]}}')
    before = contents(tmp_path)
    assert named in one_line(call(tmp_path, *spelled_out(arguments)))
    assert contents(tmp_path) == before


@pytest.mark.parametrize("option", ["--out", "--cache"])
@pytest.mark.parametrize("place", ["a.txt", "a.txt/new", "texts/a.txt/b/c"])
def test_a_folder_for_results_is_looked_at_first(place, option, model_folder, tmp_path, monkeypatch):
    """Results that would go where a file stands are refused before anything is measured."""
    from minicoil.retrieval import comparison

    texts_and_model(tmp_path, model_folder)
    monkeypatch.setattr(comparison, "benchmark_collections", lambda *_, **__: pytest.fail("it was measured"))
    asked = ("benchmark", "retrieval", "--model", model_folder, "--data", "demo", option, place)
    before = contents(tmp_path)
    assert f"{option} {place} cannot be a folder" in one_line(call(tmp_path, *asked))
    assert contents(tmp_path) == before


@pytest.mark.parametrize("query", [[""], [" "], ["\n", "\t"], ["\x00"[:0], ""], ["\u200b"]], ids=ascii)
def test_an_empty_query(query, model_folder, tmp_path):
    """A query with nothing in it is called empty; the documents are not blamed."""
    assert "the query is empty" in one_line(call(tmp_path, "search", "--model", model_folder, *query))


@pytest.mark.parametrize("query", ["the of", "?!", "..."], ids=ascii)
def test_a_query_without_words(query, model_folder, tmp_path):
    """A query of stop words or signs has no word to look for, and the line says so; dense vectors take it."""
    (tmp_path / "a.txt").write_text("A bat in a cave.\n")
    asked = ("search", "--model", model_folder, "--documents", "a.txt", query)
    assert "no word to look for" in one_line(call(tmp_path, *asked))
    assert "A bat in a cave." in call(tmp_path, *asked, "--using", "dense").stdout


def test_a_collection_in_memory_is_quiet(model_folder, tmp_path):
    """The imitation of a server says nothing on stderr."""
    (tmp_path / "a.txt").write_text("A bat in a cave.\n")
    options = ("--model", model_folder, "--documents", tmp_path / "a.txt", "--collection", ":memory:")
    done = minicoil("search", *options, "bat", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "A bat in a cave." in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


# Messages


@pytest.mark.parametrize("name", ["new\nline", "\x1b[31m red", "a\tb'c\\d"], ids=ascii)
def test_where_to_look_is_printable(name, run_folder, tmp_path):
    """A folder's name with a line end or an escape stays in its line, and the command can still be pasted."""
    from minicoil.commands.pipeline import where_to_look
    from minicoil.runs.run import open_run

    shutil.copytree(run_folder, tmp_path / name, copy_function=linked)
    with contextlib.chdir(tmp_path):
        found = where_to_look(open_run(name))
    assert all(line.isprintable() for line in found.split("\n"))
    line = found.split("\n")[-1].removeprefix("Try:")
    words = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, text=True).stdout
    assert words.split("\0")[3] == f"{name}/23_model"


def test_a_command_to_paste(run_folder, tmp_path):
    """The command that a run ends with can be pasted where a path has spaces and quotes."""
    from minicoil.commands.pipeline import where_to_look
    from minicoil.runs.run import open_run

    home = tmp_path / "it's my $HOME"
    (home / "outputs").mkdir(parents=True)
    shutil.copytree(run_folder, home / "outputs" / "my run", copy_function=linked)
    with contextlib.chdir(home):
        line = where_to_look(open_run("outputs/my run")).splitlines()[-1]
        words = subprocess.run(
            ["sh", "-c", f"printf '%s\\n' {line.removeprefix('Try:')}"], capture_output=True, text=True
        ).stdout.splitlines()
    assert words[1:4] == ["search", "--model", "outputs/my run/23_model"] and words[-1] == "bat in a cave"


def test_help_of_the_command_that_is_meant(tmp_path):
    """A wrong option names the help of its own command."""
    assert one_line(call(tmp_path, "benchmark", "senses", "--nonsense")).endswith(
        "see minicoil benchmark senses --help"
    )


def test_search_takes_the_options_it_advises(model_folder, tmp_path):
    """Every option that a refusal of `search` names is one of its options."""
    known = set(re.findall(r"--[\w-]+", call(tmp_path, "search", "-h").stdout))
    (tmp_path / "bad.txt").write_bytes(b"A \xff bat.\n")
    (tmp_path / "none.jsonl").write_text('{"body": "A bat."}\n')
    (tmp_path / "odd").mkdir()
    for documents in ("bad.txt", "none.jsonl", "nowhere.txt", "odd"):
        line = one_line(call(tmp_path, "search", "--model", model_folder, "--documents", documents, "bat"))
        assert set(re.findall(r"--[\w-]+", line)) <= known, line


def test_control_characters_of_names_stay_out_of_messages(model_folder, tmp_path):
    """A name with line ends or control characters is named on one line."""
    for name in ("new\nline.txt", "\x1b[31m.txt", os.fsdecode(b"\xff.txt")):
        one_line(call(tmp_path, "embed", "--model", model_folder, name))
        one_line(call(tmp_path, "search", "--model", model_folder, "--documents", name, "bat"))
        one_line(call(tmp_path, "run", "--words", "bat", "--corpus", name, "--out", "new"))


NO_PLACE = {
    "out": "run --until corpus --out",
    "corpus": "run --until corpus --corpus",
    "documents": "search --model MODEL bat --documents",
    "data": "benchmark retrieval --model MODEL --data",
}


@pytest.mark.parametrize("joint", [" ", "="])
@pytest.mark.parametrize("case", NO_PLACE)
def test_an_empty_path_is_not_the_current_folder(case, joint, tmp_path):
    """The path of a variable that is not set is refused, and nothing is read or written."""
    *line, option = NO_PLACE[case].split()
    given = [option, ""] if joint == " " else [f"{option}="]
    assert f"{option} is empty" in one_line(call(tmp_path, *line, *given))
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("given", [["--documents", "~/a.txt"], ["--documents=~/a.txt"]], ids=str)
def test_the_home_folder(given, model_folder, tmp_path):
    """A `~` that the shell left is the home folder."""
    (tmp_path / "a.txt").write_text("A bat in a cave.\n")
    done = call(tmp_path, "search", "--model", model_folder, *given, "bat", HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "A bat in a cave." in done.stdout


def test_a_run_needs_a_name_in_utf8(tmp_path):
    """A folder whose name is not UTF-8 is refused before anything is made."""
    line = one_line(call(tmp_path, "run", "--words", "bat", "--until", "corpus", "--out", "a\udcff"))
    assert "is not a name in UTF-8" in line
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("where", ["ftp://host", "HTTP://host:6333", "localhost:6333", "grpc://x:1"])
def test_an_address_never_becomes_a_folder(where, model_folder, tmp_path):
    """An address that is not a server's is refused, and no folder of its name is made."""
    (tmp_path / "a.txt").write_text("A bat in a cave.\n")
    options = ["--model", model_folder, "--documents", "a.txt", "--collection", where]
    assert "is not an address" in one_line(call(tmp_path, "search", *options, "bat"))
    assert list(contents(tmp_path)) == ["a.txt"]


@pytest.mark.parametrize("arguments", [["-help"], ["-?"], ["search", "-?"]], ids=" ".join)
def test_other_spellings_of_help(arguments, tmp_path):
    """What people type for help elsewhere gives help here."""
    done = call(tmp_path, *arguments)
    assert (done.returncode, done.stdout[:15]) == (0, "Usage: minicoil")
