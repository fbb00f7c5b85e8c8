"""Generated bad input: each case ends in a `UserError` of one line, or in right results; nothing outside
the folder is touched."""

import gzip
import io
import json
import lzma
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trials import hand_over, row

from minicoil import MiniCOIL
from minicoil.commands.lines import decoded
from minicoil.commands.options import word_list
from minicoil.learning.objectives import OBJECTIVES
from minicoil.retrieval.judged import read_collection, read_judged
from minicoil.runs.files import UserError
from minicoil.runs.run import Parameters, check_parameters, open_run, stage_function
from minicoil.serving.directory import ENCODERS_FILE
from minicoil.text.formats import read_documents
from minicoil.text.normalize import normalize_text
from minicoil.text.pieces import WordPieces
from minicoil.text.readers import read_senses
from minicoil.text.vocabulary import VOCAB_FILE, read_words

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None)
LONG = settings(max_examples=2200, deadline=None, suppress_health_check=list(HealthCheck), database=None)


def one_line_or(result):
    """What `result()` returns, or None for a `UserError`, whose message must be one line that can be
    printed."""
    try:
        return result()
    except UserError as e:
        assert str(e) and "\n" not in str(e) and "Traceback" not in str(e), repr(str(e))
        str(e).encode("utf-8", "strict")
        return None


def run_cases(check, strategy, how, request, folder):
    """Try a check on generated cases, and hand over how many there were and how many were refused."""
    counts = {"cases": 0, "refused": 0}

    @how
    @given(strategy)
    def one(case):
        counts["cases"] += 1
        counts["refused"] += check(case, folder, request) is None

    wrong = 1
    try:
        one()
        wrong = 0
    finally:
        kind = check.__name__.removeprefix("test_").replace("_", " ")
        few = "generated, few" if how is QUICK else "generated"
        tried = row(kind, few, counts["cases"], 0, wrong, refused=counts["refused"])
        hand_over(request.getfixturevalue("record_property"), tried)


def generated(strategy):
    """Make a check of one case a test of many: of a few, and, with --slow, of thousands."""

    def as_test(check):
        @pytest.mark.parametrize(
            "how", [QUICK, pytest.param(LONG, marks=pytest.mark.slow)], ids=["few", "many"]
        )
        def test(how, request, tmp_path_factory):
            run_cases(check, strategy, how, request, tmp_path_factory.mktemp("fuzz"))

        test.__name__, test.__doc__ = check.__name__, check.__doc__
        return test

    return as_test


# Corpora

LINES = st.one_of(
    st.binary(max_size=60),
    st.text(max_size=40).map(lambda t: t.encode("utf-8", "surrogatepass")),
    st.sampled_from(
        [
            b"",
            b"\xef\xbb\xbfA bat.",
            b"a\x00bat",
            b"a\tbat\r",
            b"\xed\xa0\x80 lone",
            b"bat\xe2\x80\xa8bank",
            b'{"text": "bat"}',
            b'{"text": null}',
            b"[" * 3000,
            b'{"text": "\\ud800 bat"}',
            b"null",
            b'"x"',
            b"1e999",
        ]
    ),
)


def zstd(raw):
    """The bytes as one Zstandard frame."""
    return pyarrow.compress(raw, codec="zstd", asbytes=True)


