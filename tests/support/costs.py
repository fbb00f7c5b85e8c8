"""What tests cost: seconds of processor time, those of their finished children included, and which were
skipped and why, in a few lines."""

import os
from collections import Counter, defaultdict

BEGUN = {}  # {test: processor time at its start}, in the process that runs it
MOST = 20


def spent():
    """Seconds of processor time of this process and of its children that have ended."""
    return sum(os.times()[:4])


def begin(item):
    """Note when a test begins, before its fixtures are made."""
    BEGUN[item.nodeid] = spent()


def end(item):
    """Hand what a test cost over to the process that prints."""
    item.user_properties.append(("cpu", round(spent() - BEGUN.pop(item.nodeid, spent()), 2)))


def reports_of(reporter, when):
    """All reports of one phase."""
    return [r for reports in reporter.stats.values() for r in reports if getattr(r, "when", None) == when]


def costs(reporter):
    """{test: seconds} of the tests that ran."""
    return {r.nodeid: dict(r.user_properties).get("cpu", 0.0) for r in reports_of(reporter, "teardown")}


def cost_lines(found, most=MOST):
    """The tests that cost most, and the files, in two lists of lines."""
    files = defaultdict(float)
    for name, seconds in found.items():
        files[name.split("::")[0]] += seconds
    lines = [f"{sum(found.values()):8.1f} s of processor time in all; the most expensive tests:"]
    for some in (found, files):
        dear = sorted(some.items(), key=lambda one: -one[1])[:most]
        lines += [f"{seconds:8.1f} s  {name}" for name, seconds in dear if seconds >= 1]
    return lines


def skip_lines(reporter):
    """Why tests were skipped: three lines at most, the most frequent reasons first."""
    reasons = Counter(r.longrepr[2].removeprefix("Skipped: ") for r in reporter.stats.get("skipped", []))
    lines = [f"{n} skipped: {reason}" for reason, n in reasons.most_common()]
    return lines if len(lines) <= 3 else [*lines[:2], "; ".join(lines[2:])]
