"""`minicoil embed` as a filter in a pipe: a line for every line, in bounded memory, whatever comes in and
whoever stops reading."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pytest
from calls import call, one_line
from chains import end_all, start

from minicoil import MiniCOIL
from minicoil.commands.lines import LONGEST_LINE

MINICOIL = str(Path(sys.executable).with_name("minicoil"))
# Runs a command and prints the peak of its memory in MB, last on stderr.
MEASURED = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024, file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture(autouse=True)
def no_process_left():
    yield
    end_all()


@pytest.fixture(scope="module")
def model(tiny_run):
    return tiny_run / "23_model"


def embed(model, *options, given=b""):
    """The finished command with bytes on standard input; stdout and stderr as texts."""
    done = subprocess.run(
        [MINICOIL, "embed", "--model", str(model), *map(str, options)], input=given, capture_output=True
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def peak(model, given, *options):
    """Megabytes of memory that embedding the file `given` takes at most."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            MEASURED,
            MINICOIL,
            "embed",
            "--model",
            str(model),
            *map(str, options),
            str(given),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stderr.splitlines()[-1])


def waiting_bytes(pipe):
    """Bytes in a pipe that nobody has read yet."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def rows(text):
    """The vectors of lines of JSON as {index: value}."""
    return [dict(zip(row["indices"], row["values"])) for row in map(json.loads, text.splitlines())]


def same(a, b):
    """Whether two lists of vectors are the same: batches of other lengths may change the last digits."""
    return len(a) == len(b) and all(
        x.keys() == y.keys() and np.allclose(list(x.values()), [y[k] for k in x], atol=2e-5)
        for x, y in zip(a, b)
    )


def test_the_same_as_the_library(model):
    """The lines are what `MiniCOIL.embed` gives for the texts, in their order, also over the borders of
    windows."""
    texts = [f"{i} a bat, a bank and {'a long ' * (i % 40)}tail" if i % 3 else "" for i in range(2500)]
    code, out, err = embed(model, given="\n".join(texts).encode() + b"\n")
    assert (code, err) == (0, "")
    expected = MiniCOIL.load(model).embed(texts, normalize=True, windows=True)
    assert same(rows(out), [v.as_dict() for v in expected])


def test_empty_lines(model):
    """Empty lines give empty vectors: one line comes out for every line that goes in."""
    code, out, _ = embed(model, given=b"\n\n\na bat\n\n")
    assert code == 0 and [len(v) for v in rows(out)] == [0, 0, 0, 3, 0]


@pytest.mark.parametrize("format", ["jsonl", "npz"])
def test_undecodable_lines_are_counted(model, tmp_path, format):
    """Bytes that are not UTF-8 cost their line nothing but the broken word; all such lines are counted
    once, at the end, with the first one's number."""
    given = b"a bat\n" + b"\xff\xfe bat\n" * 1500 + b"a bat"
    code, out, err = embed(model, "--format", format, "--out", tmp_path / "out", given=given)
    assert (code, out) == (0, "")
    assert err == "not UTF-8, read with replacement characters: 1500 lines, the first is line 2\n"
    if format == "jsonl":
        vectors = rows((tmp_path / "out").read_text())
        assert len(vectors) == 1502 and len({frozenset(v) for v in vectors}) == 1


def test_byte_order_mark_and_line_ends(model):
    """A byte order mark and Windows line ends belong to no word."""
    _, marked, err = embed(model, given=b"\xef\xbb\xbfbat\r\nzzyzx\r\n")
    _, plain, _ = embed(model, given=b"bat\nzzyzx\n")
    assert marked == plain and err == ""


