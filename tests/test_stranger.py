"""What a stranger tries with the commands for a finished model: odd places to write to, odd things to compare
with, a cache that was changed by hand, a browser that hangs up."""

import json
import os
import shlex
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from calls import call, one_line

from minicoil import MiniCOIL
from minicoil.commands.golden import TEXTS
from minicoil.pictures.explore import explore_server
from minicoil.runs import cache
from minicoil.runs.files import UserError
from minicoil.runs.locks import take
from minicoil.runs.manifest import save_manifest
from minicoil.text.readers import DATA

NOWHERE = ("--model", "no/such/model")  # opened after everything else was looked at


@pytest.fixture
def odd(tmp_path):
    """A folder with things that stand in the way of an output."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts.txt").write_text("a bat in a cave\n")
    (tmp_path / "file").write_text("mine")
    os.mkfifo(tmp_path / "pipe")
    for name, target in (("dangling", "nowhere"), ("circle", "circle"), ("linked", "empty")):
        (tmp_path / name).symlink_to(target)
    return tmp_path


def there(folder):
    """What is in a folder, with the content of files and the targets of links."""
    found = {}
    for path in folder.rglob("*"):
        content = path.read_text() if path.is_file() and not path.is_symlink() else ""
        found[path.name] = os.readlink(path) if path.is_symlink() else content
    return found


# A folder that must be new

FOLDERS = {
    "export": ("export", *NOWHERE, "--form", "small"),
    "export-vectors": ("export-vectors", "--for", "sql", *NOWHERE, "--documents", "texts.txt"),
    "rotate": ("rotate", *NOWHERE, "--documents", "texts.txt"),
    "make-collection": ("benchmark", "make-collection", "--data", "no-such.jsonl"),
}
NOT_NEW = ("full", "file", "pipe", "dangling", "circle", "linked", ".", "..", "/", "no/..", "file/below")


@pytest.mark.parametrize("place", NOT_NEW)
@pytest.mark.parametrize("command", FOLDERS)
def test_a_new_folder_is_asked_for_first(command, place, odd):
    """Whatever stands where a new folder belongs is refused before a model is opened, and stays."""
    before = there(odd)
    line = one_line(call(odd, *FOLDERS[command], "--out", place))
    assert "exists already" in line or "is a file" in line
    assert there(odd) == before


def test_a_way_through_a_folder_that_is_not_there(odd, tiny_run):
    """`no/../new` is `new`, and no folder `no` is made on the way."""
    given = ("--for", "sql", "--model", tiny_run / "23_model", "--documents", "texts.txt")
    done = call(odd, "export-vectors", *given, "--out", "no/../new")
    assert done.returncode == 0, done.stderr
    assert (odd / "new" / "export.json").is_file()
    assert not (odd / "no").exists()


# A file

FILES = {
    "golden": ("golden", *NOWHERE, "--out"),
    "embed": ("embed", "texts.txt", *NOWHERE, "--out"),
    "add-words": ("add-words", *NOWHERE, "--words", "seal", "--corpus", "texts.txt", "--list"),
}


@pytest.mark.parametrize("place", ["full", "pipe", "circle", "linked", "new/", ".", "/dev/null"])
@pytest.mark.parametrize("command", FILES)
def test_a_file_is_asked_for_first(command, place, odd):
    """What cannot be a file is refused before a model is opened, and stays."""
    before = there(odd)
    line = one_line(call(odd, *FILES[command], place))
    assert "name a file" in line
    assert there(odd) == before


@pytest.mark.parametrize("command", ["golden", "add-words"])
def test_a_dash_is_no_file(command, odd):
    """Where standard output is not written, `-` is refused instead of becoming a file of that name."""
    assert "standard output" in one_line(call(odd, *FILES[command], "-"))
    assert not (odd / "-").exists()


def test_the_golden_file_goes_where_a_link_leads(odd, tiny_run):
    """What a link names is written, and the link stays."""
    done = call(odd, "golden", "--model", tiny_run / "23_model", "--out", "dangling")
    assert done.returncode == 0, done.stderr
    assert (odd / "dangling").is_symlink()
    assert len((odd / "nowhere").read_text().splitlines()) == TEXTS


# Something to compare with

NOT_GOLDEN = {
    "empty": b"",
    "utf-16": "{}\n".encode("utf-16"),
    "deep": b"[" * 100_000,
    "few": b"{}\n",
    "nul": b"\0" * 50,
    "latin": b'{"text": "\xe9"}\n' * TEXTS,
    "many": b"{}\n" * (TEXTS + 1),
}


@pytest.mark.parametrize("content", NOT_GOLDEN.values(), ids=NOT_GOLDEN)
def test_what_is_no_golden_file(content, odd, tiny_run):
    """A file that cannot be compared with is refused in one line."""
    (odd / "other").write_bytes(content)
    line = one_line(call(odd, "golden", "--model", tiny_run / "23_model", "--check", "other"))
    assert "is not a golden file" in line


@pytest.mark.parametrize("place", ["pipe", "full", "/dev/null", "no-such"])
def test_what_is_no_file_to_compare_with(place, odd, tiny_run):
    """Nobody waits for a pipe that nobody writes into."""
    line = one_line(call(odd, "golden", "--model", tiny_run / "23_model", "--check", place))
    assert "regular file" in line or "cannot be read" in line


@pytest.mark.parametrize(
    "change",
    [
        lambda line: [],
        lambda line: {**line, "minicoil": []},
        lambda line: {**line, "minicoil": {}},
        lambda line: {**line, "text": "another"},
        lambda line: {**line, "fastembed": {**line["fastembed"], "values": [float("nan")]}},
        lambda line: {**line, "fastembed": {**line["fastembed"], "query": "many"}},
        lambda line: {**line, "minicoil": {**line["minicoil"], "values": [10**400]}},
    ],
    ids=["list", "reading", "steps", "text", "nan", "word", "huge"],
)
def test_a_line_that_differs(change, odd, tiny_run):
    """A golden file of which one line was changed is refused, whatever stands there instead."""
    model = tiny_run / "23_model"
    kept = cache.cache_folder("golden-of-test") / "golden.jsonl"
    if not kept.exists():
        assert call(odd, "golden", "--model", model, "--out", kept).returncode == 0
    lines = [json.loads(line) for line in kept.read_text().splitlines()]
    lines[30] = change(lines[30])
    (odd / "changed").write_text("\n".join(map(json.dumps, lines)))
    assert "is not the golden file" in one_line(call(odd, "golden", "--model", model, "--check", "changed"))


# The cache


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A cache with one index, that of the demo."""
    monkeypatch.setenv("MINICOIL_CACHE", str(tmp_path / "cache"))
    entry = cache.cache_folder("indexes") / "0123"
    entry.mkdir()
    save_manifest(entry / cache.LIST, {"source": os.path.realpath(DATA / "beir"), "model": "/m"})
    return entry


