"""The records in results/: one form for all, and nothing of the machine that made them but its processor."""

import json
import re
from pathlib import Path

import pytest
from record import CIRCUMSTANCES, ENVELOPE, made_of, save_record

from minicoil.pictures.hints import BANDS
from minicoil.stages.clusters import APART

RECORDS = sorted((Path(__file__).resolve().parents[1] / "results").glob("*.json"))


@pytest.mark.parametrize("path", RECORDS, ids=lambda p: p.stem)
def test_a_record_has_the_one_envelope(path):
    """Command, commit, date and machine are written down beside the results, and nothing else is."""
    record = json.loads(path.read_text(encoding="utf-8"))
    assert set(record) >= ENVELOPE
    assert set(record) <= CIRCUMSTANCES
    assert record["command"]
    assert record["machine"]
    assert re.fullmatch(r"[0-9a-f]{7,40}\+?", record["commit"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", record["date"])
    assert isinstance(record["results"], dict)
    assert record["results"]


@pytest.mark.parametrize("path", RECORDS, ids=lambda p: p.stem)
def test_a_record_is_written_as_we_write_json(path):
    """A record is sorted and indented as `save_record` does, so a new one is a small difference."""
    text = path.read_text(encoding="utf-8")
    assert text.rstrip("\n") == json.dumps(json.loads(text), ensure_ascii=False, indent=1, sort_keys=True)


def test_save_record_writes_that_envelope(tmp_path):
    """What a bench writes today has the form of the records kept."""
    save_record(tmp_path / "x.json", {"figure": 1})
    record = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))
    assert set(record) == CIRCUMSTANCES
    assert record["results"] == {"figure": 1}


def test_each_part_of_the_readers_says_where_it_comes_from():
    """Parts are measured one by one: each has its command, commit and date; the head is the last one's."""
    record = json.loads((RECORDS[0].parent / "readers.json").read_text(encoding="utf-8"))
    parts = {name: part["run"] for name, part in record["results"].items() if name != "models"}
    for name, run in parts.items():
        assert {"command", "commit", "date"} <= set(run) <= set(made_of())
        assert f"--part {name}" in run["command"]
    assert record["commit"] in {run["commit"] for run in parts.values()}


def test_the_atlas_says_how_sure_a_split_was_found_to_be():
    """The counts in the atlas, and the rule that they are of, are those of the record."""
    results = json.loads((RECORDS[0].parent / "second_sense.json").read_text(encoding="utf-8"))["results"]
    assert [band._asdict() for band in BANDS] == results["sure"]
    assert results["in_force"] == APART
