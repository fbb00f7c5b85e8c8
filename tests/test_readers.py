"""Which files are read: a folder of any layout, names, links and encodings gives a listing or one line."""
import gzip
import json
import os
import re
import socket
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicoil.retrieval.judged import read_collection
from minicoil.runs.files import UserError
from minicoil.runs.run import open_run
from minicoil.stages.corpus import convert_openwebtext, fingerprints
from minicoil.stages.index import split_text
from minicoil.stages.sentences import split_sentences
from minicoil.text.folders import left_out_line, list_folder
from minicoil.text.formats import read_documents
from minicoil.text.normalize import normalize_text, normalize_with_offsets
from minicoil.text.readers import corpus_bytes, documents, find_files

LINE = "The bat flew into the cave at night."


@pytest.fixture
def folder(tmp_path):
    """An empty folder for documents."""
    path = tmp_path / "docs"
    path.mkdir()
    return path


def names(folder):
    """The names of the files that a folder gives, below it."""
    return [str(file.relative_to(folder)) for file in find_files([str(folder)])]


def test_text_and_json_lines_together(folder):
    """A folder with both kinds gives both, to training line by line and to search a text file at once."""
    (folder / "a.txt").write_text(f"{LINE}\nAnother bat.\n")
    (folder / "b.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    assert list(documents([str(folder)])) == [LINE, "Another bat.", "one", "two"]
    whole = ("a.txt", f"{LINE}\nAnother bat.\n")
    assert read_collection(folder) == [whole, ("b.jsonl:1", "one"), ("b.jsonl:2", "two")]


@pytest.mark.parametrize("name", ["B.TXT", "b.Txt", "b.TXT.GZ", "b.txt.gz"])
def test_endings_in_any_case_and_compressed(folder, name):
    """An ending in capitals, and a compressed text, is a document for search as for training."""
    raw = LINE.encode()
    (folder / name).write_bytes(gzip.compress(raw) if name.lower().endswith("gz") else raw)
    assert read_collection(folder) == [(name, LINE)]
    assert list(documents([str(folder)])) == [LINE]


@pytest.mark.parametrize("name", [
    "__MACOSX/a.txt", ".ipynb_checkpoints/a.txt", ".git/a.txt", ".hidden.txt", "._a.txt", ".DS_Store",
    "~$a.txt",
    "a.txt~", "#a.txt#", ".a.txt.swp", "sub/.ipynb_checkpoints/a-checkpoint.txt",
])
def test_junk_is_not_read(folder, name):
    """What a system or an editor leaves in a folder is neither trained on nor searched, and is named."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("junk junk junk junk")
    (folder / "a.txt").write_text(LINE)
    assert names(folder) == ["a.txt"]
    assert read_collection(folder) == [("a.txt", LINE)]
    assert "1 entries are left out" in left_out_line(folder, list_folder(folder))


def test_a_linked_folder_is_read_once(folder, tmp_path):
    """Links to files and folders are followed, a file under two names is read once, and loops end."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "far.txt").write_text(LINE)
    (folder / "a.txt").write_text(LINE)
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "again").symlink_to(tmp_path / "elsewhere")
    (folder / "0-link.txt").symlink_to("a.txt")
    (folder / "self").symlink_to(folder)
    (folder / "up").symlink_to(tmp_path)
    (folder / "x").symlink_to("y")
    (folder / "y").symlink_to("x")
    found = names(folder)
    assert sorted(found) in (["a.txt", "again/far.txt"], ["a.txt", "linked/far.txt"])
    assert len(read_collection(folder)) == 2


def test_unusual_entries_are_named(folder):
    """Pipes, sockets, devices, broken links and folders that look like files neither hang nor raise."""
    (folder / "a.txt").write_text(LINE)
    os.mkfifo(folder / "pipe.txt")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(".", os.O_RDONLY)
        os.chdir(folder)
        server.bind("socket.txt")
        os.fchdir(here)
        os.close(here)
    (folder / "null.txt").symlink_to("/dev/null")
    (folder / "gone.txt").symlink_to("nowhere")
    (folder / "empty.txt").touch()
    (folder / "x.txt").mkdir()
    (folder / "x.txt" / "b.txt").write_text(LINE)
    (folder / "corpus.jsonl").mkdir()
    (folder / "report.pdf").write_text("?")
    told = []
    assert [id_ for id_, _ in read_collection(folder, tell=told.append)] == ["a.txt", "x.txt/b.txt"]
    assert len(told) == 1 and "6 entries are left out" in told[0] and "\n" not in told[0]
    for name in ("pipe.txt", "socket.txt", "null.txt", "gone.txt", "nowhere.txt", "report.pdf"):
        with pytest.raises(UserError) as refused:
            find_files([str(folder / name)])
        assert "\n" not in str(refused.value)


