"""The documentation site: complete, without a dead link, and whole without a network."""
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browsing import DESKTOP, PHONE, watched, wider_than_screen

from minicoil import MiniCOIL

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs"))
from reference import FLOORS, module_page, packages, reference_pages  # noqa: E402

MODULES = sorted((ROOT / "minicoil").rglob("[a-z]*.py"))


def public_names():
    """(page, minicoil.package.module.name) of everything public."""
    modules = [module_page(path) for path in MODULES]
    return [(m.name.removeprefix("minicoil."), f"{m.name}.{name}") for m in modules for name in m.public]


def test_every_public_name_is_in_the_reference():
    """The reference has an entry for each name of each module's `__all__`."""
    pages, names = reference_pages(ROOT / "minicoil"), public_names()
    for page, name in names:
        found = rf"^:+\{{py:(function|class|data)\}} {re.escape(name)}(\(|$)"
        assert re.search(found, pages[page], re.M), name
    assert len(names) > 300


def test_every_module_stands_with_its_package():
    """The first page of the reference has a part for each package, with its paragraph and all its modules."""
    index, said = reference_pages(ROOT / "minicoil")["index"], packages(ROOT / "minicoil")
    folders = {path.parent.name for path in (ROOT / "minicoil").glob("*/__init__.py")}
    assert folders == set(FLOORS)
    parts = {part.split("\n")[0]: part for part in index.split("\n## ")}
    for name in FLOORS:
        assert said[name][:40] in parts[f"minicoil.{name}"]
    for path in MODULES:
        page = ".".join(path.relative_to(ROOT / "minicoil").with_suffix("").parts)
        home = f"minicoil.{path.parent.name}" if path.parent.name in FLOORS else "In minicoil itself"
        assert f"[minicoil.{page}]({page}.md)" in parts[home]


SOURCE = '''"""A module"""
__all__ = ["Thing", "weigh", "ask"]
from ..runs.run import Run
import typer


class Thing:
    """
    One thing.

    Attributes:
        size: how large it is.
    """
    size: int = 3
    colour: str = "red"  # as one sees it

    @property
    def half(self) -> "Thing":
        "Half of it"


def weigh(run: Run, things: list[Thing], k: float = 1.2) -> dict[str, float]:
    """
    Weights of things.

    Args:
        run: where they lie.
        things: those to weigh, at
            least one.

    Returns:
        {name: weight in grams}.

    Raises:
        UserError: there is none.

    Example:
        >>> weigh(run, [Thing()])
        {"thing": 1.5}
    """


def ask(port: int = typer.Option(0, help="Port on this machine")):
    "Ask"
'''


@pytest.fixture(scope="module")
def page_of_a_thing(tmp_path_factory):
    """The reference's page of a small module."""
    folder = tmp_path_factory.mktemp("package") / "minicoil" / "things"
    folder.mkdir(parents=True)
    for home in (folder, folder.parent):
        (home / "__init__.py").write_text("")
    (folder / "thing.py").write_text(SOURCE, encoding="utf-8")
    return module_page(folder / "thing.py").text


def test_a_signature_has_its_types(page_of_a_thing):
    """Types stand in signatures, the package's own with their whole names, so that they are links."""
    own = "minicoil.things.thing.Thing"
    assert f"weigh(run: ~minicoil.runs.run.Run, things: list[~{own}], k: float=1.2)" in page_of_a_thing
    assert "-> dict[str, float]\n" in page_of_a_thing
    assert f"Thing.half\n:type: ~{own}\n" in page_of_a_thing
    assert "ask(port: int=0)" in page_of_a_thing


def test_a_docstring_has_its_sections(page_of_a_thing):
    """Args, Returns, Raises, examples, fields and the help of options are rendered."""
    assert "**Args**\n\n* `run`: where they lie.\n" in page_of_a_thing
    assert "\n* `things`: those to weigh, at least one." in page_of_a_thing
    assert "**Returns**\n\n{name: weight in grams}." in page_of_a_thing
    assert "**Raises**\n\n* `UserError`: there is none." in page_of_a_thing
    assert "```pycon\n>>> weigh(run, [Thing()])\n{\"thing\": 1.5}\n```" in page_of_a_thing
    assert "* `size` (`int`) = `3`: how large it is." in page_of_a_thing
    assert "* `colour` (`str`) = `'red'`: as one sees it" in page_of_a_thing
    assert "* `port`: Port on this machine" in page_of_a_thing


def test_the_commands_in_the_how_to_pages_exist():
    """Each `minicoil` line of the how-to pages and of the README names a command and its options."""
    import typer

    from minicoil.commands.pipeline import app
    commands, blocks = typer.main.get_command(app).commands, []
    for page in [*(ROOT / "docs" / "howto").glob("*.md"), ROOT / "README.md"]:
        blocks += re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("minicoil ")]
    for line in lines:
        words = line.split()[1:]
        command = commands[words.pop(0)]
        command = command.commands[words.pop(0)] if hasattr(command, "commands") else command
        options = {o for p in command.params for o in p.opts}
        assert {w for w in words if w.startswith("--")} <= options, line
    assert len(lines) > 10


