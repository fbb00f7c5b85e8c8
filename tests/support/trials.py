"""The table of trials.

Tests hand over rows of what they tried, `pytest` prints them at its end, and MINICOIL_RECORD=FILE keeps them.
"""

import json
import os
from pathlib import Path

from record import commit, save_record


def row(kind, how, count=0, lost=0, wrong=0, **more):
    """One row: what was disturbed, how, how often, how often work was lost, how often a result was wrong."""
    return {"kind": kind, "how": how, "count": count, "lost": lost, "wrong": wrong, **more}


def table(rows):
    """Rows as lines to read, with their sum."""
    head = {name: name for name in ("kind", "how", "count", "lost", "wrong")}
    total = row("all", "", *(sum(r[n] for r in rows) for n in ("count", "lost", "wrong")))
    form = "{kind:24}{how:22}{count:>8}{lost:>6}{wrong:>6}"
    return "\n".join(form.format(**r) for r in [head, *rows, total])


def hand_over(record_property, *rows):
    """Give rows to the table; with MINICOIL_RECORD they replace those of the same kind there."""
    for r in rows:
        record_property("trials", json.dumps(r))
    if os.environ.get("MINICOIL_RECORD"):
        path = Path(os.environ["MINICOIL_RECORD"])
        known = json.loads(path.read_text(encoding="utf-8"))["results"]["trials"] if path.exists() else []
        new = {(r["kind"], r["how"]): {**r, "commit": commit()} for r in rows}
        kept = [r for r in known if (r["kind"], r["how"]) not in new] + list(new.values())
        save_record(
            path,
            {
                "trials": kept,
                "total": sum(r["count"] for r in kept),
                "lost": sum(r["lost"] for r in kept),
                "wrong": sum(r["wrong"] for r in kept),
            },
        )


def rows_of(reports):
    """The rows that tests have handed over, from their reports."""
    return [
        json.loads(text)
        for r in reports
        for name, text in getattr(r, "user_properties", ())
        if name == "trials"
    ]