def spoiled(packed):
    """The bytes with some in their middle overwritten."""
    return packed[: len(packed) // 2] + b"\xff" * 8 + packed[len(packed) // 2 + 8 :]


PACKERS = {
    "": lambda b: b,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".gz-wrong": lambda b: b,
    ".gz-cut": lambda b: gzip.compress(b)[:-9],
    ".gz-spoiled": lambda b: spoiled(gzip.compress(b)),
    ".zst": zstd,
    ".zst-cut": lambda b: zstd(b)[:-3],
    ".xz-cut": lambda b: lzma.compress(b)[:-5],
}
CORPUS = st.tuples(
    st.lists(LINES, max_size=8),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
    st.sampled_from([".txt", ".jsonl", ".parquet", ".tar"]),
    st.sampled_from(list(PACKERS)),
    st.sampled_from(["fail", "skip"]),
)


@generated(CORPUS)
def test_corpora(case, folder, request):
    """A corpus of any bytes gives texts that can be written down, or one line; with `skip`, whatever can be
    read, and a list of what cannot."""
    lines, end, kind, packed, on_bad_input = case
    path = folder / f"corpus{kind}{packed.split('-')[0]}"
    path.write_bytes(PACKERS[packed](end.join(lines)))
    skipped = []
    found = one_line_or(lambda: list(read_documents(path, "text", on_bad_input, skipped)))
    path.unlink()
    if found is None:
        assert on_bad_input == "fail" or kind == ".parquet"
        return None
    assert skipped or not packed.endswith("-cut") or kind == ".tar", "half a file was read as a whole one"
    assert all(isinstance(t, str) for t in found) and all("\n" not in s for s in skipped if s)
    if kind == ".txt" and packed == "" and not skipped:
        whole = end.join(lines).decode("utf-8-sig").split("\n")
        assert found == [line.strip("\r\n") for line in whole if line.strip()]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("text", ["a", "the bat flew ", "The bat flew. ", '"( '])
def test_a_line_of_a_hundred_megabytes(tmp_path, text):
    """A line of 100 MB is a text like any other: read whole, cut into sentences, and the lines around it
    too."""
    path = tmp_path / "corpus.txt"
    path.write_text(
        "A bat flew.\n" + text * (100_000_000 // len(text)) + "\nThe bat sat on its own in the cave.\n"
    )
    assert [len(t) > 10**7 for t in read_documents(path)] == [False, True, False]
    run = open_run(tmp_path / "run", words=["bat"], corpus=[str(path)])
    stage_function("corpus")(run)
    assert one_line_or(lambda: stage_function("sentences")(run)) is None, (
        "one sentence with a bat is too few to train"
    )
    assert not (tmp_path / "run" / "11_sentences" / "manifest.json").exists()


TAR_MEMBERS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "a.txt",
                "../../escaped.txt",
                "/tmp/minicoil-escaped.txt",
                "x/../../y.txt",
                "b.xz",
                "link.txt",
                "dev.txt",
            ]
        ),
        st.binary(max_size=40),
        st.sampled_from(
            [
                tarfile.REGTYPE,
                tarfile.SYMTYPE,
                tarfile.LNKTYPE,
                tarfile.CHRTYPE,
                tarfile.DIRTYPE,
                tarfile.FIFOTYPE,
            ]
        ),
    ),
    max_size=5,
)