FACTS = ([], 5, {"source": None}, {"source": 5}, {"source": ["x"]}, {"source": "a\0b"}, {"source": "\udcff"})


@pytest.mark.parametrize("facts", FACTS, ids=ascii)
def test_a_list_that_says_anything(facts, kept, tmp_path):
    """An entry whose list was changed by hand is listed, and not taken for the one that is to go."""
    (kept / cache.LIST).write_text(json.dumps(facts))
    done = call(tmp_path, "cache", "list")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("1 kept in")
    assert "no index" in one_line(call(tmp_path, "cache", "clear", "notes"))
    assert kept.exists()


def test_the_index_of_the_demo_is_cleared_by_its_name(kept, tmp_path):
    """`cache clear demo` clears what `search --documents demo` has kept."""
    assert "1 removed" in call(tmp_path, "cache", "clear", "demo").stdout
    assert not kept.exists()


@pytest.mark.parametrize("source", ["", " "])
def test_an_empty_name_clears_nothing(source, kept, tmp_path):
    """A name that comes from a variable which is not set does not mean the current folder."""
    assert "empty" in one_line(call(tmp_path, "cache", "clear", source))
    assert kept.exists()


def test_whoever_waits_while_the_cache_is_cleared_is_alone_afterwards(kept):
    """A process that waited for a lock which was cleared away takes the new one, and not the old one too."""
    lock = kept.with_name(f".{kept.name}.lock")
    entered, leave = threading.Event(), threading.Event()

    def wait_for_turn():
        with cache.turn_of(kept):
            entered.set()
            leave.wait(600)

    with open(lock, "a+", encoding="utf-8") as held:
        assert take(held, 0)
        waiting = threading.Thread(target=wait_for_turn)
        waiting.start()
        time.sleep(0.2)
        lock.unlink()  # as `cache clear` does
    assert entered.wait(600)
    with open(lock, "a+", encoding="utf-8") as third:
        assert not take(third, 0)
    leave.set()
    waiting.join()


