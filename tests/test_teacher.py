"""The bench of a larger teacher: what it reads in the counts of kernels and in a run's log."""

import pytest
from teacher import clock_of, encoding_share, stages_of

from minicoil.runs.run import STAGES

NAMES = list(STAGES)[:3]
LOG = "".join(
    f"2026-11-28T08:00:0{n} {name} pid={n} {what}\n"
    for n, name in enumerate(NAMES, 1)
    for what in ("start", f"done peak={n}00MB")
)


@pytest.fixture
def lines():
    """What three kernels have counted: process, folder, source, processor seconds, the time of day."""
    return [
        row for n in (1, 2, 3) for row in ([n, "", "", 1.0, 10.0 * n], [n, "", "x", 1.0 + n, 10.0 * n + 4])
    ]


def test_a_stage_has_its_seconds_and_its_memory(lines):
    """Kernels come in the order of stages; the clock runs from a kernel's start to its last cell."""
    assert clock_of(lines) == dict.fromkeys(NAMES, 4.0)
    found = stages_of(lines, LOG)
    assert found[NAMES[1]] == {"clock": 4.0, "processor": 3.0, "peak_mb": 200}
    assert list(found) == NAMES


def test_the_share_of_the_transformers():
    """The stages in which they read, of all seconds of the processor."""
    stages = {"targets": {"processor": 60}, "tokens": {"processor": 15}, "training": {"processor": 20}}
    assert encoding_share(stages, 100) == 0.75