def test_names_of_any_bytes(folder):
    """Names may hold line breaks, control characters and bytes of no encoding: ids and messages spell it."""
    strange = [b"line\nbreak.txt", b"bell\x07.txt", b"\xff\xfe.txt", "café.txt".encode(), b"a b.txt"]
    for name in strange:
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_text(LINE, encoding="utf-8")
    found = [id_ for id_, _ in read_collection(folder)]
    assert len(set(found)) == len(strange) and all(id_.isprintable() and id_.encode() for id_ in found)
    assert len(fingerprints([str(folder)])) == len(strange)
    bad = Path(os.fsdecode(os.fsencode(folder) + b"/\xff\n.jsonl"))
    bad.write_text("no json", encoding="utf-8")
    with pytest.raises(UserError) as refused:
        list(documents([str(folder)]))
    assert "\n" not in str(refused.value) and str(refused.value).encode()


@pytest.mark.parametrize("path", ["x" * 5000, "a" * 300 + ".txt", "no/such/folder", os.fsdecode(b"\xff.txt")])
def test_paths_that_cannot_be(path):
    """A path that is too long, or of no encoding, or not there, is refused in one line."""
    with pytest.raises(UserError) as refused:
        find_files([path])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "in a folder"])
@pytest.mark.parametrize("raw", ["café".encode("latin-1"), "bat".encode("utf-16")], ids=["latin-1", "utf-16"])
def test_another_encoding_is_named(folder, alone, raw):
    """A file that is not UTF-8 is refused with its line and how to convert it, or left out on demand."""
    (folder / "a b.txt").write_bytes(b"A bat.\n" + raw + b"\n")
    source = folder / "a b.txt" if alone else folder
    message = r"a b.txt line 2 is not UTF-8 .*convert it, as with iconv -f .* '.*/a b.txt'"
    for read in (lambda: list(documents([str(source)])), lambda: read_collection(source)):
        with pytest.raises(UserError, match=message):
            read()
    skipped = []
    assert list(documents([str(source)], on_bad_input="skip", skipped=skipped))[0] == "A bat."
    assert read_collection(source, on_bad_input="skip", skipped=skipped)[0][1].strip() == "A bat."
    assert skipped and all("line" in message for message in skipped)


def test_an_unreadable_file_is_named(folder, monkeypatch):
    """A file that may not be opened is named; no message says to make room, or mentions OpenWebText."""
    (folder / "a.txt").write_text(LINE)
    monkeypatch.setattr("minicoil.text.formats.os.access", lambda *_: False)
    corpus = [str(folder)]
    for read in (lambda: list(documents(corpus)), lambda: convert_openwebtext(open_run(corpus=corpus))):
        with pytest.raises(UserError, match="a.txt cannot be read: you lack the permission") as refused:
            read()
        assert "room" not in str(refused.value) and "OpenWebText" not in str(refused.value)
    assert list(read_documents(folder / "a.txt", on_bad_input="skip", skipped=[])) == []


def test_short_lines_are_counted_and_blamed(tmp_path):
    """A word only in titles of two or three words is not called absent: the reason is their length."""
    titles, others = "Fruit bats\nThe wooden bat\nBaseball bat\n", LINE.replace("bat", "owl")
    (tmp_path / "titles.txt").write_text(f"{titles}{others}\n")
    run = open_run(tmp_path / "run", corpus=[str(tmp_path / "titles.txt")], words=["bat"])
    convert_openwebtext(run)
    with pytest.raises(UserError, match="bat: only in sentences of fewer than 4 words"):
        split_sentences(run)
    assert len(split_text("Fruit bats\nThe wooden bat").left_out) == 2


