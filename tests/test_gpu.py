"""The prepared script for a GPU does all that it promises, on any machine, with two words."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "bench" / "gpu.py"


@pytest.mark.slow
def test_the_prepared_script_runs_dry(tmp_path):
    """Both runs are done and drew alike, and what this machine lacks stands there with its reason."""
    out = tmp_path / "gpu.json"
    command = [sys.executable, str(SCRIPT), "--dry", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(out.read_text(encoding="utf-8"))["results"]
    assert found["chosen"]["stages"]["targets"]["seconds"] > 0
    assert found["processor"]["tokens_per_second"] > 0
    assert found["compared"]["equal_draws"]
    assert found["gpu"].startswith("none") is (found["compared"]["encoders_apart"] == 0)
    assert found["served"]["CPUExecutionProvider"]["texts_per_second"] > 0
    cuda = found["served"]["CUDAExecutionProvider"]
    assert "skipped" in cuda or found["served"]["apart"] < 1e-3


def test_a_run_that_fails_says_why(tmp_path, monkeypatch):
    """A run that cannot be done stands in the record with its reason, not as a figure."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    from gpu import trained

    assert trained(tmp_path / "x", [], {}, 5) == {"skipped": "no time left"}
    failed = trained(tmp_path / "x", ["--words", "the"], {}, 3000)
    assert failed["skipped"].startswith("exit code 2: ")
