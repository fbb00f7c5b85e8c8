"""The documentation site: complete, without a dead link, and whole without a network."""
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browsing import DESKTOP, PHONE, watched, wider_than_screen

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs"))
from reference import module_page, reference_pages  # noqa: E402


def public_names():
    """minicoil.module.name of everything public."""
    return [f"{module_page(path)[0]}.{name}" for path in sorted((ROOT / "minicoil").rglob("[a-z]*.py")) for name in module_page(path)[3]]


def test_every_public_name_is_in_the_reference():
    """The reference has an entry for each name of each module's `__all__`."""
    pages, names = reference_pages(ROOT / "minicoil"), public_names()
    for name in names:
        assert re.search(rf"^:+\{{py:(function|class|data)\}} {re.escape(name)}(\(|$)", pages[name.rsplit(".", 1)[0].removeprefix("minicoil.")], re.M), name
    assert len(names) > 300


def test_the_commands_in_the_how_to_pages_exist():
    """Each `minicoil` line of the how-to pages and of the README names a command and options that there are."""
    import typer

    from minicoil.commands.pipeline import app
    commands, lines = typer.main.get_command(app).commands, []
    for page in [*(ROOT / "docs" / "howto").glob("*.md"), ROOT / "README.md"]:
        lines += [line for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.S) for line in block.splitlines() if line.startswith("minicoil ")]
    for line in lines:
        words = line.split()[1:]
        command = commands[words.pop(0)]
        command = command.commands[words.pop(0)] if hasattr(command, "commands") else command
        options = {o for p in command.params for o in p.opts}
        assert {w for w in words if w.startswith("--")} <= options, line
    assert len(lines) > 10


def test_every_promise_is_held_by_a_test():
    """Each test that the page of promises names exists, and each row names one; slow ones are called slow."""
    file, rows = None, [line for line in (ROOT / "docs" / "promises.md").read_text(encoding="utf-8").splitlines() if line.startswith("| ") and not line.startswith("| promise")]
    for row in rows:
        named = re.findall(r"(slow:\* )?`(\w+\.py)?::(\w+)`", row)
        assert named, row
        slow = False
        for marked, other, name in named:
            file, slow = other or file, slow or bool(marked)
            text = (ROOT / "tests" / file).read_text(encoding="utf-8")
            found = re.search(rf"((?:^@.*\n)*)^(?:def {name}\(|both\({name[5:].removesuffix('_at_length')},)", text, re.M)  # `both` makes two tests of a check
            assert found, (file, name)
            assert (bool(re.search(r"^@pytest.mark.slow$", found[1], re.M)) or name.endswith("_at_length")) == slow, (file, name)
    assert len(rows) > 20


@pytest.mark.slow
def test_hostile_output_is_text_in_a_chapter(browser, tmp_path):
    """A notebook whose outputs hold markup, braces and 10,000 characters becomes a page that shows them as text."""
    pytest.importorskip("myst_nb", reason="the site's packages are not installed: make docs does that")
    import nbformat
    from build import chapter
    hostile = "</pre><script>document.title='hacked'</script><img src=x onerror=\"document.title='hacked'\"> {{7*7}} 'q' \u200f " + "endless " * 1250
    from test_atlas import toy_view

    from minicoil.pictures.views import turning_figure
    plot = turning_figure(toy_view("bat", sentences=[hostile + "bat"] * 6))
    cells = [nbformat.v4.new_markdown_cell("# Title"), nbformat.v4.new_code_cell("print(1)", outputs=[nbformat.v4.new_output("stream", name="stdout", text=hostile),
             nbformat.v4.new_output("execute_result", {"text/plain": hostile}), nbformat.v4.new_output("display_data", plot)])]
    notebook = tmp_path / "index.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), notebook)
    (tmp_path / "source").mkdir()
    nbformat.write(chapter(notebook, lambda text: text), tmp_path / "source" / "index.ipynb")
    (tmp_path / "source" / "conf.py").write_text("extensions = ['myst_nb']\nnb_execution_mode = 'off'\nhtml_theme = 'basic'\n")
    subprocess.run([sys.executable, "-m", "sphinx", "-q", "-b", "html", tmp_path / "source", tmp_path / "html"], check=True)
    from plotly.offline import get_plotlyjs
    (tmp_path / "html" / "_static" / "plotly.min.js").write_text(get_plotlyjs(), encoding="utf-8")
    with watched(browser) as page:
        page.goto((tmp_path / "html" / "index.html").as_uri())
        page.wait_for_selector(".js-plotly-plot .main-svg")
        assert page.title() != "hacked" and page.locator("img[src=x]").count() == 0
        assert page.locator("pre").filter(has_text="</pre><script>document.title").count() == 2 and page.left == []


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
        loaded = given.get("src") or (given.get("href") if tag == "link" and given.get("rel") in ("stylesheet", "icon", "preload", "shortcut icon") else None)
        if loaded:
            self.loads.append(loaded)
        if tag == "img" and not (given.get("alt") or "").strip():
            self.bare.append(given.get("src"))