SEGMENTS = st.sampled_from([
    "a", "B", "x.txt", "y.JSONL", "c.txt.gz", "d.parquet", "e.tar", "f.xz", "__MACOSX", ".h", "~$x.txt",
    "n\nl.txt", "é.txt", "\udcff.txt", "corpus.jsonl", "g.pdf", "z.txt.zst",
])
PATHS = st.lists(SEGMENTS, min_size=1, max_size=4).map("/".join)
KINDS = st.sampled_from(["file", "file", "file", "folder", "fifo", "link"])
CONTENTS = st.sampled_from([
    b"", LINE.encode(), b"\xff\xfe", b"\n\n", b'{"text": "one"}', b"\x1f\x8b", b"PAR1", "é".encode("latin-1"),
])


def lay_out(root, entries):
    """Make the entries under a folder, as far as they can be made beside each other."""
    for name, kind, content, target in entries:
        path = root / name
        if os.path.lexists(path):  # opening a pipe for writing would wait
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind == "folder":
                path.mkdir()
            elif kind == "fifo":
                os.mkfifo(path)
            elif kind == "link":
                path.symlink_to(target if target.startswith("..") else root / target)
            else:
                path.write_bytes(content)
        except OSError:
            continue


def one_line(read, *args, **given):
    """Call a reader; if it refuses, then in one line that a terminal can show."""
    try:
        read(*args, **given)
    except UserError as e:
        assert "\n" not in str(e) and str(e).encode()


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(PATHS, KINDS, CONTENTS, PATHS | st.sampled_from(["..", "../..", "."])), max_size=8))
def test_any_folder_is_listed_and_read(entries):
    """Any layout of files, folders, pipes and links gives each file once, or is refused in one line."""
    with tempfile.TemporaryDirectory() as home:
        root = Path(home) / "in" / "docs"
        root.mkdir(parents=True)
        lay_out(root, entries)
        found = list_folder(root)
        assert len({os.path.realpath(file) for file in found.files}) == len(found.files)
        assert not set(found.files) & set(found.left_out)
        assert left_out_line(root, found).isprintable()
        one_line(find_files, [str(root)])
        one_line(corpus_bytes, [str(root)])
        one_line(fingerprints, [str(root)])
        one_line(lambda: list(documents([str(root)])))
        one_line(read_collection, root)
        one_line(read_collection, root, on_bad_input="skip", skipped=[])


SYMBOLS = st.sampled_from([
    *"®™©²°½€£🍕→①ªﬁﬂｂａ´¨℃한",
    *"\u00ad\u200b\u200d\u00a0\u2060\ufeff\ufe0f\u0301\u1112\u1161\u11ab\ue000\uff9e",
])
WORDS = st.sampled_from(["bank", "Bank", "5", " ", "(", "é", "’", "-", "\n", "洞"])


@settings(max_examples=400, deadline=None)
@given(st.lists(st.one_of(SYMBOLS, WORDS, st.characters()), max_size=12).map("".join))
def test_normalizing_is_finished_and_offsets_lead_back(text):
    """A second pass changes nothing, printable ASCII stays, each character points at its origin, in order."""
    plain = normalize_with_offsets(text)
    assert plain.text == normalize_text(text) == normalize_text(plain.text)
    assert len(plain.offsets) == len(plain.text)
    assert all(0 <= a <= b <= len(text) for a, b in plain.offsets)
    assert all(a[0] <= b[0] and a[1] <= b[1] for a, b in zip(plain.offsets, plain.offsets[1:]))
    if text.isascii():  # control characters become spaces
        assert len(plain.text) == len(text)
        assert all(a == b for a, b in zip(text, plain.text) if a.isprintable() or a in "\t\n\r")


@pytest.mark.parametrize("sign", list("®™©²³°½€→★①🍕†…—") + ["\u2122\ufe0f", "🍕🍕", "👩\u200d🚀"])
def test_a_word_beside_a_sign_is_found(sign):
    """A word that touches a sign, before or behind it, is a word of its own."""
    for text in (f"bank{sign}", f"{sign}bank", f"bank{sign}bank", f"Bank{sign}, bank"):
        assert "bank" in re.split(r"[\s.,†—]+", normalize_text(text).lower()), text


