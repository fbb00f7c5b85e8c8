"""The atlas, the report and the live page in a browser: what is pointed at is shown, nothing else happens.

Slow tests use an atlas of 5,000 words: of the run MINICOIL_TEST_BROAD, or of one made here, with made-up
sentences and a random transformer."""
import os
import random
import re
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browsing import DESKTOP, PHONE, watched, wider_than_screen

from minicoil.pictures.atlas import block_name, index_page, index_row
from minicoil.pictures.pages import OVERRIDES, word_address
from minicoil.pictures.spans import Quoted
from minicoil.pictures.views import WordView, word_views
from minicoil.pictures.word_page import word_page
from minicoil.pictures.word_plain import plain_block, plain_page, plain_word
from minicoil.runs.files import save_json
from minicoil.runs.run import open_run
from minicoil.stages.sentences import sentence_texts
from minicoil.stages.store import drawn_sentences
from minicoil.text.normalize import normalize_text

HOSTILE = [
    "</script><script>document.title='hacked'</script> the bat",
    "<img src=x onerror=\"document.title='hacked'\"> the bat",
    "{{7*7}} ${7*7} %{x} the bat",
    "\"the\" 'bat' `bat` &lt;b&gt; &amp; bat",
    "\u200f\u202e bat \u05e9\u05dc\u05d5\u05dd",
    "bat " + "endless " * 1250,
]
BOTH = pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])


@pytest.fixture(scope="module")
def run(run_folder):
    return open_run(run_folder)


@pytest.fixture(scope="module")
def broad_run(tmp_path_factory):
    """A run with an atlas of at least 5,000 words."""
    if os.environ.get("MINICOIL_TEST_BROAD"):
        return open_run(Path(os.environ["MINICOIL_TEST_BROAD"]))
    from chains import TO_MODEL, made_up_corpus, tiny_transformer, work
    folder = tmp_path_factory.mktemp("broad")
    model = str(tiny_transformer(folder / "transformer", 32, seed=5, max_length=32))
    corpus = str(made_up_corpus(folder / "corpus.txt", 5600))
    run = open_run(folder / "run", corpus=[corpus], top_words=5000, dim=4, samples=20, objective="fit",
                   pictures=4, input_model=model, target_model=model)
    return work(run, *TO_MODEL, "atlas")


def atlas_file(run, name):
    """The address of a file of a run's atlas."""
    return (run.stage("atlas").path / name).as_uri()


def word_file(run, index):
    """The address of a word's page."""
    plain = index >= run.stage("senses").manifest["pictures"]
    return f"{run.stage('atlas').path.as_uri()}/{word_address(index, plain)}"


# Where a point lies in the window, after its view has been scrolled there.
PLACE = """([view, i]) => {
  const svg = document.querySelectorAll("svg.plot")[view], use = svg.querySelectorAll("use")[i];
  svg.scrollIntoView({block: "start"});
  const at = new DOMPoint(+use.getAttribute("x"), +use.getAttribute("y")).matrixTransform(svg.getScreenCTM());
  return [at.x, at.y];
}"""
# Where the pointer was last; a browser may move the click of a tap to what it thinks was meant.
LISTEN = """for (const kind of ["pointermove", "pointerdown"])
  addEventListener(kind, event => { window.pointedAt = [event.clientX, event.clientY]; }, true)"""
# Per view the numbers of the points that lie where its ring lies: points may lie on top of each other.
LIT = """[...document.querySelectorAll("svg.plot")].map(svg => {
  const ring = svg.querySelector(".ring");
  const ringed = use => ["x", "y"].every(k => use.getAttribute(k) === ring.getAttribute("c" + k));
  return ring ? [...svg.querySelectorAll("use")].flatMap((use, i) => ringed(use) ? [i] : []) : [];
})"""
# The numbers of the points of a view that are nearest to the last pointer event.
NEAREST = """view => {
  const svg = document.querySelectorAll("svg.plot")[view];
  const at = new DOMPoint(...window.pointedAt).matrixTransform(svg.getScreenCTM().inverse());
  const far = [...svg.querySelectorAll("use")].map(
    use => Math.hypot(+use.getAttribute("x") - at.x, +use.getAttribute("y") - at.y));
  return far.flatMap((distance, i) => distance <= Math.min(...far) + 1e-3 ? [i] : []);
}"""


def opened(page, address):
    """Open a word's page, wait until it acts, and remember where its pointer events happen."""
    page.goto(address)
    page.wait_for_selector("#view", state="attached")
    page.evaluate(LISTEN)


