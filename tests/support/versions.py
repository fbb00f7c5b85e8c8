"""docs/versions.md: what is pinned in constraints.txt, dated, beside the newest known on that day.

`--write NEWEST.tsv` writes it, from lines of name, version, month.

No tool that looks for known weaknesses works offline: they all ask a database. Where one may be asked,
`pip-audit -r constraints.txt` does it; this table is for when not."""

import datetime
import re
import sys
from pathlib import Path

from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "versions.md"


def pinned():
    """{package: version} of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(
        line.split(";")[0].strip().split("==") for line in lines if "==" in line and not line.startswith("#")
    )


def tabled():
    """{package: (pinned, newest)} of the page."""
    return {
        name: (version, newest)
        for name, version, newest in re.findall(
            r"^\| ([\w.-]+) \| (\S+) \| (.*?) \|$", PAGE.read_text(encoding="utf-8"), re.M
        )
        if name != "package"
    }


HEAD = """# Versions

What everything was tested with, as `constraints.txt` pins it, on {day}: {packages} packages, {old} of them \
with a newer version known that day. Tools that look for known weaknesses ask a database, so none works \
offline; with one at hand, `pip-audit -r constraints.txt` asks about every line below. The pins are upper \
bounds; `settings.ini` holds the lower ones, which let pip take newer versions.

| package | pinned | newest known |
|---|---|---|
"""


def plain(name):
    """A package's name as package indexes compare it."""
    return re.sub("[-_.]+", "-", name).lower()


def compared(version, newest):
    """What the page says beside a pinned version;

    `newest` is (version, month), or None where it is not known.
    """
    if newest is None:
        return "not known"
    return "the same" if Version(newest[0]) <= Version(version) else f"{newest[0]} of {newest[1]}"


def page(newest):
    """The page's text; `newest` is {package: (version, month)}."""
    newest = {plain(name): found for name, found in newest.items() if found[0]}
    rows = [(name, version, compared(version, newest.get(plain(name)))) for name, version in pinned().items()]
    old = sum(said not in ("the same", "not known") for *_, said in rows)
    head = HEAD.format(day=datetime.date.today().isoformat(), packages=len(rows), old=old)
    return head + "".join(f"| {name} | {version} | {said} |\n" for name, version, said in rows)


if __name__ == "__main__":
    if sys.argv[1:2] != ["--write"]:
        sys.exit(__doc__)
    rows = (line.split("\t") for line in Path(sys.argv[2]).read_text(encoding="utf-8").splitlines())
    PAGE.write_text(page({r[0]: (r[1], r[2]) for r in rows if len(r) > 2}), encoding="utf-8")
