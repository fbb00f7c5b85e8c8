"""The index that stays: only what has changed is embedded, and nothing that happens to the cache costs more
than time."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from calls import call, one_line
from conftest import minicoil

from minicoil import MiniCOIL
from minicoil.retrieval import changes
from minicoil.retrieval import kept as keeping
from minicoil.retrieval.changes import source_of
from minicoil.retrieval.kept import INDEX_FOLDER, KIND, TABLE_FILE, kept_index
from minicoil.retrieval.search import explain_hits, search
from minicoil.runs.cache import LIST
from minicoil.serving import batches
from minicoil.text import readers

TEXTS = {
    "cave.txt": "At dusk the bat left its cave to hunt moths over the lake.",
    "club.txt": "He swung the bat and hit the ball over the wall.",
    "deep/bank.txt": "The bank raised its rates for the second time this year.",
    "deep/river.jsonl": '{"text": "They sat on the river\'s bank."}\n{"id": "own", "text": "A bat slept."}\n',
}


@pytest.fixture(scope="module")
def model(tiny_run):
    return MiniCOIL.load(tiny_run / "23_model", threads=1)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of the test's own."""
    monkeypatch.setenv("MINICOIL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def notes(tmp_path):
    """A folder with four files, written long ago."""
    folder = tmp_path / "notes"
    for name, text in TEXTS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        put(folder / name, text)
    return folder


def put(file, text, age=100):
    """Write a file whose date is `age` seconds ago, so that its date is trusted."""
    file.write_text(text)
    then = file.stat().st_mtime - age
    os.utime(file, (then, then))


def trusted(monkeypatch):
    """Let dates of a moment ago be trusted: the date of a file's entry cannot be set."""
    monkeypatch.setattr(changes, "GRAIN", -(10**12))


@pytest.fixture
def no_time_passes(monkeypatch):
    """A list of files stays as fresh as it was made, however slowly the machine works."""
    stopped = SimpleNamespace(monotonic=lambda: 1000.0, time_ns=time.time_ns)
    for module in (changes, keeping):
        monkeypatch.setattr(module, "time", stopped)


def ids(kept):
    """The ids of all documents in an index."""
    return {point.payload["id"] for point in kept.home.page("ours", fields=("id",))[0]}


def entry_in(cache):
    """The one index in a cache."""
    (entry,) = [path for path in (cache / KIND).iterdir() if path.name[0] != "."]
    return entry


ALL = {"cave.txt", "club.txt", "deep/bank.txt", "deep/river.jsonl:1", "own"}


def test_only_what_has_changed_is_read_and_embedded(cache, notes, model, monkeypatch):
    """A second search opens no file; a new, a changed, a moved and a removed one cost themselves alone."""
    trusted(monkeypatch)
    first = kept_index(model, source_of(notes), 9.0)
    assert (ids(first), first.embedded) == (ALL, 5)
    hashed = []
    real = changes.content_hash
    monkeypatch.setattr(changes, "content_hash", lambda file: hashed.append(file.name) or real(file))
    assert kept_index(model, source_of(notes), 9.0).embedded == 0
    assert hashed == []
    put(notes / "new.txt", "A new bat.")
    put(notes / "club.txt", "She swung the bat.", age=50)
    os.utime(notes / "cave.txt")
    found = kept_index(model, source_of(notes), 9.0)
    assert (found.embedded, sorted(hashed)) == (2, ["cave.txt", "club.txt", "new.txt"])
    (notes / "new.txt").unlink()
    (notes / "deep" / "bank.txt").rename(notes / "bank.txt")
    found = kept_index(model, source_of(notes), 9.0)
    assert (found.embedded, ids(found)) == (1, ALL - {"deep/bank.txt"} | {"bank.txt"})


def test_a_change_within_the_same_moment_is_seen(cache, notes, model):
    """A file rewritten at once, at the same size and with the same date, is read again."""
    file = notes / "cave.txt"
    for text in ("A bat sings.", "A cat sings."):
        file.write_text(text)
        os.utime(file, (10**9, 10**9))
        kept = kept_index(model, source_of(notes))
    texts = [point.payload["text"] for point in kept.home.page("ours", fields=("text",))[0]]
    assert "A cat sings." in texts
    assert "A bat sings." not in texts


def test_an_id_of_its_own_moves_on(cache, notes, model):
    """Where two files have one id, the first has it; when that is gone, the other gets it."""
    put(notes / "a.jsonl", '{"id": "own", "text": "First."}\n')
    assert {"own", "deep/river.jsonl:2"} <= ids(kept_index(model, source_of(notes)))
    (notes / "a.jsonl").unlink()
    assert ids(kept_index(model, source_of(notes))) == ALL


@pytest.mark.parametrize("name", [LIST, TABLE_FILE, f"{INDEX_FOLDER}/inverted.json", "segment"])
@pytest.mark.parametrize("kind", ["cut", "flip", "empty", "delete", "another"])
def test_a_damaged_index_is_made_again(cache, notes, model, capsys, name, kind):
    """Whatever file of an index is damaged, the same call gives the right documents, with a line at most."""
    kept_index(model, source_of(notes))
    entry = entry_in(cache)
    file = entry / name if name != "segment" else next((entry / INDEX_FOLDER).glob("segment*"))
    raw = bytearray(file.read_bytes())
    if kind == "delete":
        file.unlink()
    elif kind == "flip":
        raw[len(raw) // 2] ^= 4
        file.write_bytes(raw)
    else:
        file.write_bytes({"cut": raw[: len(raw) // 2], "empty": b"", "another": b'{"check": 0}'}[kind])
    capsys.readouterr()
    assert ids(kept_index(model, source_of(notes))) == ALL
    said = capsys.readouterr().err.splitlines()
    assert len(said) == (0 if (name, kind) == (TABLE_FILE, "delete") else 1), said
    assert kept_index(model, source_of(notes)).embedded == 0


def test_a_second_process_takes_the_index_as_it_is(cache, notes):
    """The model of the package is known again by another process: nothing is embedded twice."""
    first, second = (minicoil("search", "bat", "--documents", str(notes)) for _ in range(2))
    assert first.returncode == second.returncode == 0
    assert second.stdout == first.stdout
    assert not second.stderr


def test_another_version_and_another_model(cache, notes, model, tiny_run, tmp_path, capsys):
    """An index of another version, or of an earlier state of the model, is made again with one line."""
    place = shutil.copytree(tiny_run / "23_model", tmp_path / "model")
    kept_index(MiniCOIL.load(place), source_of(notes))
    vocabulary = next(place.glob("*.vocab"))
    said = json.loads(vocabulary.read_text())
    said["vocab"] = said["vocab"][::-1]
    vocabulary.write_text(json.dumps(said))
    capsys.readouterr()
    assert kept_index(MiniCOIL.load(place), source_of(notes)).embedded == 5
    assert "made with another model: it is made again" in capsys.readouterr().err
    facts = json.loads((entry_in(cache) / LIST).read_text())
    from minicoil.runs.manifest import save_manifest

    facts.pop("check")
    save_manifest(entry_in(cache) / LIST, {**facts, "version": "0.0.1"})
    assert kept_index(MiniCOIL.load(place), source_of(notes)).embedded == 5
    assert "is of another version: it is made again" in capsys.readouterr().err


def test_what_others_put_into_the_cache_stays(cache, notes, model, capsys):
    """Somebody else's folder under the name of an index gets another name, and keeps what is in it."""
    kept_index(model, source_of(notes))
    entry = entry_in(cache)
    shutil.rmtree(entry)
    entry.mkdir()
    (entry / "letter.txt").write_text("theirs")
    assert ids(kept_index(model, source_of(notes))) == ALL
    assert "was not made by minicoil" in capsys.readouterr().err
    assert entry.with_name(f"{entry.name}.not-ours-1").joinpath("letter.txt").read_text() == "theirs"


def test_a_folder_that_vanished_is_forgotten(cache, notes, model, tmp_path):
    """The next search of anything removes the index of a folder that is gone."""
    kept_index(model, source_of(notes))
    (tmp_path / "other").mkdir()
    put(tmp_path / "other" / "a.txt", "A bat.")
    shutil.rmtree(notes)
    kept_index(model, source_of(tmp_path / "other"))
    assert json.loads((entry_in(cache) / LIST).read_text())["source"] == str(tmp_path / "other")


def command(model_folder, notes, query="the bat in a cave"):
    """The command line of a search, for a process of its own."""
    return [
        sys.executable,
        "-m",
        "minicoil",
        "search",
        "--model",
        str(model_folder),
        "--documents",
        str(notes),
        query,
    ]


@pytest.mark.slow
def test_a_kill_at_any_moment_costs_only_time(cache, notes, tiny_run, model):
    """After kills at random moments of a first search, the next search has every document, whole."""
    rng, text = random.Random(3), "A bat left the cave {} times."
    for i in range(300):
        put(notes / f"n{i}.txt", text.format(i) * 5)
    for _ in range(5):
        started = subprocess.Popen(
            command(tiny_run / "23_model", notes), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            started.wait(rng.uniform(0.5, 3))
        except subprocess.TimeoutExpired:
            started.send_signal(signal.SIGKILL)
            started.wait()
    done = subprocess.run(command(tiny_run / "23_model", notes), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(ids(kept_index(model, source_of(notes)))) == 305
    left = [path.name for path in entry_in(cache).rglob("*") if path.name.endswith((".tmp", ".part"))]
    assert left == []


@pytest.mark.slow
def test_twenty_searches_at_once(cache, notes, tiny_run):
    """Twenty processes that search one new folder at once all give the one answer, and keep one index."""
    some = [
        subprocess.Popen(
            command(tiny_run / "23_model", notes), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(20)
    ]
    ended = [(p, *p.communicate()) for p in some]
    assert {(p.returncode, err) for p, _, err in ended} == {(0, "")}
    assert len({out for _, out, _ in ended}) == 1
    assert "[cave.txt]" in ended[0][1]
    entry_in(cache)


def test_a_cache_that_cannot_be_written(notes, tiny_run, tmp_path, monkeypatch):
    """Where nothing can be kept the search works, and says so in one line."""
    (tmp_path / "file").write_text("not a folder")
    done = minicoil(
        "search",
        "--model",
        tiny_run / "23_model",
        "--documents",
        notes,
        "bat",
        env={**os.environ, "MINICOIL_CACHE": str(tmp_path / "file" / "cache")},
    )
    assert done.returncode == 0, done.stderr
    assert "[cave.txt]" in done.stdout
    assert done.stderr.count("\n") == 1
    assert "nothing can be kept" in done.stderr


def test_a_read_only_home(notes, tiny_run, tmp_path):
    """A home in which nothing can be written is no error."""
    if os.getuid() == 0:
        read_only = {"HOME": "/proc", "XDG_CACHE_HOME": "/proc/nowhere"}
    else:
        (tmp_path / "home").mkdir(mode=0o500)
        read_only = {"HOME": str(tmp_path / "home")}
    env = {k: v for k, v in os.environ.items() if k not in ("MINICOIL_CACHE", "XDG_CACHE_HOME")} | read_only
    done = minicoil("search", "--model", tiny_run / "23_model", "--documents", notes, "bat", env=env)
    assert done.returncode == 0, done.stderr
    assert "[cave.txt]" in done.stdout
    assert done.stderr.count("\n") == 1


def test_a_full_disk_ends_in_one_line(full_disk, notes, tiny_run, tmp_path):
    """A cache on a full disk ends the search in one line, and leaves nothing half-written."""
    disk = full_disk(200_000)
    for i in range(300):
        put(notes / f"n{i}.txt", f"A bat left the cave {i} times. " * 20)
    asked = ("search", "--model", tiny_run / "23_model", "--documents", notes, "bat")
    line = one_line(call(tmp_path, *asked, MINICOIL_CACHE=str(disk / "cache")))
    assert "No space left on device" in line
    assert "MINICOIL_CACHE" in line
    assert [p for p in disk.rglob("*") if p.name.endswith((".tmp", ".part"))] == []


def test_bad_input_leaves_the_index_as_it_was(cache, notes, tiny_run, tmp_path, model):
    """A file that cannot be read is named with its line; left out with `skip`, it is named each time."""
    kept_index(model, source_of(notes))
    (notes / "bad.txt").write_bytes(b"A \xff bat.")
    asked = ("search", "--model", tiny_run / "23_model", "--documents", notes)
    assert "bad.txt line 1" in one_line(call(tmp_path, *asked, "bat"))
    for _ in range(2):
        done = call(tmp_path, *asked, "--on-bad-input", "skip", "bat")
        assert done.returncode == 0
        assert "left out" in done.stderr
    (notes / "bad.txt").unlink()
    assert ids(kept_index(model, source_of(notes))) == ALL


def test_the_cache_is_listed_and_cleared(cache, notes, tiny_run, tmp_path, model):
    """`cache list` names folder and size, `clear FOLDER` removes one index, `clear` all, and nothing else."""
    kept_index(model, source_of(notes))
    (cache / "mine.txt").write_text("mine")
    (cache / KIND / "theirs").mkdir()
    listed = call(tmp_path, "cache", "list").stdout
    assert str(notes) in listed
    assert "kB" in listed or "MB" in listed
    assert "no index" in one_line(call(tmp_path, "cache", "clear", "nowhere"))
    assert "1 removed" in call(tmp_path, "cache", "clear", notes).stdout
    assert "0 kept" in call(tmp_path, "cache", "list").stdout
    kept_index(model, source_of(notes))
    assert "1 removed" in call(tmp_path, "cache", "clear").stdout
    assert {str(p.relative_to(cache)) for p in cache.rglob("*")} == {"mine.txt", KIND, f"{KIND}/theirs"}


def test_an_index_in_use_is_not_cleared(cache, notes, tmp_path, model):
    """What another process is making is left, and said so."""
    from minicoil.runs.cache import turn_of

    kept_index(model, source_of(notes))
    with turn_of(entry_in(cache)):
        assert "in use by another process" in call(tmp_path, "cache", "clear").stdout
    assert ids(kept_index(model, source_of(notes))) == ALL


def test_the_same_answer_as_qdrant(cache, notes, tiny_run, tmp_path):
    """The kept index prints the hits, scores and words that Qdrant's embedded engine gives."""
    for using in ("minicoil", "dense", "mix"):
        asked = (
            "search",
            "--model",
            tiny_run / "23_model",
            "--documents",
            notes,
            "--using",
            using,
            "a bat in a cave",
        )
        mine, theirs = call(tmp_path, *asked), call(tmp_path, *asked, "--engine", "qdrant")
        assert mine.returncode == theirs.returncode == 0
        assert mine.stdout == theirs.stdout


def test_the_passage_that_matched_is_shown(cache, tiny_run, tmp_path):
    """Of a long file the sentence with the query's words is shown, not the beginning."""
    (tmp_path / "long").mkdir()
    put(
        tmp_path / "long" / "a.txt",
        "Nothing happened here. " * 60 + "Then the bat left its cave. " + "It was dark. " * 60,
    )
    done = call(tmp_path, "search", "--model", tiny_run / "23_model", "--documents", "long", "bat cave")
    assert "… Then the bat left its cave." in done.stdout
    assert Path(tmp_path / "long").exists()


@pytest.fixture
def passes(monkeypatch):
    """A list that grows with each pass of the transformer."""
    made, real = [], batches.forward
    monkeypatch.setattr(batches, "forward", lambda *given: made.append(len(given[1])) or real(*given))
    return made


@pytest.mark.parametrize("using", ["minicoil", "dense", "hybrid", "mix"])
def test_a_query_is_read_once(cache, notes, tiny_run, passes, using):
    """Both vectors of a query and the explanation of its hits come from one pass of the transformer."""
    model = MiniCOIL.load(tiny_run / "23_model", threads=1)
    home = kept_index(model, source_of(notes)).home
    passes.clear()
    for query in ("a bat in a cave", "the rates of a bank"):
        hits = search(home, model, query, 3, using)
        assert explain_hits(home, model, query, hits)
    assert passes == [1, 1]
    fresh = MiniCOIL.load(tiny_run / "23_model", threads=1)
    again = search(home, fresh, query, 3, using)
    assert [(a.id, a.score) for a in again] == [(b.id, b.score) for b in hits]


def test_a_query_without_a_known_word_is_not_read(cache, notes, model, passes):
    """It runs the transformer only where its dense vector is asked for, also after the words alone."""
    home = kept_index(model, source_of(notes)).home
    passes.clear()
    assert search(home, model, "moths over the lake", 3)
    assert passes == []
    assert search(home, model, "moths over the lake", 3, "dense")
    assert search(home, model, "moths over the lake", 3, "mix")
    assert passes == [1]


def test_a_search_lists_its_folder_once(cache, notes, tiny_run, no_time_passes, monkeypatch):
    """The command lists a folder of texts once, though its index is kept, and tells what it does not read."""
    listed, real = [], readers.list_folder
    monkeypatch.setattr(readers, "list_folder", lambda folder: listed.append(folder) or real(folder))
    (notes / "photo.png").write_bytes(b"of a bat")
    for _ in range(2):
        done = call(notes, "search", "bat", "--documents", str(notes), "--model", str(tiny_run / "23_model"))
        assert done.stderr.count("photo.png") == 1
    assert len(listed) == 2


def test_a_list_that_is_old_is_made_again(cache, notes, model, no_time_passes):
    """A file that came after the list was made is found, if the list is too old to be trusted."""
    source = source_of(notes)
    listed = source.listed()
    put(notes / "new.txt", "A new bat.")
    assert ids(kept_index(model, source, 9.0, None, listed)) == ALL
    old = listed._replace(when=listed.when - 60)
    assert ids(kept_index(model, source, 9.0, None, old)) == {*ALL, "new.txt"}