# How many clicks the page has taken so far, counted after it has acted on them.
CLICKS = """() => {
  if (window.clicks === undefined) {
    window.clicks = 0;
    addEventListener("click", () => { window.clicks += 1; });
  }
  return window.clicks;
}"""


def clicked(page, act):
    """Do something that ends in a click, and wait for that: a browser makes a tap's click some time later."""
    before = page.evaluate(CLICKS)
    act()
    page.wait_for_function("before => window.clicks > before", arg=before)


def point_at(page, view, i):
    """Move the pointer to point i of a view; on a phone, tap it. Returns the number of the sentence shown."""
    x, y = page.evaluate(PLACE, [view, i])
    if page.viewport_size == PHONE:
        clicked(page, lambda: page.touchscreen.tap(x, y))
    else:
        page.mouse.move(x, y)
    return page.evaluate("document.getElementById('said').dataset.i ?? null")


def click_at(page, view, i):
    """Click point i of a view; on a phone, tap it. Returns the number of the sentence shown."""
    x, y = page.evaluate(PLACE, [view, i])
    touch = page.viewport_size == PHONE
    clicked(page, lambda: page.touchscreen.tap(x, y) if touch else page.mouse.click(x, y))
    return int(page.evaluate("document.getElementById('said').dataset.i"))


def said(page):
    """What a word's page says about the sentence that is shown."""
    return clean(page.locator("#said").text_content())


def clean(text):
    """A text as a page shows it: overriding characters replaced, white space as the browser has it."""
    return " ".join(text.translate(OVERRIDES).split())


def quiet(page):
    """Whether nothing went wrong and nothing left this machine."""
    return page.faults == page.left == []


def check_pointed(page, view, plot, i):
    """Point at point i of a plot: the nearest one's stored sentence is shown, and ringed in every view."""
    shown = int(point_at(page, plot, i))
    assert shown in page.evaluate(NEAREST, plot)
    assert all(shown in ring for ring in page.evaluate(LIT))
    assert said(page).startswith(clean(view.sentences[shown]))
    assert view.names[view.clusters[shown]] in said(page)
    marked = page.locator("#said mark").first.text_content()
    assert marked == view.sentences[shown][slice(*view.spans[shown][0])]


@BOTH
def test_pointing_shows_the_stored_sentence_in_every_view(browser, run, size):
    """Of 20 points on four pages the nearest one's stored sentence is shown and ringed in every view."""
    rng = random.Random(0)
    for view in word_views(run, 0, 4):
        with watched(browser, size) as page:
            opened(page, word_file(run, view.index))
            plots = page.locator("svg.plot").count()
            assert plots == (1 if view.before is None else 2)
            for n, i in enumerate(rng.sample(range(len(view.sentences)), 5)):
                check_pointed(page, view, n % plots, i)
            assert quiet(page)
            assert wider_than_screen(page) <= 0


LAYOUTS = [*(f"seed{n}" for n in range(5)), "crowded"]


@pytest.fixture(scope="module")
def layouts(run, tmp_path_factory):
    """(view, page) of a word in layouts of five seeds, and in one where ten points lie beneath each other."""
    from minicoil.stages.clusters import cosine_distances
    from minicoil.stages.layouts import umap_layout
    from minicoil.stages.senses import word_targets
    view, (_, _, ids) = next(word_views(run, 0, 1)), drawn_sentences(run)[0]
    distances = cosine_distances(next(word_targets(run, [(0, ids)])))
    places = [umap_layout(distances, 2, seed) for seed in range(5)]
    tens = np.arange(len(ids)) // 10
    places.append(np.stack([tens, tens % 3], axis=1).astype(np.float32))
    folder, made = tmp_path_factory.mktemp("layouts"), []
    for number, layout in enumerate(places):
        made.append((replace(view, before=layout), folder / f"{number}.html"))
        made[-1][1].write_text(word_page(made[-1][0]), encoding="utf-8")
    return made


@BOTH
@pytest.mark.parametrize("number", range(6), ids=LAYOUTS)
def test_every_point_can_be_reached_in_any_layout(browser, layouts, size, number):
    """Wherever points lie, the nearest is ringed first; clicking again rings the others at the same place."""
    view, path = layouts[number]
    with watched(browser, size) as page:
        opened(page, path.as_uri())
        for n, i in enumerate(random.Random(number).sample(range(len(view.sentences)), 12)):
            page.keyboard.press("Escape")
            check_pointed(page, view, n % 2, i)
            seen = [click_at(page, n % 2, i)]
            offered = page.locator("#said .choice")
            most = int(offered.text_content().split(" of ")[1].split()[0]) if offered.count() else 1
            while i not in seen and len(seen) < most:
                seen.append(click_at(page, n % 2, i))
                assert said(page).startswith(clean(view.sentences[seen[-1]]))
                assert all(seen[-1] in ring for ring in page.evaluate(LIT))
            assert i in seen
            assert len(set(seen)) == len(seen)
        assert quiet(page)