def parsed(path):
    links = Links()
    links.feed(path.read_text(encoding="utf-8"))
    return links


@pytest.fixture(scope="module")
def site(run_folder, tmp_path_factory):
    """The built site. The test run's notebooks are shown where they are of today; what is executed stays in docs/_build."""
    pytest.importorskip("myst_nb", reason="the site's packages are not installed: make docs does that")
    import os
    done = subprocess.run([sys.executable, str(ROOT / "docs" / "build.py")], env={"MINICOIL_DOCS_RUN": str(run_folder), **os.environ}, capture_output=True, text=True)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stdout + done.stderr
    return ROOT / "docs" / "_build" / "html"


@pytest.mark.slow
def test_every_name_has_a_page_and_every_link_leads_somewhere(site):
    """All public names can be linked to; all links and loaded files within the site exist, anchors too; nothing is loaded from elsewhere; all pictures are described."""
    pages = {p.resolve(): parsed(p) for p in site.rglob("*.html") if "_static" not in p.parts}   # the theme leaves its templates there
    for name in public_names():
        assert name in pages[(site / "reference" / f"{name.split('.')[1]}.html").resolve()].ids, name
    for path, page in pages.items():
        assert not page.bare, (path, page.bare)
        for target in [*page.links, *page.loads]:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                assert target in page.links or parts.scheme == "data", f"{path} loads {target}"
                continue
            found = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert found.is_file(), f"{path} → {target}"
            if parts.fragment and found in pages and not parts.fragment.startswith("at="):
                assert unquote(parts.fragment) in pages[found].ids | {""}, f"{path} → {target}"


@pytest.mark.slow
def test_tables_are_tables(site):
    """A table that a notebook's code displays is a table on its page, not a paragraph full of bars."""
    raw = re.compile(r"<p>\|[^<]*\|\s*(?:—|---)")
    assert not [p.name for p in site.glob("*.html") if raw.search(p.read_text(encoding="utf-8"))]
    assert (site / "57_research_search.html").read_text(encoding="utf-8").count("<table") > 10


@pytest.mark.slow
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("look", ["light", "dark"])
def test_the_site_is_read_and_searched(browser, site, size, look):
    """Pages fit the screen, light and dark; plots are drawn; the search finds a chapter and a name; no error, no request beyond this machine."""
    with watched(browser, size, color_scheme=look) as page:
        for name in sorted(p.relative_to(site) for p in [*site.glob("*.html"), *site.glob("howto/*.html"), *site.glob("reference/*.html")]):
            page.goto((site / name).as_uri())
            assert wider_than_screen(page) <= 0, name
        page.goto((site / "24_views.html").as_uri())
        page.wait_for_selector(".js-plotly-plot .main-svg")
        for asked, wanted in (("UMAP", "30_atlas.html"), ("draw_atlas", "reference/atlas.html")):
            page.goto((site / "search.html").as_uri() + f"?q={asked}")
            page.wait_for_selector("#search-results li a")
            page.wait_for_function("(wanted) => [...document.querySelectorAll('#search-results li a')].some(a => a.href.includes(wanted))", arg=wanted)
        assert page.faults == page.left == []


@pytest.mark.slow
def test_the_site_is_read_without_scripts(browser, site):
    """Without JavaScript the story, its pictures and the table of contents are there."""
    with watched(browser, java_script_enabled=False) as page:
        page.goto((site / "30_atlas.html").as_uri())
        assert page.locator("article h1").is_visible() and page.locator("article img").first.is_visible() and page.locator("nav a", has_text="Your own words").first.is_visible()
