"""The script that runs the suite under other settings, and the lines on costs and skipped tests."""

import os
from collections import namedtuple
from types import SimpleNamespace

from costs import cost_lines, skip_lines
from settings import ROOT, SETTINGS, environment, run_tests, table, try_setting

PROGRAM = """
import os
import pytest

def test_home():
    assert os.environ.get("HOME") is None

def test_fails():
    assert False

def test_skipped():
    pytest.skip("not here")
"""


def test_a_setting_changes_the_environment(tmp_path, monkeypatch):
    """A variable is set, another is gone, and temporary files go where they are told."""
    monkeypatch.setenv("HOME", "/home/somebody")
    assert "HOME" not in environment(SETTINGS["no_home"], tmp_path)
    assert environment(SETTINGS["plain"], tmp_path)["HOME"] == "/home/somebody"
    assert environment(SETTINGS["haswell"], tmp_path)["OPENBLAS_CORETYPE"] == "Haswell"
    assert environment(SETTINGS["elsewhere"], tmp_path)["TMPDIR"] == str(tmp_path)


def test_what_becomes_of_tests_is_counted(tmp_path):
    """A test that needs the setting passes under it; one that fails is named, one that is skipped counted."""
    (tmp_path / "test_three.py").write_text(PROGRAM, encoding="utf-8")
    option = "def pytest_addoption(parser):\n    parser.addoption('--costs', action='store_true')\n"
    (tmp_path / "conftest.py").write_text(option, encoding="utf-8")
    setting = SETTINGS["no_home"]
    given = [tmp_path / "test_three.py", "--rootdir", tmp_path, "-c", os.devnull, "--confcutdir", tmp_path]
    found = run_tests(setting, given, environment(setting, tmp_path), tmp_path)
    assert (found["passed"], found["skipped"]) == (1, 1)
    assert [name.split("::")[1] for name in found["failed"]] == ["test_fails"]
    printed = table({"no_home": {"tests": found, "minutes": 0.1}})
    assert "test_fails" in printed
    assert printed.splitlines()[1].split() == ["no_home", "tests", "1", "1", "1"]


def test_no_part_is_no_outcome():
    """Without tests and notebooks a setting has only its minutes."""
    assert set(try_setting(SETTINGS["plain"], None, None)) == {"minutes"}
    assert SETTINGS["one_core"].before[0] == "taskset"
    assert (ROOT / "tests").is_dir()


Report = namedtuple("Report", "longrepr")


def test_skipped_tests_are_three_lines():
    """However many reasons there are; the most frequent come first."""
    reasons = ["long"] * 9 + ["no browser"] * 3 + ["no server"] * 2 + ["no room"]
    reports = [Report(("file", 1, f"Skipped: {reason}")) for reason in reasons]
    lines = skip_lines(SimpleNamespace(stats={"skipped": reports}))
    assert lines == ["9 skipped: long", "3 skipped: no browser",
                     "2 skipped: no server; 1 skipped: no room"]
    assert skip_lines(SimpleNamespace(stats={})) == []


def test_costs_are_sorted():
    """The dearest test comes first, and a file's cost is that of its tests."""
    lines = cost_lines({"a.py::one": 2.0, "b.py::two": 5.0, "b.py::three": 1.5, "b.py::four": 0.1})
    assert lines[0].split()[:2] == ["8.6", "s"]
    named = [line.split()[-1] for line in lines[1:]]
    assert named == ["b.py::two", "a.py::one", "b.py::three", "b.py", "a.py"]
