"""docs/versions.md: what is pinned in constraints.txt, dated, beside the newest known on that day. `--write NEWEST.tsv` writes it: lines of name, version, month.

No tool that looks for known weaknesses works offline: they all ask a database. Where one may be asked, `pip-audit -r constraints.txt` does it; this table is for when not."""
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
    return dict(line.split(";")[0].strip().split("==") for line in lines if "==" in line and not line.startswith("#"))


def tabled():
    """{package: (pinned, newest)} of the page."""
    return {name: (version, newest) for name, version, newest in re.findall(r"^\| ([\w.-]+) \| (\S+) \| (.*?) \|$", PAGE.read_text(encoding="utf-8"), re.M) if name != "package"}


def page(newest):
    """The page's text; `newest` is {package: (version, month)}."""
    plain = lambda name: re.sub("[-_.]+", "-", name).lower()
    newest = {plain(name): found for name, found in newest.items() if found[0]}
    rows = []
    for name, version in pinned().items():
        found = newest.get(plain(name))
        rows.append(f"| {name} | {version} | {'not known' if found is None else 'the same' if Version(found[0]) <= Version(version) else f'{found[0]} of {found[1]}'} |")
    old = sum(not row.endswith(("the same |", "not known |")) for row in rows)
    return f"""# Versions

What everything was tested with, as `constraints.txt` pins it, on {datetime.date.today().isoformat()}: {len(rows)} packages, {old} of them with a newer version known that day. Tools that look for known weaknesses ask a database, so none works offline; with one at hand, `pip-audit -r constraints.txt` asks about every line below. The pins are upper hands over the lower bounds in `settings.ini`, which let pip take newer ones.

| package | pinned | newest known |
|---|---|---|
""" + "\n".join(rows) + "\n"


if __name__ == "__main__":
    if sys.argv[1:2] != ["--write"]:
        sys.exit(__doc__)
    rows = (line.split("\t") for line in Path(sys.argv[2]).read_text(encoding="utf-8").splitlines())
    PAGE.write_text(page({r[0]: (r[1], r[2]) for r in rows if len(r) > 2}), encoding="utf-8")