def test_links_of_the_how_to_pages_lead_somewhere():
    """Links of the how-to pages lead to files of the repository, and on the site to its pages."""
    pytest.importorskip("nbformat")
    from build import on_site

    link, chapters = r"\]\((?!https?:|#)([^)#]+)", {path.name for path in (ROOT / "nbs").glob("*.ipynb")}
    pages, found = sorted((ROOT / "docs" / "howto").iterdir()), 0
    assert {path.suffix for path in pages} == {".md", ".ipynb"}
    known = {f"../{name}" for name in chapters} | {path.name for path in pages}
    known |= {"../benchmarks.md", "../format.md"}
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(link, text):
            assert (page.parent / target).exists(), (page.name, target)
        on_the_site = re.findall(link, on_site(text))
        assert set(on_the_site) <= known, page.name
        found += len(on_the_site)
    assert found > 8


def promises():
    """[(row, file, test, whether the row calls it slow)] of the page of promises; a file holds on."""
    file, found = None, []
    for row in (ROOT / "docs" / "promises.md").read_text(encoding="utf-8").splitlines():
        if not row.startswith("| ") or row.startswith("| promise"):
            continue
        slow, named = False, re.findall(r"(slow:\* )?`(\w+\.py)?::(\w+)`", row)
        assert named, row
        for called, other, name in named:
            file, slow = other or file, slow or bool(called)
            found.append((row, file, name, slow))
    return found


def test_every_promise_is_held_by_a_test():
    """Each test that the page of promises names exists, and each row names one; slow ones are called slow."""
    found = promises()
    for _, file, name, slow in found:
        text = (ROOT / "tests" / file).read_text(encoding="utf-8")
        defined = re.search(rf"((?:^@.*\n)*)^def {name}\(", text, re.M)
        assert defined, (file, name)
        marked = bool(re.search(r"^@pytest.mark.slow$", defined[1], re.M))
        assert marked == slow, (file, name)
    assert len({row for row, *_ in found}) > 20


def test_every_formula_is_drawn(tmp_path):
    """The site draws each formula of the book as a picture, with the formula as its alternative text."""
    pytest.importorskip("nbformat")
    import nbformat
    from build import formula
    found = []
    for path in sorted((ROOT / "nbs").glob("*.ipynb")):
        prose = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown"]
        found += re.findall(r"\$\$(.+?)\$\$", "\n\n".join(prose), re.S)
    for number, tex in enumerate(found):
        assert formula(tex, number, tmp_path).startswith("!["), tex
        assert (tmp_path / f"formula-{number}.svg").stat().st_size > 500
    assert len(found) > 10


HOSTILE = ("</pre><script>document.title='hacked'</script><img src=x onerror=\"document.title='hacked'\"> "
           "{{7*7}} 'q' \u200f " + "endless " * 1250)