@pytest.mark.parametrize("written, plain", [
    ("ｂａｎｋ", "bank"), ("ﬁnance", "finance"), ("ba\u00adnk", "bank"), ("ba\u200bnk", "bank"),
    ("a\u00a0bank", "a bank"), ("𝐛𝐚𝐧𝐤", "bank"), ("cafe\u0301", "café"), ("£12", "£12"),
])
def test_letters_of_another_form(written, plain):
    """Full-width letters, ligatures, soft hyphens and spaces of any kind are read as what they mean."""
    assert normalize_text(written) == plain
    assert normalize_with_offsets(written).span(0, len(plain)) == (0, len(written))


def test_a_document_keeps_its_own_id(tmp_path):
    """JSON lines with `_id` or `id` are found by it; an id that comes twice loses nothing."""
    rows = [{"id": "bank-1", "text": "river"}, {"_id": 7, "text": "money"}, {"text": "no id"}]
    path = tmp_path / "docs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    found = [("bank-1", "river"), ("7", "money"), ("docs.jsonl:3", "no id")]
    assert read_collection(path) == found
    path.write_text("\n".join(map(json.dumps, [{"id": "new", "text": "first"}, *rows[:2]])))
    assert read_collection(path) == [("new", "first"), *found[:2]]
    (tmp_path / "more.jsonl").write_text(json.dumps({"id": 7, "text": "another"}))
    assert ("more.jsonl:1", "another") in read_collection(tmp_path)


def test_a_row_of_parquet_keeps_its_own_id(tmp_path):
    """Parquet with a column `_id` or `id` is found by it, as JSON lines are; fractions are no ids."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def ids(**columns):
        pq.write_table(pa.table({"text": ["river", "money"], **columns}), tmp_path / "docs.parquet")
        return [name for name, _ in read_collection(tmp_path / "docs.parquet")]

    by_place = ["docs.parquet:1", "docs.parquet:2"]
    assert ids() == by_place
    assert ids(id=[7, 8]) == ids(_id=["7", "8"]) == ["7", "8"]
    assert ids(id=[1, 2], _id=["a", "b"]) == ["a", "b"]
    assert ids(id=["a", None]) == ["a", by_place[1]]
    assert ids(id=["a", "a"]) == ["a", by_place[1]]
    assert ids(id=[1.5, 2.5]) == ids(id=[b"a", b"b"]) == ids(id=[[1], [2]]) == by_place
    assert list(documents([str(tmp_path / "docs.parquet")])) == ["river", "money"]


BLANKS = ["\n", " \t\r\n", "\ufeff", "\ufeff \u00a0\u3000\u2028\n"]


@pytest.mark.parametrize("blanks", BLANKS, ids=ascii)
@pytest.mark.parametrize("name", ["blank.txt", "BLANK.TXT", "blank.txt.gz", "blank.jsonl"])
def test_a_blank_file_of_a_folder_is_left_out_and_named(folder, name, blanks):
    """A file with nothing but blanks is no document for anybody; it is counted and named."""
    raw = blanks.encode()
    (folder / "a.txt").write_text(LINE)
    (folder / name).write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
    said = []
    assert read_collection(folder, tell=said.append) == [("a.txt", LINE)]
    assert list(documents([str(folder)])) == [LINE]
    assert said == [f"{folder}: 1 files are read, 1 entries are left out: {name} (blank)"]


def test_a_folder_of_blank_files_has_none(folder):
    """A folder in which every file is blank is refused, and so is a blank file that is named alone."""
    for name in ("a.txt", "b.txt"):
        (folder / name).write_text(" \n")
    for read in (lambda: read_collection(folder), lambda: list(documents([str(folder)]))):
        with pytest.raises(UserError, match=r"a\.txt \(blank\); b\.txt \(blank\)"):
            read()
    with pytest.raises(UserError, match="has no documents"):
        read_collection(folder / "a.txt")


def test_a_file_that_begins_with_blanks_is_read(folder):
    """Many blanks before the first word do not make a file blank."""
    (folder / "a.txt").write_text("\n" * 100_000 + LINE)
    assert list(documents([str(folder)])) == [LINE]
