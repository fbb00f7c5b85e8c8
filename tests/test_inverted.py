"""The index in numpy: exact, as Qdrant's engine ranks, and whole whatever happens to it."""

import json
import random
import signal
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicoil.retrieval.claim import RECORD, Point
from minicoil.retrieval.inverted import PARTS_FILE, Inverted, open_home
from minicoil.runs.files import UserError
from minicoil.serving.sparse import SparseEmbedding, idf

WIDTH = 4


def sparse(pairs):
    """A sparse vector of {index: value}."""
    return SparseEmbedding(np.array(list(pairs), np.int32), np.array(list(pairs.values()), np.float32))


def point(number, pairs, dense):
    """A point as documents are put."""
    payload = {"id": f"d{number:03}", "text": f"text {number}", "digest": str(number)}
    return Point(number, payload, np.array(dense, np.float32), sparse(pairs))


def drawn(n, rng):
    """Points with numbers below n and few indexes, so that many are shared."""
    return [
        point(
            i,
            {j: rng.uniform(-2, 2) for j in rng.sample(range(12), rng.randint(0, 5))},
            rng.choices(range(-3, 4), k=WIDTH),
        )
        for i in range(n)
    ]


def by_hand(points, query):
    """{number: score} by the formula, document by document."""
    vectors = {p.number: p.sparse.as_dict() for p in points}
    n = sum(bool(v) for v in vectors.values())
    having = {i: sum(i in v for v in vectors.values()) for i in query}
    return {
        number: sum(float(idf(having[i], n)) * query[i] * v[i] for i in sorted(query) if i in v)
        for number, v in vectors.items()
        if set(v) & set(query)
    }


def test_scores_are_those_of_the_formula_and_of_qdrant(tmp_path):
    """Over 300 points put in uneven pieces, every query gets the documents and scores of the formula, and of
    Qdrant's embedded engine; ties come by id."""
    rng = random.Random(1)
    points = [p for p in drawn(300, rng) if any(p.dense)]
    with open_home(tmp_path / "n", WIDTH, engine="numpy") as mine, open_home(tmp_path / "q", WIDTH) as theirs:
        left = list(points)
        while left:
            some = [left.pop() for _ in range(min(len(left), rng.randint(1, 60)))]
            mine.put(some)
            theirs.put(some)
        for home in (mine, theirs):
            home.put([Point(RECORD, {"avg_len": 3.0})])
        for _ in range(40):
            query = {j: rng.choice([1.0, -0.5, 0.3]) for j in rng.sample(range(14), rng.randint(1, 4))}
            expected = by_hand(points, query)
            found = mine.nearest(sparse(query), "minicoil", 400)
            assert {f.id: pytest.approx(f.score, abs=1e-5) for f in found} == expected
            assert [f.id for f in found] == sorted(expected, key=lambda i: (-expected[i], i))
            engine = theirs.nearest(sparse(query), "minicoil", 400)
            assert {f.id: pytest.approx(f.score, abs=1e-4) for f in engine} == expected
            dense = np.array(rng.choices(range(1, 5), k=WIDTH), np.float32)
            best = [f.score for f in theirs.nearest(dense, "dense", 20)]
            assert [f.score for f in mine.nearest(dense, "dense", 20)] == pytest.approx(best, abs=1e-5)
            few = [p.number for p in rng.sample(points, 30)]
            assert {f.id for f in mine.nearest(sparse(query), "minicoil", 400, few)} == set(expected) & set(
                few
            )


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["put", "drop", "open"]), st.lists(st.integers(0, 15), max_size=5), st.integers(1, 3)
    ),
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(CHANGES)
def test_any_changes_give_the_index_of_what_is_left(tmp_path_factory, changes):
    """Whatever is put, replaced and dropped in whatever order, the index answers as one made of the rest."""
    folder, there = tmp_path_factory.mktemp("index") / "c", {}
    home = Inverted(folder, WIDTH)
    for what, numbers, value in changes:
        if what == "put":
            some = [point(i, {1: value, 2 + i % 3: 1.0}, [1, i, 0, value]) for i in numbers]
            there |= {p.number: p for p in some}
            home.put(some)
        elif what == "drop":
            home.drop(numbers)
            there = {i: p for i, p in there.items() if i not in numbers}
        else:
            home.close()
            home = Inverted(folder, None)
        query = {1: 1.0, 3: 2.0}
        found = {f.id: pytest.approx(f.score, abs=1e-5) for f in home.nearest(sparse(query), "minicoil", 99)}
        assert found == by_hand(there.values(), query)
        assert home.digests() == {i: str(i) for i in there}
        for p in home.look_up(list(there)):
            assert p.sparse.as_dict() == there[p.number].sparse.as_dict()
    home.close()