def hostile_notebook(path):
    """A notebook whose outputs hold hostile text: printed, returned, and in a plot."""
    import nbformat
    from test_atlas import toy_view

    from minicoil.pictures.word_figure import turning_figure
    plot = turning_figure(toy_view("bat", sentences=[HOSTILE + "bat"] * 6))
    outputs = [nbformat.v4.new_output("stream", name="stdout", text=HOSTILE),
               nbformat.v4.new_output("execute_result", {"text/plain": HOSTILE}),
               nbformat.v4.new_output("display_data", plot)]
    cells = [nbformat.v4.new_markdown_cell("# Title"), nbformat.v4.new_code_cell("print(1)", outputs=outputs)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


CONF = "extensions = ['myst_nb']\nnb_execution_mode = 'off'\nhtml_theme = 'basic'\n"


@pytest.mark.slow
def test_hostile_output_is_text_in_a_chapter(browser, tmp_path):
    """A notebook with hostile outputs becomes a page that shows them as text."""
    pytest.importorskip("myst_nb", reason="the site's packages are not installed: make docs does that")
    import nbformat
    from build import chapter
    from plotly.offline import get_plotlyjs
    source, built = tmp_path / "source", tmp_path / "html"
    source.mkdir()
    page = chapter(hostile_notebook(tmp_path / "index.ipynb"), lambda text: text)
    nbformat.write(page, source / "index.ipynb")
    (source / "conf.py").write_text(CONF)
    subprocess.run([sys.executable, "-m", "sphinx", "-q", "-b", "html", source, built], check=True)
    (built / "_static" / "plotly.min.js").write_text(get_plotlyjs(), encoding="utf-8")
    with watched(browser) as page:
        page.goto((built / "index.html").as_uri())
        page.wait_for_selector(".js-plotly-plot .main-svg")
        assert page.title() != "hacked"
        assert page.locator("img[src=x]").count() == 0
        assert page.locator("pre").filter(has_text="</pre><script>document.title").count() == 2
        assert page.left == []


class Links(HTMLParser):
    """What a page links to, loads, and can be linked at; pictures without alternative text."""

    def reset(self):
        super().reset()
        self.links, self.loads, self.ids, self.bare = [], [], set(), []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids |= {given[k] for k in ("id", "name") if given.get(k)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        fetched = tag == "link" and given.get("rel") in ("stylesheet", "icon", "preload", "shortcut icon")
        loaded = given.get("src") or (given.get("href") if fetched else None)
        if loaded:
            self.loads.append(loaded)
        if tag == "img" and not (given.get("alt") or "").strip():
            self.bare.append(given.get("src"))


def parsed(path):
    """The `Links` of a page."""
    links = Links()
    links.feed(path.read_text(encoding="utf-8"))
    return links


@pytest.fixture(scope="module")
def site(run_folder):
    """The built site. It shows the test run's notebooks if they are today's; executed ones stay in _build."""
    pytest.importorskip("myst_nb", reason="the site's packages are not installed: make docs does that")
    environment = {"MINICOIL_DOCS_RUN": str(run_folder), **os.environ}
    done = subprocess.run([sys.executable, str(ROOT / "docs" / "build.py")], env=environment,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    return ROOT / "docs" / "_build" / "html"


@pytest.fixture(scope="module")
def site_pages(site):
    """{path: `Links`} of the site's pages; the theme leaves its templates in _static."""
    return {p.resolve(): parsed(p) for p in site.rglob("*.html") if "_static" not in p.parts}


@pytest.mark.slow
def test_every_name_has_a_page(site, site_pages):
    """All public names can be linked to, and all pictures are described."""
    for page, name in public_names():
        assert name in site_pages[(site / "reference" / f"{page}.html").resolve()].ids
    for path, page in site_pages.items():
        assert not page.bare, path


@pytest.mark.slow
def test_every_link_leads_somewhere(site_pages):
    """All links and loaded files within the site exist, anchors too; nothing is loaded from elsewhere."""
    for path, page in site_pages.items():
        for target in [*page.links, *page.loads]:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                assert target in page.links or parts.scheme == "data", f"{path} loads {target}"
                continue
            found = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert found.is_file(), f"{path} → {target}"
            if parts.fragment and found in site_pages and not parts.fragment.startswith("at="):
                assert unquote(parts.fragment) in site_pages[found].ids | {""}, f"{path} → {target}"


@pytest.mark.slow
def test_tables_are_tables(site):
    """A table that a notebook's code displays is a table on its page, not a paragraph full of bars."""
    raw = re.compile(r"<p>\|[^<]*\|\s*(?:—|---)")
    assert not [p.name for p in site.glob("*.html") if raw.search(p.read_text(encoding="utf-8"))]
    assert (site / "57_research_search.html").read_text(encoding="utf-8").count("<table") > 10


# Whether the search's results lead to a page.
FOUND = """(wanted) => [...document.querySelectorAll('#search-results li a')].some(
  a => a.href.includes(wanted))"""


@pytest.mark.slow
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("look", ["light", "dark"])
def test_the_site_is_read_and_searched(browser, site, size, look):
    """Pages fit the screen, plots are drawn, and the search finds a chapter and a name."""
    with watched(browser, size, color_scheme=look) as page:
        paths = [p for pattern in ("*.html", "howto/*.html", "reference/*.html") for p in site.glob(pattern)]
        for path in sorted(paths):
            page.goto(path.as_uri())
            assert wider_than_screen(page) <= 0, path
        page.goto((site / "24_word_figure.html").as_uri())
        page.wait_for_selector(".js-plotly-plot .main-svg")
        for asked, wanted in (("UMAP", "30_atlas.html"), ("draw_atlas", "reference/pictures.atlas.html")):
            page.goto((site / "search.html").as_uri() + f"?q={asked}")
            page.wait_for_selector("#search-results li a")
            page.wait_for_function(FOUND, arg=wanted)
        assert page.faults == []
        assert page.left == []


@pytest.mark.slow
def test_the_explorer_of_the_site(browser, site):
    """The model of the package, loaded into the page from at most 45 MB of files, agrees with the package."""
    from explorer import MOST
    from test_explorer import QUERY, TEXT, compared, number, opened, served
    if not (site / "explorer").is_dir():
        pytest.skip("NO NODE: the site was built without npm")
    assert sum(path.stat().st_size for path in (site / "explorer").rglob("*.*")) < MOST
    with served(site) as address, watched(browser, PHONE) as page:
        opened(page, address)
        rows = compared(page, QUERY, TEXT)
        assert wider_than_screen(page) <= 0
        assert (page.faults, page.left) == ([], [])
    right = MiniCOIL.load("english", threads=1).explain(QUERY, TEXT, normalize=True, windows=True)
    added = {row["word"]: row["contribution"] for row in right}
    shown = {row[0].split("\n")[0]: number(row[3]) for row in rows[1:-1]}
    assert shown == pytest.approx(added, abs=0.3)   # the page's transformer is in int8


@pytest.mark.slow
def test_the_site_is_read_without_scripts(browser, site):
    """Without JavaScript the story, its pictures and the table of contents are there."""
    with watched(browser, java_script_enabled=False) as page:
        page.goto((site / "30_atlas.html").as_uri())
        assert page.locator("article h1").is_visible()
        assert page.locator("article img").first.is_visible()
        assert page.locator("nav a", has_text="Your own words").first.is_visible()
