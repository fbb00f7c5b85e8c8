"""The script that runs the suite under other settings, and the lines on costs and skipped tests."""

import json
import os
from collections import namedtuple
from types import SimpleNamespace

import pytest
from costs import cost_lines, skip_lines
from settings import (
    ROOT,
    SETTINGS,
    combined,
    environment,
    files_seen,
    left,
    parts_asked,
    run_tests,
    table,
    try_setting,
    write_down,
)

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
    """Without a part a setting has only its minutes and the load."""
    assert set(try_setting(SETTINGS["plain"], None, None)) == {"minutes", "load"}
    assert SETTINGS["one_core"].before[0] == "taskset"
    assert (ROOT / "tests").is_dir()


def test_settings_together_are_one_machine(tmp_path):
    """Variables, words before a command and busy processes of all hold; contradictions are refused."""
    setting = combined(["skylake", "aten_avx2", "one_core", "busy"])
    variables = environment(setting, tmp_path)
    assert (variables["OPENBLAS_CORETYPE"], variables["ATEN_CPU_CAPABILITY"]) == ("SkylakeX", "avx2")
    assert (setting.before, setting.beside) == (("taskset", "-c", "0"), 2)
    assert setting.what == "; ".join(SETTINGS[n].what for n in ("skylake", "aten_avx2", "one_core", "busy"))
    assert combined(["elsewhere", "no_home"]).temporary == "/dev/shm"
    with pytest.raises(SystemExit, match="OPENBLAS_CORETYPE cannot be Haswell and Nehalem"):
        combined(["haswell", "nehalem"])


def test_what_was_tried_only_together_is_written_down(tmp_path):
    """A setting that was tried with others is not said to have been tried alone, nor not at all."""
    outcome = {"tests": {"passed": 1, "skipped": 0, "failed": []}, "minutes": 1.0, "load": 0.1}
    write_down(tmp_path / "x.json", {"haswell+ci": outcome}, "test_a.py")
    write_down(tmp_path / "x.json", {"ci": outcome}, "test_b.py")
    results = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))["results"]
    assert results["only_together"] == ["haswell"]
    assert "haswell" not in results["not_tried"]
    assert "ci" not in results["not_tried"]
    assert "nehalem" in results["not_tried"]
    found = results["tried"]["haswell+ci"]["test_a.py"]
    assert {name: found[name] for name in outcome} == outcome
    assert found["commit"]
    assert left({})["only_together"] == []


def test_files_that_a_process_was_in_are_known():
    """Of an interrupted session: which files had their turn, and where each process was."""
    lines = ["tests/test_a.py::one \n", "[gw0] [  1%] PASSED tests/test_a.py::one \n",
             "[gw1] [  2%] SKIPPED tests/test_b.py::two[1] \n",
             "[gw0] [  3%] FAILED tests/test_c.py::three \n",
             "FAILED tests/test_c.py::three - assert 0\n"]
    assert files_seen(lines) == (["test_a.py", "test_b.py", "test_c.py"],
                                 {"gw0": "test_c.py", "gw1": "test_b.py"})


def test_parts_are_named():
    """No part named is everything; what was run is told by its name in the record."""
    asked = dict(tests=None, notebooks=None, chain=False, only="")
    assert parts_asked(SimpleNamespace(**asked)) == ([ROOT / "tests"], ".*", True, "everything")
    tests, notebooks, chain, name = parts_asked(SimpleNamespace(**{**asked, "tests": [], "chain": True}))
    assert (tests, notebooks, chain, name) == ([ROOT / "tests"], None, True, "all tests the chain")
    given = {**asked, "tests": ["test_a.py"], "only": "one", "notebooks": "06_.*"}
    some = parts_asked(SimpleNamespace(**given))
    assert some == ([ROOT / "tests" / "test_a.py", "-k", "one"], "06_.*", False, "test_a.py -k one 06_.*")


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