@generated(TAR_MEMBERS)
def test_tars(case, folder, request):
    """A tar of any members, links and paths among them, is read as text or refused; nothing is written
    anywhere."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, raw, kind in case:
            member = tarfile.TarInfo(name)
            member.type, member.size, member.linkname = (
                kind,
                len(raw) if kind == tarfile.REGTYPE else 0,
                "/etc/passwd",
            )
            tar.addfile(member, io.BytesIO(raw))
    path = folder / "corpus.tar"
    path.write_bytes(packed.getvalue())
    before = sorted(folder.rglob("*"))
    found = one_line_or(lambda: list(read_documents(path, "text", "skip", [])))
    assert (
        sorted(folder.rglob("*")) == before
        and not Path("/tmp/minicoil-escaped.txt").exists()
        and not (folder.parent / "escaped.txt").exists()
    )
    assert not any("root:" in t for t in found or ())
    return found


# Words and parameters

WORD = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [
            "../../x",
            "",
            "/",
            "a" * 10_000,
            "🦇",
            "bat\x1b[31m",
            "İstanbul",
            "ıI",
            "e\u0301te\u0301",
            "mouse/mice",
            "mouse//",
            "bats",
            "bat",
            "BAT",
            "\u202ebat",
            "a\u200bb",
            "ba\x00t",
            "ﬁn",
            "ß",
            "𝐛𝐚𝐭",
        ]
    ),
)


@generated(st.lists(WORD, max_size=6))
def test_words(case, folder, request):
    """A word is usable, with forms that the tokenizer reads as one word each, or is named with a reason;
    nothing gets lost."""
    pieces = request.getfixturevalue("pieces")
    usable, unusable = read_words(case, "english", pieces)
    assert all(isinstance(reason, str) and reason for reason in unusable.values())
    assert all(name.isprintable() and len(name) <= 40 for name in unusable)
    for word in usable:
        assert (
            word == word.lower()
            and word.isprintable()
            and 0 < len(word) <= 40
            and "/" not in word
            and ".." not in word
        )
    asked = {normalize_text(word.split("/")[0]).strip().lower() for word in case}
    assert asked - set(usable) == set() or unusable
    return usable or None


VALUE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.one_of(st.text(max_size=5), st.integers()), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.binary(max_size=4),
)


GOOD_WORDS = st.lists(st.sampled_from(["bat", "bank", "mouse/mice", "été"]), max_size=3)
GOOD = {
    "words": GOOD_WORDS,
    "top_words": st.integers(0, 10**6),
    "corpus": st.lists(st.sampled_from(["demo", "openwebtext", "nowhere.txt"]), min_size=1, max_size=2),
    "text_field": st.sampled_from(["text", "body"]),
    "target_model": st.just("bge-small-en-v1.5"),
    "dim": st.integers(2, 16),
    "samples": st.integers(16, 1000),
    "objective": st.sampled_from(sorted(OBJECTIVES)),
    "language": st.sampled_from(["english", "german"]),
    "seed": st.integers(0, 2**31 - 1),
    "encode": st.sampled_from(["cover", "all"]),
    "precision": st.sampled_from(["auto", "float32", "bf16"]),
    "pictures": st.integers(0, 99),
    "on_bad_input": st.sampled_from(["fail", "skip"]),
}
ANY = st.dictionaries(
    st.sampled_from([*Parameters.__dataclass_fields__, "nonsense", "__import__('os')"]), VALUE, max_size=4
)
NAMED = st.sampled_from([*Parameters.__dataclass_fields__, "nonsense"])


@generated(
    st.one_of(
        ANY,
        st.fixed_dictionaries({}, optional=GOOD),
        st.tuples(st.fixed_dictionaries({}, optional=GOOD), NAMED, VALUE).map(lambda c: {**c[0], c[1]: c[2]}),
    )
)
def test_parameters(case, folder, request):
    """Parameters of any names and types are refused in one line, or are of the type they are declared to be
    and within bounds."""
    params = one_line_or(lambda: check_parameters(case))
    if params is not None:
        for name in case:
            default = Parameters.__dataclass_fields__[name].default
            assert type(getattr(params, name)) is type(default)
        assert (
            params.dim >= 2
            and params.samples >= params.dim
            and params.seed >= 0
            and params.objective in OBJECTIVES
        )
        assert params.seed < 2**63 and params.samples < 2**31
    return params


@generated(st.fixed_dictionaries({}, optional=GOOD))
def test_sound_parameters(case, folder, request):
    """Parameters that are all sound are taken as they are."""
    params = check_parameters(case)
    assert all(
        getattr(params, name) == (tuple(value) if isinstance(value, list) else value)
        for name, value in case.items()
    )
    return params


# Model directories


@pytest.fixture(scope="session")
def pieces():
    """The word pieces of the bundled tokenizer."""
    from minicoil.text.transformer import load_tokenizer

    return WordPieces(load_tokenizer("all-MiniLM-L6-v2"))


@pytest.fixture(scope="session")
def served(tiny_run):
    """(the tiny run's model directory, what it gives for three texts)"""
    return tiny_run / "23_model", vectors(tiny_run / "23_model")


TEXTS = ["A bat in a cave.", "the bank", "zzyzx bats"]


def vectors(folder):
    """The vectors of three texts as lists."""
    return [(v.indices.tolist(), v.values.tolist()) for v in MiniCOIL.load(folder, threads=1).embed(TEXTS)]


class Pickled:
    def __reduce__(self):
        return (Path("pickled-code-ran").touch, ())


def npy(array):
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


def broken_array(kind, raw):
    """The bytes of an encoders' file, spoiled; what is left to be right is the caller's to know."""
    w = np.load(io.BytesIO(raw))
    return {
        "pickle": lambda: npy(np.array([Pickled()] * len(w), object)),
        "swapped": lambda: npy(w.transpose(0, 2, 1).copy()),
        "flat": lambda: npy(w[0]),
        "longer": lambda: npy(np.concatenate([w, w[:1]])),
        "shorter": lambda: npy(w[:-1]),
        "row 0": lambda: npy(np.concatenate([w[1:2], w[1:]])),
        "integers": lambda: npy(w.astype(int)),
        "nothing": lambda: npy(np.empty((0, 0, 0), np.float32)),
        "no dim": lambda: npy(w[:, :, :0]),
        "other width": lambda: npy(w[:, :-3]),
        "nan": lambda: npy(np.where(np.arange(len(w))[:, None, None] == 1, np.nan, w)),
        "complex": lambda: npy(w.astype(complex)),
        "infinite": lambda: npy(np.where(np.arange(len(w))[:, None, None] == 1, np.inf, w)),
        "text": lambda: npy(w.astype("U9")),
        "scalar": lambda: npy(np.float32(1)),
        "half": lambda: npy(w.astype(np.float16)),
    }[kind]()


ARRAYS = (
    "pickle",
    "swapped",
    "flat",
    "longer",
    "shorter",
    "row 0",
    "integers",
    "nothing",
    "no dim",
    "other width",
    "nan",
    "complex",
    "infinite",
    "text",
    "scalar",
    "half",
)
JSONS = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"3",
    b'"x"',
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b"\xff\xfe",
    b'{"vocab": 3}',
    b'{"vocab": [], "stem_mapping": {}}',
    b'{"vocab": ["bat", "bat"], "stem_mapping": {}}',
    b'{"vocab": ["bat", "bank"], "stem_mapping": {"x": ["bat"]}}',
    b'{"vocab": ["bat", "bank"], "stem_mapping": {"x": {}}}',
    b'{"language": 3}',
    b'{"language": "klingon"}',
    b'{"pad_id": "x"}',
    b'{"pad_id": null}',
    b'{"model_max_length": -1}',
    b'{"model_max_length": "x"}',
    b'{"model_max_length": 1}',
    b'{"model_max_length": 2147483647}',
    b"1" * 5000,
]
FILES = [
    ENCODERS_FILE,
    VOCAB_FILE,
    "stopwords.txt",
    "minicoil.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "onnx/model.onnx",
]
SPOILING = st.tuples(
    st.sampled_from(FILES),
    st.one_of(
        st.just(("delete", 0)),
        st.tuples(st.just("cut"), st.floats(0, 0.999)),
        st.tuples(st.just("json"), st.sampled_from(JSONS)),
        st.tuples(st.just("array"), st.sampled_from(ARRAYS)),
        st.tuples(st.just("bytes"), st.binary(max_size=50)),
        st.just(("folder", 0)),
    ),
)