@BOTH
def test_points_close_together_are_offered_in_turn(browser, tmp_path, size):
    """Four sentences at one place are shown in turn; a single one elsewhere says nothing of a choice."""
    view = toy_view("bat", n=20)
    view.before[:4] = view.before[:20].min(0) - 1
    (tmp_path / "page.html").write_text(word_page(view), encoding="utf-8")
    with watched(browser, size) as page:
        opened(page, (tmp_path / "page.html").as_uri())
        seen = [click_at(page, 0, 0) for _ in range(5)]
        assert seen == [0, 1, 2, 3, 0]
        assert f"1 of 4 close together here. {'Tap' if size == PHONE else 'Click'} again" in said(page)
        far = np.linalg.norm(view.before[:, None] - view.before, axis=2) + 99 * np.eye(20)
        assert click_at(page, 0, int(far.min(1).argmax())) == far.min(1).argmax()
        assert page.locator("#said .choice").count() == 0
        assert quiet(page)


def overlap(a, b):
    """Whether two boxes share a place."""
    across = a["right"] > b["left"] and a["left"] < b["right"]
    return across and a["bottom"] > b["top"] and a["top"] < b["bottom"]


@pytest.mark.parametrize("number", range(6), ids=LAYOUTS)
def test_the_label_hides_no_ring(browser, layouts, number):
    """The label beside the pointer covers the pointed sentence in neither view, in any layout."""
    view, path = layouts[number]
    with watched(browser) as page:
        page.goto(path.as_uri())
        for n, i in enumerate(random.Random(4).sample(range(len(view.sentences)), 30)):
            point_at(page, n % 2, i)
            tip = page.evaluate("document.getElementById('tip').getBoundingClientRect().toJSON()")
            rings = page.evaluate(
                "[...document.querySelectorAll('.ring')].map(e => e.getBoundingClientRect().toJSON())")
            assert tip["width"] > 0
            assert len(rings) == 2
            assert not any(overlap(tip, ring) for ring in rings)