def test_a_line_without_end(model):
    """A line longer than 4 MiB is cut, one vector all the same, and reported; the next is not touched."""
    long = b"bat " * (LONGEST_LINE // 4 + 10)
    code, out, err = embed(model, "--cut", given=b"a bat\n" + long + b"\na bat")
    assert code == 0
    assert len(rows(out)) == 3
    assert rows(out)[0] == rows(out)[2]
    assert rows(out)[1]
    (reported,) = [line for line in err.splitlines() if "bytes" in line]
    assert "longer than" in reported
    assert "1 line, the first is line 2" in reported
    assert err.count("\n") == 2  # the other line says that it has more tokens than are read


def test_nobody_reads_on(model, tmp_path):
    """When the reader leaves, the command ends without a word on stderr, soon, and with the code that
    shells give for a broken pipe."""
    (tmp_path / "many.txt").write_bytes(b"a bat in a cave\n" * 200_000)
    first = time.monotonic()
    process = start([MINICOIL, "embed", "--model", str(model), str(tmp_path / "many.txt")])
    assert json.loads(process.stdout.readline())["indices"]
    process.stdout.close()
    begin = time.monotonic()
    assert (process.wait(timeout=600), process.stderr.read()) == (141, "")
    assert time.monotonic() - begin < max(60, begin - first)


def test_nobody_reads_a_short_output(model):
    """The reader may be gone before the first line: no word then either, though the output fits the pipe's
    buffer."""
    process = subprocess.Popen(
        [MINICOIL, "embed", "--model", str(model)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    process.stdin.write(b"a bat\n")
    process.stdin.close()
    process.wait(600)
    err = process.stderr.read()
    assert (process.returncode, err) == (141, b"")


@pytest.mark.parametrize("format", ["jsonl", "npz"])
def test_out_is_whole_or_as_before(model, tmp_path, format):
    """A kill in the middle leaves the file that was there before; the next call replaces it, and no litter
    of its own stays."""
    out = tmp_path / "here" / "vectors"
    out.parent.mkdir()
    out.write_text("before")
    process = subprocess.Popen(
        [MINICOIL, "embed", "--model", str(model), "--format", format, "--out", str(out)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    process.stdin.write(b"a bat in a cave\n" * 3000)
    process.stdin.flush()  # and more to come: the command waits in the middle
    while waiting_bytes(process.stdin):
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdin.close()
    assert out.read_text() == "before"
    for f in out.parent.glob(".*.tmp"):
        f.unlink()
    assert embed(model, "--format", format, "--out", out, given=b"a bat\n")[0] == 0
    assert out.read_bytes() != b"before" and [f.name for f in out.parent.iterdir()] == ["vectors"]


@pytest.mark.slow
def test_long_lines_need_little_memory(model, tmp_path):
    """A hundred lines of a megabyte need hardly more memory than ten."""
    for n in (10, 100):
        with open(tmp_path / f"{n}.txt", "wb") as f:
            for _ in range(n):
                f.write(b"bat cave " * 111_000 + b"\n")
    few, many = (peak(model, tmp_path / f"{n}.txt", "--out", tmp_path / "out.jsonl") for n in (10, 100))
    print(f"peak memory: 10 lines of 1 MB {few} MB, 100 lines {many} MB")
    assert many < few * 1.15


def mixed_lines(path, n):
    """A file of `n` lines of made-up words, ever new ones among them."""
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    with open(path, "w", encoding="utf-8") as f:
        for _ in range(n):
            f.write(
                " ".join("".join(letters[rng.integers(0, 26, 4)]) for _ in range(rng.integers(1, 12)))
                + " bat\n"
            )
    return path


@pytest.mark.slow
@pytest.mark.parametrize("format", ["jsonl", "npz"])
def test_many_lines_need_no_more_memory(model, tmp_path, format):
    """200,000 lines need at most 10 % more memory than 20,000."""
    few, many = (
        peak(model, mixed_lines(tmp_path / f"{n}.txt", n), "--format", format, "--out", tmp_path / f"{n}.out")
        for n in (20_000, 200_000)
    )
    print(f"peak memory, {format}: 20,000 lines {few} MB, 200,000 lines {many} MB")
    assert many <= few * 1.1


@pytest.mark.parametrize("name", ["/dev/stderr", "/dev/fd/2", "/proc/self/fd/2"])
def test_an_open_file_is_not_replaced(model, tmp_path, name):
    """A name of standard error is refused, also where it leads to a regular file."""
    is_link = os.path.islink("/dev/stderr")
    with open(tmp_path / "err", "wb") as err:
        command = [MINICOIL, "embed", "--model", str(model), "--out", name]
        assert subprocess.run(command, input=b"A bat.\n", stdout=subprocess.PIPE, stderr=err).returncode == 2
    said = (tmp_path / "err").read_text()
    assert "not a regular file" in said and len(said.splitlines()) == 1
    assert os.path.islink("/dev/stderr") == is_link


def test_a_link_is_written_through(model, tmp_path):
    """An output that is a link stays a link, and what it names is written."""
    (tmp_path / "link").symlink_to("new.jsonl")
    done = call(tmp_path, "embed", "--model", model, "--out", "link", given=b"A bat.\n")
    assert done.returncode == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "new.jsonl").read_text().startswith('{"indices"')


def test_a_file_named_dash(model, tmp_path):
    """`./-` is a file; only `-` is standard input."""
    (tmp_path / "-").write_text("A bat.\nA bank.\n")
    done = call(tmp_path, "embed", "--model", model, "./-")
    assert len(done.stdout.splitlines()) == 2


@pytest.mark.parametrize("name", ["a.txt.gz", "a.parquet", "A.TXT.ZST", "a.tar", "a.doc.gz", "a.xz"])
def test_packed_texts_are_not_read_as_lines(model, tmp_path, name):
    """Bytes that are not what a name says are refused, not embedded with replacement characters."""
    (tmp_path / name).write_bytes(b"\x1f\x8b\x00bat\n")
    assert name in one_line(call(tmp_path, "embed", "--model", model, name, "--out", "v.jsonl"))
    assert not (tmp_path / "v.jsonl").exists()


def packed(path, texts):
    """A file of texts in the format and the packing that its name says."""
    import gzip
    import io
    import lzma
    import tarfile

    import pyarrow as pa
    import pyarrow.parquet as pq

    if ".parquet" in path.name:
        pq.write_table(pa.table({"text": texts}), path)
    elif ".tar" in path.name:
        with tarfile.open(path, "w") as tar:
            for i, text in enumerate(texts):
                info = tarfile.TarInfo(f"{i}.txt")
                info.size = len(text)
                tar.addfile(info, io.BytesIO(text.encode()))
    else:
        rows = texts if ".txt" in path.name else [json.dumps({"text": text, "id": 1}) for text in texts]
        raw = "\n".join(rows).encode() + b"\n"
        packing = {".gz": gzip.compress, ".xz": lzma.compress, ".zst": lambda b: pa.compress(b, "zstd", True)}
        path.write_bytes(packing.get(path.suffix, bytes)(raw))
    return path


FORMATS = ["a.jsonl", "A.JSONL", "a.jsonl.gz", "a.jsonl.xz", "a.parquet", "a.tar", "a.txt.gz", "a.txt.zst"]


@pytest.mark.parametrize("name", FORMATS)
def test_records_are_read_as_search_reads_them(model, tmp_path, name):
    """Of a file with records the text of each is embedded, not its syntax; packed lines are unpacked."""
    texts = ["A bat in a cave.", "The bank of the river.", "a bat"]
    packed(tmp_path / name, texts)
    done = call(tmp_path, "embed", "--model", model, name)
    plain = call(tmp_path, "embed", "--model", model, given="\n".join(texts).encode())
    assert (done.returncode, done.stderr) == (0, "")
    assert same(rows(done.stdout), rows(plain.stdout))


def test_a_packed_file_has_a_line_for_every_line(model, tmp_path):
    """Blank lines of a packed text count, as those of a plain one do."""
    packed(tmp_path / "a.txt.gz", ["a bat", "", "a bank", ""])
    done = call(tmp_path, "embed", "--model", model, "a.txt.gz")
    assert [bool(v) for v in rows(done.stdout)] == [True, False, True, False]


def test_records_from_a_pipe(model, tmp_path):
    """With a field's name standard input is records; without one a line says that they are embedded as they
    stand."""
    given = b'{"body": "A bat."}\n\n{"body": "A bank."}\n'
    texts = call(tmp_path, "embed", "--model", model, given=b"A bat.\nA bank.\n")
    fields = call(tmp_path, "embed", "--model", model, "--text-field", "body", given=given)
    assert (fields.stdout, fields.stderr) == (texts.stdout, "")
    plain = call(tmp_path, "embed", "--model", model, given=given)
    assert len(rows(plain.stdout)) == 3
    assert len(plain.stderr.splitlines()) == 1
    assert "JSON objects" in plain.stderr
    assert "2 lines, the first is line 1" in plain.stderr
    assert "--text-field" in plain.stderr


@pytest.mark.parametrize(
    "wrong", [b'{"body": "A bat."}', b"[1]", b"3", b"A bat.", b'{"text": 3}', b'{"text": null}']
)
def test_a_record_without_a_text(model, tmp_path, wrong):
    """A record without its text is refused with its line, from a file and from a pipe, and nothing is
    written."""
    given = b'{"text": "A bat."}\n' + wrong + b"\n"
    (tmp_path / "a.jsonl").write_bytes(given)
    asked = ("embed", "--model", model, "--out", "v.jsonl")
    for done in (
        call(tmp_path, *asked, "a.jsonl"),
        call(tmp_path, *asked, "--text-field", "text", given=given),
    ):
        line = one_line(done)
        assert "line 2 has no text in the field 'text'" in line
        assert "--text-field" in line
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]