@generated(SPOILING)
def test_model_directories(case, folder, request):
    """A spoiled model directory is refused in one line, or gives finite vectors of texts; no pickle in it
    is ever opened."""
    whole, expected = request.getfixturevalue("served")
    copy, (name, (kind, what)) = folder / "model", case
    shutil.copytree(whole, copy, copy_function=os.link)
    path = copy / name
    raw = path.read_bytes()
    path.unlink()
    if kind == "cut":
        path.write_bytes(raw[: int(what * len(raw))])
    elif kind in ("json", "bytes"):
        path.write_bytes(what)
    elif kind == "array":
        path.write_bytes(broken_array(what, (whole / ENCODERS_FILE).read_bytes()))
    elif kind == "folder":
        path.mkdir()
    try:
        found = one_line_or(lambda: vectors(copy))
    finally:
        shutil.rmtree(copy)
    assert not Path("pickled-code-ran").exists()
    if found is not None:
        assert len(found) == len(TEXTS) and all(np.isfinite(values).all() for _, values in found), case
        if name == ENCODERS_FILE and kind != "array":
            raise AssertionError(f"encoders spoiled by {case[1]} went through")
        if name in (ENCODERS_FILE,) and what not in ("half",):
            raise AssertionError(f"encoders spoiled by {what} went through")
    return found