# Damaged model directories

DAMAGED = {
    "embed": ("embed", "texts.txt"),
    "search": ("search", "bat", "--documents", "texts.txt"),
    "neighbours": ("neighbours", "bat"),
    "golden": ("golden", "--out", "new"),
    "export": ("export", "--out", "new"),
    "export-small": ("export", "--form", "small", "--reduce", "--out", "new"),
    "rotate": ("rotate", "--documents", "texts.txt", "--out", "new"),
    "export-vectors": ("export-vectors", "--for", "sql", "--documents", "texts.txt", "--out", "new"),
    "senses": ("benchmark", "senses", "--data", DATA / "sentences.jsonl"),
    "retrieval": ("benchmark", "retrieval", "--data", "demo", "--out", "new"),
    "add-words": ("add-words", "--words", "seal", "--corpus", "texts.txt", "--out", "new"),
    "explore": ("explore",),
    "push": ("push", "someone/something"),
}


@pytest.fixture
def copied(odd, tiny_run):
    """A copy of the tiny model beside odd things; its files are links to be replaced, not written into."""
    return shutil.copytree(tiny_run / "23_model", odd / "model", copy_function=os.link)


def halve(file):
    """Leave the first half of a file, in a file of its own."""
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[: len(content) // 2])


OTHERS = ("minicoil.triplet.model.npy", "tokenizer.json", "minicoil.triplet.model.vocab")
HALVED = [*((command, "stopwords.txt") for command in DAMAGED), *(("export", name) for name in OTHERS)]


@pytest.mark.parametrize("command, name", HALVED)
def test_half_a_file_of_a_model(command, name, copied):
    """Whatever command opens it: one line names the model, nothing is written, and no stop word is lost."""
    halve(copied / name)
    before = there(copied.parent / "empty")
    assert str(copied) in one_line(call(copied.parent, *DAMAGED[command], "--model", copied))
    assert there(copied.parent / "empty") == before
    assert not (copied.parent / "new").exists()


@pytest.mark.parametrize("manifest", [b"", b"[]", b"{}", b'{"files": 5}', b"\xff", None], ids=ascii)
def test_a_model_without_a_manifest_that_helps(manifest, copied):
    """A directory that somebody else wrote, or another version, is taken as it stands."""
    (copied / "manifest.json").unlink()
    if manifest is not None:
        (copied / "manifest.json").write_bytes(manifest)
    halve(copied / "stopwords.txt")
    assert "bat" in MiniCOIL.load(copied).words


@pytest.mark.parametrize("form", ["full", "small"])
def test_a_card_that_is_no_text(form, copied):
    """A README.md in another encoding is refused in one line, and nothing is left of the export."""
    (copied / "README.md").unlink()
    (copied / "README.md").write_bytes(b"caf\xe9")
    given = ("--model", copied, "--form", form, "--reduce")
    assert "UTF-8" in one_line(call(copied.parent, "export", *given, "--out", "new"))
    assert "UTF-8" in one_line(call(copied.parent, "push", "someone/something", *given))
    assert not (copied.parent / "new").exists()


@pytest.mark.parametrize("facts", [None, b"{}", b'{"transformer": "nobody/nothing"}', b'{"layers": "x"}'])
def test_a_small_form_that_names_no_transformer(facts, odd):
    """Without the transformer's name the small form cannot be read, and the line says where it belongs."""
    model = shutil.copytree(DATA / "english", odd / "model", copy_function=os.link)
    (model / "minicoil.json").unlink()
    if facts is not None:
        (model / "minicoil.json").write_bytes(facts)
    line = one_line(call(odd, "embed", "texts.txt", "--model", model))
    assert "minicoil.json is missing or names no" in line


def test_a_card_without_a_head(monkeypatch):
    """A card of the user's own is pushed without a warning of the hub's library."""
    from huggingface_hub import repocard

    from minicoil.serving.hub import hub_card

    monkeypatch.setattr(repocard.logger, "warning", pytest.fail)
    assert hub_card("# Mine\n", "someone/something", {}, ["a/b"]).endswith("# Mine\n")


HEADS = [("---\na: [b\n---\n", {}), ("---\n- a\n---\n", {}), ("", {"figures": 5})]


@pytest.mark.parametrize("head, info", HEADS)
def test_a_head_that_cannot_be_read(head, info):
    """What the hub's library cannot read is refused before anything is sent."""
    from minicoil.serving.hub import hub_card

    with pytest.raises(UserError, match="cannot be read"):
        hub_card(f"{head}# Mine\n", "someone/something", info)


# Neighbours


def test_the_word_help_has_neighbours_too(tmp_path):
    """`minicoil neighbours help` looks up the word."""
    assert "no/such/model" in one_line(call(tmp_path, "neighbours", "help", "--model", "no/such/model"))
    assert "Usage" not in call(tmp_path, "neighbours", "help").stdout


@pytest.mark.parametrize(
    "place, why",
    [
        (("--documents", "nowhere"), "does not exist"),
        (("--documents", "empty"), "no .txt"),
        (("--documents", "texts.txt"), "not been searched"),
        (("--collection", "http://localhost:6333"), "server"),
        (("--collection", "texts.txt"), "not a folder"),
        (("--collection", "empty"), "not been searched"),
        (("--collection", "empty", "--documents", "demo"), "omit one"),
    ],
)
def test_where_no_neighbours_were_learned(place, why, odd, tiny_run):
    """One line says what is wrong with the place, and what to do there."""
    assert why in one_line(call(odd, "neighbours", "bat", *place, "--model", tiny_run / "23_model"))


# Serving


@pytest.mark.parametrize("host", ["", " ", "\udcff", "a\nb", "a" * 300, "http://localhost", "localhost:80"])
def test_a_host_that_is_none(host, tmp_path):
    """A host that cannot be listened on is refused in one line; an empty one does not mean all addresses."""
    line = one_line(call(tmp_path, "serve", *NOWHERE, "--host", host, "--port", 0))
    assert "--host" in line


@pytest.fixture(scope="module")
def explorer(tiny_run):
    """The port of a live page of the tiny model."""
    with explore_server(MiniCOIL.load(tiny_run / "23_model")) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def hang_up(port, sent):
    """Send bytes, and reset the connection at once, as a browser does whose window is closed."""
    with socket.create_connection(("127.0.0.1", port)) as caller:
        caller.sendall(sent)
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_a_browser_that_hangs_up_is_no_fault(explorer, capfd):
    """No traceback is printed, and the next request is answered."""
    head = f"Host: 127.0.0.1:{explorer}\r\nContent-Length: 400000\r\n\r\n".encode()
    for first in (b"", b"GET / HTTP/1.1\r\n", b"POST /try HTTP/1.1\r\n", b"POST /embed HTTP/1.1\r\n"):
        for _ in range(5):
            hang_up(explorer, first + (head if first.startswith(b"POST") else b""))
    with urllib.request.urlopen(f"http://127.0.0.1:{explorer}/", timeout=600) as reply:
        assert reply.status == 200
    time.sleep(0.3)
    assert "Traceback" not in capfd.readouterr().err


def test_a_damaged_graph_is_said_on_the_page(tiny_run, tmp_path, capfd):
    """The graph is opened at the first text: what is wrong with it is answered, not printed."""
    model = tmp_path / "model"
    shutil.copytree(tiny_run / "23_model", model)
    (model / "onnx" / "model.onnx").write_bytes(b"nothing")
    with explore_server(MiniCOIL.load(model)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            page = f"http://127.0.0.1:{server.server_port}/try"
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(page, b"text=a+bat", timeout=600)
            assert refused.value.code == 500
            assert "cannot be opened" in refused.value.read().decode()
        finally:
            server.shutdown()
            thread.join()
    assert "Traceback" not in capfd.readouterr().err


# What is typed


@pytest.mark.parametrize("given", ["--out=~", "--Out=~", "--out=~/"])
def test_a_folder_called_tilde_is_never_made(given, tmp_path, monkeypatch):
    """`~` after an equals sign, which a shell leaves as it is, means the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine").write_text("mine")
    done = call(tmp_path, *FOLDERS["export"], given)
    assert "exists already" in one_line(done)
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize(
    "arguments", [("cache", "list"), ("cache", "clear"), ("search", "bat", "--documents", "texts.txt")],
    ids=" ".join,
)
def test_a_blank_cache_is_no_folder(arguments, odd):
    """A variable of blanks, which a script may leave behind, is refused, and no folder gets that name."""
    before = there(odd)
    assert "MINICOIL_CACHE is blank" in one_line(call(odd, *arguments, MINICOIL_CACHE=" "))
    assert there(odd) == before


@pytest.mark.parametrize("given", ["much", "0", "-1", "nan", "inf"])
def test_memory_that_is_no_number(given, tmp_path):
    """A run asks how much memory training may take before it begins, not minutes later."""
    done = call(tmp_path, "run", "--words", "bat", "--out", "new", MINICOIL_MEMORY_GB=given)
    assert "it must be a number of GB above 0" in one_line(done)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("address", [" ", "☃", "http://a b", "\uff11"])
@pytest.mark.parametrize("way", ["option", "variable"])
def test_an_address_that_no_server_can_have(way, address, tmp_path):
    """What cannot be a host's name is refused before a folder is made, wherever it was given."""
    options = ("--qdrant", address) if way == "option" else ()
    done = call(tmp_path, "run", "--words", "bat", "--out", "new", *options, QDRANT_URL=address)
    assert "not an address of a Qdrant server" in one_line(done)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("key", ["a\nb", "☃", "a\x1bb"])
def test_a_key_that_no_request_can_carry(key, tmp_path):
    """A key with odd characters is refused, and not shown."""
    given = {"QDRANT_API_KEY": key, "QDRANT_URL": "http://127.0.0.1:9"}
    line = one_line(call(tmp_path, "run", "--words", "bat", "--out", "new", **given))
    assert line == "minicoil: QDRANT_API_KEY has characters that a key cannot have: copy the key again"


# Ctrl-C, and streams that are closed

WHILE_LOADING = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what runs in the background
from minicoil.__main__ import main
{begin}
sys.argv = ["minicoil", "search", "bat", "--model", {model!r}, "--documents", {texts!r}]
main()
"""
AT_AN_IMPORT = """
class Finder:
    def find_spec(self, name, path, target=None):
        if name == {name!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
"""
AS_ANOTHER_ERROR = """
class Finder:
    def find_spec(self, name, path, target=None):
        if name == "onnxruntime":
            try:
                os.kill(os.getpid(), signal.SIGINT)
                import time
                time.sleep(1)
            except KeyboardInterrupt:
                raise ImportError("initialization failed") from None
sys.meta_path.insert(0, Finder())
"""
WITH_THE_STREAMS = """
from minicoil.commands import pipeline
def interrupted():
    os.kill(os.getpid(), signal.SIGINT)
pipeline.prepare_streams = interrupted
"""
BEGINNINGS = {name: AT_AN_IMPORT.format(name=name) for name in ("typer", "numpy", "onnxruntime")}
BEGINNINGS |= {"another error": AS_ANOTHER_ERROR, "its first step": WITH_THE_STREAMS}


@pytest.mark.parametrize("begin", BEGINNINGS.values(), ids=BEGINNINGS)
def test_ctrl_c_while_something_is_loaded(begin, odd, tiny_run):
    """Ctrl-C in the middle of an import, of ours or of a library, is one line and exit code 130."""
    given = {"model": str(tiny_run / "23_model"), "texts": str(odd / "texts.txt")}
    command = [sys.executable, "-c", WHILE_LOADING.format(begin=begin, **given)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 130, done.stderr
    assert done.stderr.startswith("minicoil: stopped")
    assert len(done.stderr.splitlines()) == 1


def test_the_installed_command_is_the_one_that_was_tried():
    """The `minicoil` script and `python -m minicoil` are one function."""
    settings = (Path(__file__).parents[1] / "settings.ini").read_text(encoding="utf-8")
    assert "console_scripts = minicoil=minicoil.__main__:main" in settings


STREAMS_CLOSED = """
import sys
from minicoil.commands.endings import prepare_streams
sys.{name} = None
prepare_streams()
print("into nothing", file=sys.{name})
assert not sys.{name}.isatty()
"""


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_stream_that_python_does_not_have(name):
    """A standard stream that was closed is one that can be asked and written to, as libraries do."""
    done = subprocess.run([sys.executable, "-c", STREAMS_CLOSED.format(name=name)], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_vectors_are_exported_without_a_stream(closed, odd, tiny_run):
    """A command with a progress bar, and one whose library sets up logging, need neither stream."""
    model = shlex.quote(str(tiny_run / "23_model"))
    given = f"export-vectors --for sql --model {model} --documents texts.txt --out new"
    command = f"{shlex.quote(sys.executable)} -m minicoil {given} {closed}"
    done = subprocess.run(command, shell=True, cwd=odd, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (odd / "new" / "export.json").is_file()