def test_keys_do_what_the_pointer_does(browser, tmp_path):
    """Arrow keys walk over the sentences, Enter finds the sentence in the list, Escape removes the ring."""
    view = toy_view("bat", n=25)
    view.before[:] = np.stack([np.arange(25) % 5, -(np.arange(25) // 5)], axis=1)   # five rows of five
    (tmp_path / "page.html").write_text(word_page(view), encoding="utf-8")
    with watched(browser) as page:
        page.goto((tmp_path / "page.html").as_uri())
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.matches('svg.plot')")
        seen = []
        for key in ("Right", "Right", "Right", "Down", "Left", "Up", "Up"):
            page.keyboard.press(f"Arrow{key}")
            seen.append(int(page.evaluate("document.getElementById('said').dataset.i")))
        assert seen == [0, 1, 2, 7, 6, 1, 1]   # the first key rings the first point; above it is none
        page.keyboard.press("Enter")
        assert page.locator("li.lit").is_visible()
        page.keyboard.press("Escape")
        assert page.locator(".ring").count() == 0
        assert page.faults == []


COLUMN = "k => [...document.querySelectorAll('tbody tr')].map(r => +r.cells[k].dataset.value)"
# What a column says in each row that is there, by the row's number; and whether the end of the page is seen.
SEEN = """k => ({
  rows: [...document.querySelectorAll("tbody tr")].map(r => [+r.ariaRowIndex - 2, +r.cells[k].dataset.value]),
  end: innerHeight + scrollY + 2 >= document.documentElement.scrollHeight,
})"""


def scrolled(page, column, words):
    """{row: value of a column}, read while scrolling through the whole index; every row has to come by."""
    page.evaluate("scrollTo(0, 0)")
    found, most, end = {}, 0, False
    while not end:
        page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        seen = page.evaluate(SEEN, column)
        found.update(seen["rows"])
        most, end = max(most, len(seen["rows"])), seen["end"]
        page.evaluate("scrollBy(0, 3000)")
    assert sorted(found) == list(range(words))
    assert most <= 500   # so many rows at a time, however many words there are
    return dict(sorted(found.items()))


@BOTH
def test_the_index_finds_a_word(browser, run, size):
    """The index has a row and a page for every word; a search leaves the word asked for; rows are sorted."""
    words = run.stage("training").manifest["words"]
    with watched(browser, size) as page:
        page.goto(atlas_file(run, "index.html"))
        assert page.locator("tbody tr").count() == len(words)
        page.fill("#search", words[1])
        assert words[1] in page.locator("tbody tr:visible th").all_text_contents()[0]
        assert page.locator("tbody tr:visible").count() < len(words)
        page.fill("#search", "")
        page.get_by_role("button", name="sentences").click()
        numbers = page.evaluate(COLUMN, 1)
        assert numbers == sorted(numbers)
        assert len(numbers) == len(words)
        assert wider_than_screen(page) <= 0
        page.locator("tbody th a").first.click()
        page.locator("svg.plot").first.wait_for()
        assert quiet(page)


def toy_view(word, index=0, sentences=None, n=60):
    """A view of made-up numbers."""
    rng = np.random.default_rng(index)
    sentences = sentences or [f"Sentence {i} with a bat." for i in range(n)]
    half = np.arange(len(sentences)) % 2
    spans = [[(t.index("bat"), t.index("bat") + 3)] for t in sentences]
    before = rng.normal(size=(len(half), 2))
    numbers = np.c_[half - .5, rng.normal(size=(len(half), 3)) / 9]
    return WordView(word, index, sentences, spans, half, [f"left{index}", "right"], before, numbers, 0.9)


@pytest.mark.slow
@BOTH
def test_a_broad_atlas_shows_the_stored_rows(browser, broad_run, size):
    """Among 5,000 words, 20 pictured and 20 plain pages show the corpus's rows of the points."""
    rng, drawn = random.Random(1), drawn_sentences(broad_run)
    pictures = broad_run.stage("senses").manifest["pictures"]
    assert len(drawn) >= 5000
    assert pictures > 0
    pictured = [rng.randrange(pictures) for _ in range(20)]
    plain = [rng.randrange(pictures, len(drawn)) for _ in range(20)]
    with watched(browser, size) as page:
        for index in pictured + plain:
            ids = drawn[index][2]
            opened(page, word_file(broad_run, index))
            plots = page.locator("svg.plot").count()
            points = page.locator("svg.plot").first.locator("use").count()
            assert plots == (2 if index < pictures else 1)
            assert points == (len(ids) if plots == 2 else min(len(ids), 100))
            i = rng.randrange(points)
            for view in range(plots):
                shown = int(point_at(page, view, i))
                stored = sentence_texts(broad_run, ids[[shown]])[ids[shown]]
                assert said(page).startswith(clean(stored) + " (")
                assert shown in page.evaluate(NEAREST, view)
                assert all(shown in ring for ring in page.evaluate(LIT))
        assert quiet(page)
        assert wider_than_screen(page) <= 0


@pytest.mark.slow
@BOTH
def test_a_broad_index_is_used(browser, broad_run, size):
    """The index of 5,000 real rows finds a word within 2 s of loading, sorts, and leads to its page."""
    drawn, waits = drawn_sentences(broad_run), []
    for index in random.Random(2).sample(range(len(drawn)), 3):
        word = drawn[index][0]
        with watched(browser, size) as page:
            begin = time.perf_counter()
            page.goto(atlas_file(broad_run, "index.html"), wait_until="load")
            loaded = time.perf_counter()
            page.fill("#search", word)
            assert word in page.locator("tbody tr:visible th a").all_text_contents()
            found = time.perf_counter()
            waits.append(found - loaded)
            page.fill("#search", "")
            page.get_by_role("button", name="separation").click()
            page.locator("th[aria-sort=ascending]").wait_for()
            ordered = time.perf_counter()
            print(f"{len(drawn):,} words, {size['width']} px: loaded in {loaded - begin:.2f} s; "
                  f"a word found {found - loaded:.2f} s later; sorted {ordered - found:.2f} s later")
            kept = list(scrolled(page, 2, len(drawn)).values())
            assert kept == sorted(kept)
            assert wider_than_screen(page) <= 0
            page.fill("#search", word)
            with page.expect_navigation():
                page.get_by_role("link", name=word, exact=True).first.click()
            assert page.locator("h1").text_content().startswith(f"{word}: ")
            assert quiet(page)
    assert min(waits) <= 2   # the best of three, as other processes may be at work


def many_rows(n):
    """So many rows of an index, of made-up words."""
    rows = [index_row(toy_view("word", i, n=20)) for i in range(7)]
    return [rows[i % 7]._replace(number=i, word=f"word{i}", names=[f"sense{i}", "other"]) for i in range(n)]


@BOTH
def test_twenty_thousand_words_are_searched(browser, tmp_path, size):
    """An index of 20,000 words finds one by its name and by a telling word, and leads to its page."""
    (tmp_path / "index.html").write_text(index_page(many_rows(20_000), 0), encoding="utf-8")
    with watched(browser, size) as page:
        page.goto((tmp_path / "index.html").as_uri())
        for asked in ("word14321", "sense14321"):
            page.fill("#search", asked)
            assert page.locator("tbody tr:visible").count() == 1
            assert page.locator("#count").text_content() == "1 of 20000 words"
            assert page.locator("tbody tr:visible a").text_content() == "word14321"
        assert page.locator("tbody a").get_attribute("href") == word_address(14321, plain=False)
        assert quiet(page)


def test_an_index_is_scrolled_to_its_end(browser, tmp_path):
    """Of 3,000 words every row comes by, and few are there at a time; printed, all are there."""
    (tmp_path / "index.html").write_text(index_page(many_rows(3000), 0), encoding="utf-8")
    with watched(browser) as page:
        page.goto((tmp_path / "index.html").as_uri())
        page.wait_for_selector("#find:not([hidden])")
        assert set(scrolled(page, 1, 3000).values()) == {20}
        page.evaluate("scrollTo(0, 0)")
        page.evaluate("void dispatchEvent(new Event('beforeprint'))")
        assert page.locator("tbody tr").count() == 3000
        assert page.faults == []


# A page's elements with their attributes and texts, as nested lists; of scripts nothing.
TREE = r"""selector => {
  const tree = node => node.nodeType === Node.TEXT_NODE ? node.data.replace(/\s+/g, " ").trim()
    : [node.localName, [...node.attributes].map(a => a.name + "=" + a.value).sort(), inside(node)];
  const left = ["script", "template"];
  const shown = node => node.nodeType !== Node.COMMENT_NODE && !left.includes(node.localName)
    && node.id !== "shell";
  const inside = node => [...node.childNodes].filter(shown).map(tree).filter(part => part.length);
  document.normalize();
  return inside(document.querySelector(selector));
}"""


def test_the_rows_of_an_index_are_alike_with_and_without_scripts(browser, tmp_path):
    """What the script makes of a row is what stands in the page for readers without scripts."""
    one = replace(toy_view("one", 3), names=["all sentences"], clusters=np.zeros(60, int), before=None)
    views = [toy_view("<b>bat</b>", 0), one, toy_view("bat", 1, n=1234)]
    many = replace(views[0], names=list("abcdefgh"), clusters=np.arange(60) % 8)
    page_text = index_page([index_row(view) for view in (*views, many)], 2)
    (tmp_path / "index.html").write_text(page_text, encoding="utf-8")
    trees = []
    for scripts in (True, False):
        with watched(browser, java_script_enabled=scripts) as page:
            page.goto((tmp_path / "index.html").as_uri())
            if scripts:
                page.wait_for_selector("#find:not([hidden])")
            trees.append(page.evaluate(TREE, "tbody"))
    assert len(trees[0]) == 4
    assert trees[0] == trees[1]


def test_hostile_sentences_are_text_in_the_atlas(browser, tmp_path):
    """Markup, braces, quotes, marks of direction and 10,000 characters are shown as they are."""
    view = toy_view("<b>bat</b>", sentences=HOSTILE)
    view.names[:] = HOSTILE[:2]
    (tmp_path / "page.html").write_text(word_page(view), encoding="utf-8")
    (tmp_path / "index.html").write_text(index_page([index_row(view)], 1), encoding="utf-8")
    with watched(browser) as page:
        page.goto((tmp_path / "page.html").as_uri())
        for i, text in enumerate(HOSTILE):
            assert point_at(page, 0, i) == str(i)
            assert said(page).startswith(clean(text))
        assert page.title() != "hacked"
        assert page.locator("img").count() == 0
        assert page.faults == []
        assert wider_than_screen(page) <= 0
        page.goto((tmp_path / "index.html").as_uri())
        assert page.locator("tbody th a").text_content() == "<b>bat</b>"
        assert page.title() != "hacked"
        assert page.faults == []


def plain_atlas(folder, *views):
    """The address of the plain pages of some views, written into a folder; a word's number goes behind it."""
    views = [replace(view, before=None, index=24 + i) for i, view in enumerate(views)]
    (folder / block_name(24)).write_text(plain_block(list(map(plain_word, views))), encoding="utf-8")
    (folder / "word.html").write_text(plain_page([24], 24 + len(views)), encoding="utf-8")
    return (folder / "word.html").as_uri() + "?"


def plain_views():
    """Views that a plain page may have to show: hostile, labelled, of some of the sentences, of one sense."""
    hostile = toy_view("<b>bat</b>", sentences=[*HOSTILE, "𝒳 a bat, 𝒳 bat"])
    hostile.names[:] = HOSTILE[:2]
    labelled = replace(toy_view("bat", n=9), labels=["no label", "zoo", "</small><b>"] * 3, constant=True)
    long, far = Quoted("so " * 90 + "a bat " + "so " * 90, [(272, 275)]), Quoted("Another bat.", [(8, 11)])
    some = toy_view("bat", 3, n=60)
    best = [[Quoted(some.sentences[2], some.spans[2]), long], [far]]
    some = replace(some, sentences=[*some.sentences[:39], long.text], spans=[*some.spans[:39], long.spans],
                   typical=best, hint="a split is a hint")
    one = replace(toy_view("bat", n=5), names=["all sentences"], clusters=np.zeros(5, int))
    many = replace(toy_view("bat", n=30), names=list("abcdefgh"), clusters=np.arange(30) % 8)
    return [hostile, labelled, some, one, many]


@pytest.mark.parametrize("number", range(5), ids=["hostile", "labelled", "some", "one", "many"])
def test_a_plain_page_is_the_page_that_python_writes(browser, tmp_path, number):
    """Element by element, attribute by attribute; and its numbers are those of the view, to 1/250."""
    view, address = plain_views()[number], plain_atlas(tmp_path, *plain_views())
    whole = word_page(replace(view, before=None, index=24 + number))
    (tmp_path / "whole.html").write_text(whole, encoding="utf-8")
    trees, datas, titles = [], [], []
    for where in (address + str(24 + number), (tmp_path / "whole.html").as_uri()):
        with watched(browser) as page:
            opened(page, where)
            trees.append(page.evaluate(TREE, "body"))
            datas.append(page.evaluate("JSON.parse(document.getElementById('view').textContent)"))
            titles.append(page.title())
            assert quiet(page)
    assert trees[0] == trees[1]
    assert titles[0] == titles[1]
    assert datas[0]["notes"] == [note.translate(OVERRIDES) for note in datas[1]["notes"]]
    assert datas[0]["map"] == datas[1]["map"]
    assert np.abs(np.array(datas[0]["numbers"]) - datas[1]["numbers"]).max() < 1 / 250


@BOTH
def test_hostile_sentences_are_text_on_a_plain_page(browser, tmp_path, size):
    """On a plain page, and in the file that its button saves, hostile sentences are shown and do nothing."""
    address, texts = plain_atlas(tmp_path, plain_views()[0]) + "24", plain_views()[0].sentences
    with watched(browser, size) as page:
        opened(page, address)
        with page.expect_download() as saving:
            page.get_by_role("button", name="Save this page as one file").click()
        assert saving.value.suggested_filename == "_b_bat_b_.html"
        saving.value.save_as(tmp_path / "elsewhere" / "saved.html")
        for where in (address, (tmp_path / "elsewhere" / "saved.html").as_uri()):
            opened(page, where)
            assert wider_than_screen(page) <= 0
            for i, text in enumerate(texts):
                assert point_at(page, 0, i) == str(i)
                assert said(page).startswith(clean(text))
            assert page.title() != "hacked"
            assert page.locator("img").count() == 0
        assert page.locator("a").count() == 0   # what is sent leads nowhere
        assert quiet(page)


def test_a_plain_page_says_what_it_lacks(browser, tmp_path):
    """Without its number, with a number that no word has, without the file beside it, and without scripts."""
    address = plain_atlas(tmp_path, toy_view("bat"))
    with watched(browser) as page:
        for asked in ("", "23", "25", "x", "24#at", "-1", "1e3"):
            page.goto("about:blank")
            page.goto(address + asked)
            if asked == "24#at":
                page.wait_for_selector("#view", state="attached")
            else:
                assert "No word has this number" in page.locator("#why").text_content()
        assert page.faults == []
        (tmp_path / block_name(24)).unlink()
        page.goto(address + "24")
        page.wait_for_function("document.getElementById('why').textContent.includes('plain-00024.js')")
    with watched(browser, java_script_enabled=False) as page:
        page.goto(address + "24")
        assert "needs JavaScript" in page.locator("body").inner_text()


@pytest.fixture
def hostile_run(tmp_path):
    """(run, hostile sentences): a run whose corpus has them; sentences over 1,000 characters are none."""
    from chains import TO_MODEL, small_corpus, tiny_transformer, work
    texts = [f"One night someone wrote {bad} upon the old wall" for bad in HOSTILE]
    texts = [text for text in texts if len(text) <= 1000]
    corpus = small_corpus(tmp_path / "corpus.txt", ("bat",), each=20)
    corpus.write_text(corpus.read_text(encoding="utf-8") + "\n".join(texts), encoding="utf-8")
    model = str(tiny_transformer(tmp_path / "transformer", 32, seed=5))
    run = open_run(tmp_path / "run", words=["bat", "wall"], corpus=[str(corpus)], dim=2, samples=100,
                   pictures=0, input_model=model, target_model=model)
    return work(run, *TO_MODEL, "atlas"), texts


def test_a_hostile_corpus_is_text_on_its_pages(browser, hostile_run):
    """Hostile sentences trained on are text on their word's page, and do nothing in the report."""
    from minicoil.pictures.report import write_report
    run, texts = hostile_run
    stored = {clean(" ".join(normalize_text(text).split())) for text in texts}   # as stage 11 stores them
    assert len(stored) >= 5
    with watched(browser) as page:
        opened(page, word_file(run, 0))
        listed = [clean(item) for item in page.locator("li[id]").all_text_contents()]
        assert all(listed.count(text) == 1 for text in stored)
        items = page.evaluate("""[...document.querySelectorAll('svg.plot use')].map(
            (_, i) => document.getElementById('s' + i).textContent)""")
        for i in [i for i, item in enumerate(items) if clean(item) in stored]:
            shown = int(point_at(page, 0, i))
            assert said(page).startswith(clean(items[shown]))
        for address in (page.url, atlas_file(run, "index.html"), write_report(run).as_uri()):
            page.goto(address)
            assert page.title() != "hacked"
            assert page.locator("img[src=x]").count() == 0
            assert quiet(page)


def test_hostile_text_is_text_in_the_report(browser, tmp_path):
    """The report of a run whose words, reasons and searches are hostile shows them as text."""
    from minicoil.pictures.report import write_report
    from minicoil.runs.run import Parameters, Run
    run, text = Run(tmp_path, Parameters(words=tuple(HOSTILE))), HOSTILE[0] + HOSTILE[1] + HOSTILE[5]
    hit = {"score": 1.0, "text": text, "words": [{"word": text, "contribution": 1.0}]}
    run.stage("sentences").path.mkdir()
    save_json(run.stage("sentences").path / "manifest.json", {"left_out": {text: text}, "files": {}})
    run.stage("search").path.mkdir()
    save_json(run.stage("search").path / "examples.json", [{"query": text, "hits": [hit]}])
    with watched(browser, PHONE) as page:
        page.goto(write_report(run).as_uri())
        assert page.title() != "hacked"
        assert page.locator("img").count() == 0
        assert quiet(page)
        assert clean(page.locator("body").text_content()).count(clean(HOSTILE[0])) >= 4
        assert wider_than_screen(page) <= 0


@BOTH
def test_the_report_of_a_run_opens(browser, run_folder, size):
    """`minicoil run` left a report that names every stage, describes its pictures and fits the screen."""
    with watched(browser, size) as page:
        page.goto((run_folder / "report.html").as_uri())
        text = page.locator("body").text_content()
        assert all(name in text for name in ("10_corpus", "22_training", "33_benchmark", "samples"))
        pictures = page.evaluate(
            "[...document.images].map(i => [i.complete && i.naturalWidth > 0, i.alt.length > 20])")
        assert len(pictures) > 3
        assert all(map(all, pictures))
        assert wider_than_screen(page) <= 0
        assert quiet(page)


@pytest.fixture(scope="module")
def explorer(model_folder):
    """(address of a live server, its model)."""
    from minicoil import MiniCOIL
    from minicoil.pictures.explore import explore_server
    with explore_server(MiniCOIL.load(model_folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", server.model
        server.shutdown()


def ask(page, address, text):
    """Type a text into the live page, send it, and wait for the page that answers."""
    page.goto(address)
    page.fill("#text", text)
    with page.expect_navigation():
        page.get_by_role("button").click()


LINKS = """[...document.querySelectorAll('tbody th a')].map(
  a => [a.textContent, a.href.split('#at=')[1].split(',').map(Number)])"""


def test_a_typed_sentence_lands_where_the_model_says(browser, explorer):
    """The numbers of a typed word are `embed_words`'s to 1e-4, and a star stands among the sentences."""
    address, model = explorer
    text = f"Nobody had seen the {model.words[0]} before, not even at night."
    with watched(browser) as page:
        ask(page, address, text)
        given = dict(page.evaluate(LINKS))[model.words[0]]
        assert np.abs(given - next(model.embed_words([text]))[model.words[0]]).max() < 1e-4
        assert page.locator("#typed mark").all_text_contents() == [model.words[0]]
        inside = page.frame_locator("iframe")
        inside.locator("polygon.star").wait_for()
        assert inside.locator("polygon.star").count() == 1
        assert inside.locator("#landed li").count() == 3
        assert quiet(page)


@BOTH
def test_two_typed_texts_are_compared(browser, explorer, size):
    """A shared word's meaning is the product of its numbers in both; a hostile second text is text."""
    address, model = explorer
    word = model.words[0]
    texts = [f"Nobody had seen the {word} before.", f"<img src=x> Where is the {word} & the rest?"]
    one, two = (found[word] for found in model.embed_words(texts))
    with watched(browser, size) as page:
        page.goto(address)
        page.fill("#other", texts[1])
        page.fill("#text", texts[0])
        with page.expect_navigation():
            page.get_by_role("button").click()
        row = page.locator("#compared tbody tr").filter(has_text=word).text_content()
        assert re.fullmatch(rf"{word}[+-]\d\.\d\d", row)
        assert float(row.removeprefix(word)) == pytest.approx(one @ two, abs=0.0051)  # rounded to two digits
        assert page.locator("#compared-with mark").all_text_contents() == [word]
        assert page.input_value("#other") == texts[1]
        assert page.locator("img").count() == 0
        assert wider_than_screen(page) <= 0
        assert quiet(page)


@pytest.mark.slow
def test_typed_sentences_land_in_a_broad_atlas(browser, broad_run):
    """Typed into the live page of 5,000 words, sentences get the numbers of a model loaded anew, to 1e-4."""
    from minicoil import MiniCOIL
    from minicoil.pictures.explore import explore_server
    folder, rng, drawn = broad_run.stage("model").path, random.Random(3), drawn_sentences(broad_run)
    ids = np.array([rng.choice(drawn[rng.randrange(len(drawn))][2].tolist()) for _ in range(10)])
    texts, model, worst = list(sentence_texts(broad_run, ids).values()), MiniCOIL.load(folder), 0.0
    with explore_server(MiniCOIL.load(folder)) as server, watched(browser) as page:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for text, wanted in zip(texts, model.embed_words(texts)):
            ask(page, f"http://127.0.0.1:{server.server_port}", text)
            links = dict(page.evaluate(LINKS))
            assert links.keys() == wanted.keys()
            assert len(wanted) > 0
            assert page.locator("#typed mark").count() >= len(wanted)
            gaps = [np.abs(links[word] - numbers).max() for word, numbers in wanted.items()]
            worst = max([worst, *gaps])
            page.frame_locator("iframe").locator("polygon.star").wait_for()
            assert page.frame_locator("iframe").locator("polygon.star").count() == 1
        server.shutdown()
        print(f"{len(texts)} sentences typed: at most {worst:.1e} from embed_words")
        assert worst < 1e-4
        assert quiet(page)


STAR = """() => {
  const corners = [...document.querySelector(".star").points];
  const mean = k => corners.reduce((sum, p) => sum + p[k], 0) / corners.length;
  return [mean("x"), mean("y")];
}"""


def test_a_star_stands_on_the_point_with_its_numbers(browser, run):
    """A stored sentence's own numbers put the star on its own point."""
    view = next(word_views(run, 0, 1))
    with watched(browser) as page:
        page.goto(word_file(run, 0) + "#at=" + ",".join(f"{v:.5f}" for v in view.numbers[5]))
        use = page.locator("svg.plot").last.locator("use").nth(5)
        place = np.array([float(use.get_attribute("x")), float(use.get_attribute("y"))])
        assert np.abs(page.evaluate(STAR) - place).max() < 1


@BOTH
def test_hostile_sentences_are_text_when_typed(browser, explorer, size):
    """What is typed comes back as text, in the box and below it; too much is refused in a sentence."""
    address, model = explorer
    with watched(browser, size) as page:
        for text in HOSTILE:
            typed = f"{model.words[0]} {text}".strip()
            ask(page, address, typed)
            assert page.input_value("#text") == typed.translate(OVERRIDES)
            assert clean(page.locator("#typed").text_content()) == clean(typed)
            assert page.title() != "hacked"
            assert page.locator("img").count() == 0
            assert wider_than_screen(page) <= 0
        assert quiet(page)
        page.evaluate("document.getElementById('text').removeAttribute('maxlength')")
        page.fill("#text", "x" * 20_001)
        with page.expect_navigation():
            page.get_by_role("button").click()
        assert "at most 20,000 characters" in page.locator("body").text_content()