# Judged collections, labelled senses, word lists, lines

ROW = st.one_of(
    st.fixed_dictionaries(
        {},
        optional={
            "_id": st.one_of(st.text(max_size=4), st.integers(), st.none()),
            "title": st.one_of(st.text(max_size=5), st.none(), st.integers()),
            "text": st.one_of(st.text(max_size=9), st.none(), st.lists(st.integers(), max_size=2)),
        },
    ),
    st.none(),
    st.integers(),
    st.lists(st.integers(), max_size=2),
).map(lambda r: json.dumps(r).encode())
BEIR = st.tuples(
    st.lists(st.one_of(ROW, LINES), max_size=4),
    st.lists(st.one_of(ROW, LINES), max_size=4),
    st.lists(
        st.one_of(
            st.binary(max_size=12),
            st.sampled_from(
                [
                    b"q\td\t1",
                    b"q\td",
                    b"query-id\tcorpus-id\tscore",
                    b"q\td\tx",
                    b"q\t\t1",
                    b"0\t0\t1",
                    b"0\t1\t\xc2\xb2",
                ]
            ),
        ),
        max_size=4,
    ),
    st.sets(st.integers(0, 2), max_size=1),
)


@generated(BEIR)
def test_judged_collections(case, folder, request):
    """A BEIR folder is read, with every judged query's text and grades that are numbers, or refused in one
    line."""
    *files, gone = case
    for i, (name, lines) in enumerate(zip(("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"), files)):
        path = folder / "beir" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True) if i in gone else path.write_bytes(b"\n".join(lines))
    found = one_line_or(lambda: read_judged(folder / "beir"))
    if found is not None:
        documents, queries, judged = found
        names = [d for d, _ in documents]
        assert (
            documents
            and queries
            and len(set(names)) == len(names)
            and len({q for q, _ in queries}) == len(queries)
        )
        assert set(judged) == {q for q, _ in queries} and all(
            type(g) is int for grades in judged.values() for g in grades.values()
        )
    return found


NAME = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1, max_size=5)
NAMES = st.lists(NAME, min_size=1, max_size=5, unique=True)
COLLECTION = st.tuples(
    NAMES,
    NAMES,
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(-1, 3)), min_size=1, max_size=9),
    st.text(max_size=20),
    st.booleans(),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", "no id", "no query", "twice", "list", "grade", "unknown query"]),
)


def clean(text):
    """The text as a file in UTF-8 can hold it."""
    return text.encode("utf-8", "replace").decode()


@generated(COLLECTION)
def test_sound_collections(case, folder, request):
    """A BEIR folder with at most one fault is read as it was written, or the fault is named with its file;
    a query without judgements is left out."""
    documents, queries, pairs, text, header, end, fault = case
    shutil.rmtree(folder / "sound", ignore_errors=True)
    (folder / "sound" / "qrels").mkdir(parents=True)
    rows = [{"_id": d, "title": "t", "text": text} for d in documents]
    asked = [{"_id": q, "text": f"{text} {q}"} for q in queries]
    judged = {(queries[q % len(queries)], documents[d % len(documents)]): g for q, d, g in pairs}
    lines = [
        *(["query-id\tcorpus-id\tscore"] if header else []),
        *(f"{q}\t{d}\t{g}" for (q, d), g in judged.items()),
    ]
    if fault == "no id":
        rows[-1].pop("_id")
    elif fault == "no query":
        asked = [q for q in asked if q["_id"] not in {q for q, _ in judged}]
    elif fault == "twice":
        rows.append(rows[0])
    elif fault == "list":
        rows[0]["text"] = [text]
    elif fault == "grade":
        lines.append(f"{queries[0]}\t{documents[0]}\tgood")
    elif fault == "unknown query":
        lines.append(f"nobody asks this\t{documents[0]}\t1")
    for name, written in (
        ("corpus.jsonl", map(json.dumps, rows)),
        ("queries.jsonl", map(json.dumps, asked)),
        ("qrels/test.tsv", lines),
    ):
        (folder / "sound" / name).write_bytes((end.join(written) + end).encode())
    found = one_line_or(lambda: read_judged(folder / "sound"))
    if fault in ("", "unknown query"):
        of = {q for q, _ in judged}
        assert found == (
            [(d, f"t {clean(text)}".strip()) for d in documents],
            [(q, f"{clean(text)} {q}") for q in queries if q in of],
            {q: {d: g for (p, d), g in judged.items() if p == q} for q in queries if q in of},
        )
    else:
        assert found is None
    return found