KILLED = """
import random, sys
import numpy as np
from minicoil.retrieval.claim import Point
from minicoil.retrieval.inverted import Inverted
from minicoil.serving.sparse import SparseEmbedding

def point(number, pairs, dense):
    payload = {"id": f"d{number:03}", "text": f"text {number}", "digest": str(number)}
    sparse = SparseEmbedding(np.array(list(pairs), np.int32), np.array(list(pairs.values()), np.float32))
    return Point(number, payload, np.array(dense, np.float32), sparse)

home = Inverted(sys.argv[1], 4)
rng = random.Random()
print("open", flush=True)
while True:
    number = rng.randrange(40)
    home.put([point(number, {1: 1.0, 2: float(number)}, [1, 0, 0, 0])])
    home.drop([rng.randrange(40)])
"""


def test_a_kill_at_any_moment_leaves_a_whole_index(tmp_path):
    """After each of eight kills the index opens, each document is whole, and nothing half-written stays."""
    rng = random.Random(5)
    for _ in range(8):
        command = [sys.executable, "-c", KILLED, str(tmp_path / "c")]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert writer.stdout.readline() == "open\n"
        with pytest.raises(subprocess.TimeoutExpired):
            writer.wait(rng.uniform(0, 0.08))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        home = Inverted(tmp_path / "c", WIDTH)
        for number in home.digests():
            assert home.look_up([number])[0].sparse.as_dict() == {1: 1.0, 2: float(number)}
        named = {part.file["name"] for part in home.parts}
        assert {p.name for p in (tmp_path / "c").iterdir() if p.name[0] != "."} == {*named, PARTS_FILE}
        home.close()


def flip(path, rng):
    raw = bytearray(path.read_bytes())
    raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    path.write_bytes(raw)


def cut(path, rng):
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])


@pytest.mark.parametrize(
    "damage", [flip, cut, lambda path, rng: path.unlink()], ids=["flip", "cut", "delete"]
)
@pytest.mark.parametrize("seed", range(4))
def test_damage_is_named_in_one_line(tmp_path, damage, seed):
    """A file of the index that is changed, cut or deleted is named, and no wrong hit is given."""
    with open_home(tmp_path / "c", WIDTH, engine="numpy") as home:
        home.put(drawn(50, random.Random(2)))
    files = sorted(p for p in (tmp_path / "c").iterdir() if p.name[0] != ".")
    for file in files:
        raw = file.read_bytes()
        damage(file, random.Random(seed))
        with pytest.raises(UserError) as e:
            Inverted(tmp_path / "c", None)
        assert "\n" not in str(e.value)
        file.write_bytes(raw)
    assert len(files) >= 2
    Inverted(tmp_path / "c", None).close()


def test_a_full_disk_ends_in_one_line(full_disk):
    """Where the disk is full the old index stays as it was, and nothing half-written."""
    folder = full_disk(2_000_000)
    with open_home(folder / "c", WIDTH, engine="numpy") as home:
        home.put([point(1, {1: 1.0}, [1, 0, 0, 0])])
    before = sorted(p.name for p in (folder / "c").iterdir())
    with open_home(folder / "c", engine="numpy") as home:
        large = point(2, {1: 1.0}, [1, 0, 0, 0])
        large.payload["text"] = "x" * 3_000_000
        with pytest.raises(UserError, match="No space left on device.*choose another folder") as e:
            home.put([large])
        assert "\n" not in str(e.value)
    assert sorted(p.name for p in (folder / "c").iterdir()) == before
    with open_home(folder / "c") as home:
        assert home.digests() == {1: "1"}


def test_files_of_the_user_are_no_place_for_an_index(tmp_path):
    """A folder with other files in it is not made an index, and keeps what it has."""
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="other files"):
        Inverted(tmp_path, WIDTH)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_another_width_is_refused(tmp_path):
    """Vectors of another model do not fit in."""
    Inverted(tmp_path / "c", WIDTH).close()
    with pytest.raises(UserError, match="not a collection of this model"):
        Inverted(tmp_path / "c", WIDTH + 1)


def test_a_list_of_another_version_is_named(tmp_path):
    """A list with another format, or that was written by hand, is refused."""
    Inverted(tmp_path / "c", WIDTH).close()
    listed = tmp_path / "c" / PARTS_FILE
    listed.write_text(json.dumps({**json.loads(listed.read_text()), "format": 99}))
    with pytest.raises(UserError, match="damaged"):
        Inverted(tmp_path / "c", None)