SENTENCE = {
    "word": st.sampled_from(["bat", "bank", None, 3]),
    "sense": st.sampled_from(["animal", "club", None, 7]),
    "sentence": st.sampled_from(["A bat flew by.", "The bank.", "", None, "\ud800 bat"]),
    "start": st.one_of(st.integers(-1, 16), st.none(), st.floats()),
    "end": st.one_of(st.integers(-1, 16), st.none(), st.just("5")),
    "split": st.sampled_from(["train", "test", 1]),
}
ALL_SOUND = {
    "word": st.just("bat"),
    "sense": st.sampled_from(["animal", "club"]),
    "sentence": st.just("A bat flew by."),
    "start": st.just(2),
    "end": st.just(5),
    "split": st.sampled_from(["train", "test"]),
}
SENSES = st.lists(
    st.one_of(
        LINES,
        *[st.fixed_dictionaries(ALL_SOUND)] * 3,
        st.fixed_dictionaries(SENTENCE),
        st.tuples(st.fixed_dictionaries(ALL_SOUND), st.sampled_from(sorted(SENTENCE))).flatmap(
            lambda c: SENTENCE[c[1]].map(lambda v: {**c[0], c[1]: v})
        ),
    ),
    max_size=3,
)


@generated(SENSES)
def test_sense_data(case, folder, request):
    """Labelled sentences are read as they were written, each with a span in it, or refused by line."""
    (folder / "senses.jsonl").write_bytes(
        b"\n".join(row if isinstance(row, bytes) else json.dumps(row).encode() for row in case)
    )
    found = one_line_or(lambda: read_senses(folder / "senses.jsonl"))
    sound = bool(case) and all(
        isinstance(row, dict)
        and row["word"] == "bat"
        and isinstance(row["sense"], str)
        and row["sentence"] == "A bat flew by."
        and (row["start"], row["end"]) == (2, 5)
        and isinstance(row["split"], str)
        for row in case
    )
    assert found == case if sound else True
    for one in found or ():
        assert (
            one["word"] is None
            or isinstance(one["sense"], str)
            and 0 <= one["start"] < one["end"] <= len(one["sentence"])
        )
        one["sentence"].encode()
    return found


@generated(
    st.one_of(st.binary(max_size=60), st.text(max_size=60).map(lambda t: t.encode("utf-8", "surrogatepass")))
)
def test_lists_of_words(case, folder, request):
    """A word list of any bytes is words without blanks at their ends, each once, or one line."""
    (folder / "words.txt").write_bytes(case)
    found = one_line_or(lambda: word_list(None, folder / "words.txt"))
    assert (
        found is None or found and all(w and w == w.strip() for w in found) and len(set(found)) == len(found)
    )
    return found


@generated(st.lists(st.one_of(LINES, st.binary(min_size=60, max_size=70)), max_size=6).map(b"\n".join))
def test_lines_to_embed(case, folder, request):
    """Of any bytes there is a text for every line, and what was wrong is counted."""
    faults = {}
    texts = list(decoded(io.BytesIO(case), faults, longest=64))
    assert len(texts) == case.count(b"\n") + (not case.endswith(b"\n") and case != b"")
    for text in texts:
        text.encode()
    return texts


def test_deep_json_is_one_line(tmp_path):
    """A line of labelled sentences, documents or queries that nests without end is named."""
    path = tmp_path / "deep.jsonl"
    path.write_bytes(b"[" * 5000)
    for read in (read_senses, lambda p: list(read_documents(p)), read_collection):
        with pytest.raises(UserError, match="deep.jsonl") as e:
            read(path)
        assert "\n" not in str(e.value)
