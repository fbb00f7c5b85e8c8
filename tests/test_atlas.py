"""The atlas, the report and the live page in a browser: what is pointed at is what is shown, and nothing else happens.

Slow tests use an atlas of 5,000 words: of the run MINICOIL_TEST_BROAD, or of one made here, with made-up sentences and a random transformer."""
import os
import random
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browsing import DESKTOP, PHONE, watched, wider_than_screen

from minicoil.pictures.atlas import file_name, index_page, index_row, word_page
from minicoil.pictures.pages import OVERRIDES
from minicoil.pictures.views import WordView, word_views
from minicoil.runs.files import save_json
from minicoil.runs.run import open_run
from minicoil.stages.sentences import sentence_texts
from minicoil.stages.store import drawn_sentences

HOSTILE = ["</script><script>document.title='hacked'</script> the bat", "<img src=x onerror=\"document.title='hacked'\"> the bat", "{{7*7}} ${7*7} %{x} the bat",
           "\"the\" 'bat' `bat` &lt;b&gt; &amp; bat", "\u200f\u202e bat \u05e9\u05dc\u05d5\u05dd", "bat " + "endless " * 1250]
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
    run = open_run(folder / "run", corpus=[str(made_up_corpus(folder / "corpus.txt", 5600))], top_words=5000, dim=4, samples=20, objective="fit", pictures=4, input_model=model, target_model=model)
    return work(run, *TO_MODEL, "atlas")


def point_at(page, view, i):
    """Move the pointer to point i of a view; on a phone, tap it. Returns the number of the sentence that is shown."""
    x, y = page.evaluate("""([view, i]) => { const svg = document.querySelectorAll("svg.plot")[view], use = svg.querySelectorAll("use")[i]; svg.scrollIntoView({block: "start"});
        const at = new DOMPoint(+use.getAttribute("x"), +use.getAttribute("y")).matrixTransform(svg.getScreenCTM()); return [at.x, at.y]; }""", [view, i])
    page.touchscreen.tap(x, y) if page.viewport_size == PHONE else page.mouse.move(x, y)
    return page.evaluate("document.getElementById('said').dataset.i ?? null")


def lit(page):
    """Per view the number of the point that is ringed, or a list of those at its place."""
    return page.evaluate("""[...document.querySelectorAll("svg.plot")].map(svg => { const ring = svg.querySelector(".ring"); if (!ring) return [];
        return [...svg.querySelectorAll("use")].flatMap((use, i) => use.getAttribute("x") === ring.getAttribute("cx") && use.getAttribute("y") === ring.getAttribute("cy") ? [i] : []); })""")


def clean(text):
    """A text as a page shows it: overriding characters replaced, white space as the browser has it."""
    return " ".join(text.translate(OVERRIDES).split())


@BOTH
def test_pointing_shows_the_stored_sentence_in_every_view(browser, run, size):
    """Of 20 random points on four pages each one's stored sentence is shown, and the same sentence is ringed in every view; no request leaves, no error."""
    rng = random.Random(0)
    for view in word_views(run, 0, 4):
        with watched(browser, size) as page:
            page.goto((run.stage("atlas").path / "words" / file_name(view.index, "html")).as_uri())
            plots = page.locator("svg.plot").count()
            assert plots == (1 if view.before is None else 2)
            for n, i in enumerate(rng.sample(range(len(view.sentences)), 5)):
                shown, rings = int(point_at(page, n % plots, i)), lit(page)
                assert i in rings[n % plots] and all(shown in ring for ring in rings)   # points may lie on top of each other
                said = clean(page.locator("#said").text_content())
                assert said.startswith(clean(view.sentences[shown])) and view.names[view.clusters[shown]] in said
                assert page.locator("#said mark").first.text_content() == view.sentences[shown][slice(*view.spans[shown][0])]
            assert page.faults == page.left == [] and wider_than_screen(page) <= 0


def test_the_label_hides_no_ring(browser, run):
    """The label beside the pointer covers the pointed sentence in neither view."""
    view = next(word_views(run, 0, 1))
    with watched(browser) as page:
        page.goto((run.stage("atlas").path / "words" / file_name(0, "html")).as_uri())
        for n, i in enumerate(random.Random(4).sample(range(len(view.sentences)), 30)):
            point_at(page, n % 2, i)
            boxes = page.evaluate("[...document.querySelectorAll('#tip, .ring')].map(e => e.getBoundingClientRect().toJSON())")
            tip, rings = next(b for b in boxes if b["width"] > 60), [b for b in boxes if b["width"] < 60]
            assert len(rings) == 2 and not any(r["right"] > tip["left"] and r["left"] < tip["right"] and r["bottom"] > tip["top"] and r["top"] < tip["bottom"] for r in rings)


def test_keys_do_what_the_pointer_does(browser, run):
    """Arrow keys walk over the sentences, Enter finds the sentence in the list, Escape lets it go."""
    with watched(browser) as page:
        page.goto((run.stage("atlas").path / "words" / file_name(0, "html")).as_uri())
        page.keyboard.press("Tab"), page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.matches('svg.plot')")
        seen = set()
        for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"):
            page.keyboard.press(key)
            seen.add(page.evaluate("document.getElementById('said').dataset.i"))
        assert len(seen) > 2
        page.keyboard.press("Enter")
        assert page.locator("li.lit").is_visible()
        page.keyboard.press("Escape")
        assert page.locator(".ring").count() == 0 and page.faults == []


@BOTH
def test_the_index_finds_a_word(browser, run, size):
    """The index has a row and a page for every word; a search leaves the word asked for; sorting orders the rows."""
    words = run.stage("training").manifest["words"]
    with watched(browser, size) as page:
        page.goto((run.stage("atlas").path / "index.html").as_uri())
        assert page.locator("tbody tr").count() == len(words)
        page.fill("#search", words[1])
        assert words[1] in page.locator("tbody tr:visible th").all_text_contents()[0] and page.locator("tbody tr:visible").count() < len(words)
        page.fill("#search", "")
        page.get_by_role("button", name="sentences").click()
        numbers = [int(n) for n in page.evaluate("[...document.querySelectorAll('tbody tr')].map(r => r.cells[1].dataset.value)")]
        assert numbers == sorted(numbers) and len(numbers) == len(words)
        assert wider_than_screen(page) <= 0
        page.locator("tbody th a").first.click()
        assert page.locator("svg.plot").count() and page.faults == page.left == []


def toy_view(word, index=0, sentences=None, n=60):
    """A view of made-up numbers."""
    rng = np.random.default_rng(index)
    sentences = sentences or [f"Sentence {i} with a bat." for i in range(n)]
    half = np.arange(len(sentences)) % 2
    spans = [[(t.index("bat"), t.index("bat") + 3)] for t in sentences]
    return WordView(word, index, sentences, spans, half, [f"left{index}", "right"], rng.normal(size=(len(half), 2)), np.c_[half - .5, rng.normal(size=(len(half), 3)) / 9], 0.9)


@pytest.mark.slow
@BOTH
def test_a_broad_atlas_shows_the_stored_rows(browser, broad_run, size):
    """Among 5,000 words, pointing at 20 random points, each in both views, shows the corpus's own row and rings it in the other view; so do 20 on plain pages."""
    rng, drawn, pictures = random.Random(1), drawn_sentences(broad_run), broad_run.stage("senses").manifest["pictures"]
    assert len(drawn) >= 5000 and pictures > 0
    with watched(browser, size) as page:
        for index in [rng.randrange(pictures) for _ in range(20)] + [rng.randrange(pictures, len(drawn)) for _ in range(20)]:
            ids = drawn[index][2]
            page.goto((broad_run.stage("atlas").path / "words" / file_name(index, "html")).as_uri())
            points = page.locator("svg.plot").first.locator("use").count()
            plots, i = page.locator("svg.plot").count(), rng.randrange(points)
            assert plots == (2 if index < pictures else 1) and points == min(len(ids), len(ids) if plots == 2 else 100)
            for view in range(plots):
                shown, rings = int(point_at(page, view, i)), lit(page)
                stored = sentence_texts(broad_run, ids[[shown]])[ids[shown]]
                assert clean(page.locator("#said").text_content()).startswith(clean(stored) + " (")
                assert i in rings[view] and all(shown in ring for ring in rings)
        assert page.faults == page.left == [] and wider_than_screen(page) <= 0


@pytest.mark.slow
@BOTH
def test_a_broad_index_is_used(browser, broad_run, size):
    """The index of 5,000 real rows finds a word within 2 s of loading, the best of three times; it sorts, and leads to the word's page. Says how long it took."""
    drawn, waits = drawn_sentences(broad_run), []
    for index in random.Random(2).sample(range(len(drawn)), 3):
        with watched(browser, size) as page:
            begin = time.perf_counter()
            page.goto((broad_run.stage("atlas").path / "index.html").as_uri(), wait_until="load")
            loaded = time.perf_counter()
            page.fill("#search", drawn[index][0])
            assert drawn[index][0] in page.locator("tbody tr:visible th a").all_text_contents()
            found = time.perf_counter()
            waits.append(found - loaded)
            page.fill("#search", "")
            page.get_by_role("button", name="separation").click()
            kept = [float(v) for v in page.evaluate("[...document.querySelectorAll('tbody tr')].map(r => r.cells[2].dataset.value)")]
            ordered = time.perf_counter()
            print(f"{len(drawn):,} words, {size['width']} px: loaded in {loaded - begin:.2f} s; a word found {found - loaded:.2f} s after that; sorted {ordered - found:.2f} s after that")
            assert kept == sorted(kept) and len(kept) == len(drawn) and wider_than_screen(page) <= 0
            page.fill("#search", drawn[index][0])
            page.get_by_role("link", name=drawn[index][0], exact=True).first.click()
            assert page.locator("h1").text_content().startswith(f"{drawn[index][0]}: ") and page.faults == page.left == []
    assert min(waits) <= 2   # the issue asks for it; the best of three, as other processes may be at work


def test_five_thousand_words_are_searched(browser, tmp_path):
    """An index of 5,000 words finds one of them, by its name and by a telling word."""
    rows = [index_row(replace(toy_view("x", i % 7, n=20), word=f"word{i}", index=i, names=[f"sense{i}", "other"])) for i in range(5000)]
    (tmp_path / "index.html").write_text(index_page(rows, 0), encoding="utf-8")
    with watched(browser) as page:
        page.goto((tmp_path / "index.html").as_uri())
        for asked in ("word4321", "sense4321"):
            page.fill("#search", asked)
            assert page.locator("tbody tr:visible").count() == 1 and page.locator("#count").text_content() == "1 of 5000 words"
            assert page.locator("tbody tr:visible a").text_content() == "word4321"


def test_hostile_sentences_are_text_in_the_atlas(browser, tmp_path):
    """Markup, braces, quotes, marks of direction and 10,000 characters are shown as they are and do nothing."""
    view = toy_view("<b>bat</b>", sentences=HOSTILE)
    view.names[:] = HOSTILE[:2]
    (tmp_path / "page.html").write_text(word_page(view), encoding="utf-8")
    (tmp_path / "index.html").write_text(index_page([index_row(view)], 1), encoding="utf-8")
    with watched(browser) as page:
        page.goto((tmp_path / "page.html").as_uri())
        for i, text in enumerate(HOSTILE):
            assert point_at(page, 0, i) == str(i)
            assert clean(page.locator("#said").text_content()).startswith(clean(text))
        assert page.title() != "hacked" and page.locator("img").count() == 0 and page.faults == [] and wider_than_screen(page) <= 0
        page.goto((tmp_path / "index.html").as_uri())
        assert page.locator("tbody th a").text_content() == "<b>bat</b>" and page.title() != "hacked" and page.faults == []


def test_a_hostile_corpus_is_text_on_its_pages(browser, tmp_path):
    """Hostile sentences of a corpus, drawn and trained on, stand as they were in the atlas's page of their word; the run's report has no markup of theirs."""
    from chains import TO_MODEL, small_corpus, tiny_transformer, work

    from minicoil.pictures.report import write_report
    texts = [t for t in (f"One night someone wrote {bad} upon the old wall" for bad in HOSTILE) if len(t) <= 1000]   # longer sentences are none, see 11_sentences
    corpus = small_corpus(tmp_path / "corpus.txt", ("bat",), each=20)
    corpus.write_text(corpus.read_text(encoding="utf-8") + "\n".join(texts), encoding="utf-8")
    model = str(tiny_transformer(tmp_path / "transformer", 32, seed=5))
    run = open_run(tmp_path / "run", words=["bat", "wall"], corpus=[str(corpus)], dim=2, samples=100, pictures=0, input_model=model, target_model=model)
    work(run, *TO_MODEL, "atlas")
    stored = [" ".join(t.split()) for t in texts]
    with watched(browser) as page:
        page.goto((run.stage("atlas").path / "words" / file_name(0, "html")).as_uri())
        shown = page.locator("li[id]").all_text_contents()
        assert len(stored) >= 5 and all(sum(clean(t) == clean(item) for item in shown) == 1 for t in stored)
        for i in (i for i, item in enumerate(page.evaluate("[...document.querySelectorAll('svg.plot use')].map((_, i) => document.getElementById('s' + i).textContent)")) if clean(item) in map(clean, stored)):
            shown = int(point_at(page, 0, i))
            assert clean(page.locator("#said").text_content()).startswith(clean(page.locator(f"#s{shown}").text_content()))
        for address in (page.url, (run.stage("atlas").path / "index.html").as_uri(), write_report(run).as_uri()):
            page.goto(address)
            assert page.title() != "hacked" and page.locator("img[src=x]").count() == 0 and page.faults == page.left == []


def test_hostile_text_is_text_in_the_report(browser, tmp_path):
    """The report of a run whose words, reasons and searches are hostile shows them as text."""
    from minicoil.pictures.report import write_report
    from minicoil.runs.run import Parameters, Run
    run, text = Run(tmp_path, Parameters(words=tuple(HOSTILE))), HOSTILE[0] + HOSTILE[1] + HOSTILE[5]
    run.stage("sentences").path.mkdir()
    save_json(run.stage("sentences").path / "manifest.json", {"left_out": {text: text}, "files": {}})
    run.stage("search").path.mkdir()
    save_json(run.stage("search").path / "examples.json", [{"query": text, "hits": [{"score": 1.0, "text": text, "words": [{"word": text, "contribution": 1.0}]}]}])
    with watched(browser, PHONE) as page:
        page.goto(write_report(run).as_uri())
        assert page.title() != "hacked" and page.locator("img").count() == 0 and page.faults == page.left == []
        assert clean(page.locator("body").text_content()).count(clean(HOSTILE[0])) >= 4 and wider_than_screen(page) <= 0


@BOTH
def test_the_report_of_a_run_opens(browser, run_folder, size):
    """`minicoil run` has left a report that names every stage, whose pictures are in it and described, and that fits the screen."""
    with watched(browser, size) as page:
        page.goto((run_folder / "report.html").as_uri())
        text = page.locator("body").text_content()
        assert all(name in text for name in ("10_corpus", "22_training", "33_benchmark", "samples"))
        pictures = page.evaluate("[...document.images].map(i => [i.complete && i.naturalWidth > 0, i.alt.length > 20])")
        assert len(pictures) > 3 and all(map(all, pictures)) and wider_than_screen(page) <= 0 and page.faults == page.left == []


@pytest.fixture(scope="module")
def explorer(model_folder):
    """(address of a live server, its model)."""
    from minicoil import MiniCOIL
    from minicoil.pictures.explore import explore_server
    with explore_server(MiniCOIL.load(model_folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", server.model
        server.shutdown()


def test_a_typed_sentence_lands_where_the_model_says(browser, explorer):
    """The numbers behind a typed word are `embed_words`'s to 1e-4, and a star stands among the word's sentences."""
    address, model = explorer
    text = f"Nobody had seen the {model.words[0]} before, not even at night."
    with watched(browser) as page:
        page.goto(address)
        page.fill("#text", text)
        page.get_by_role("button").click()
        link = page.locator("tbody th a").first.get_attribute("href")
        given = np.array([float(v) for v in link.split("#at=")[1].split(",")])
        assert np.abs(given - next(model.embed_words([text]))[model.words[0]]).max() < 1e-4
        assert page.locator("#typed mark").all_text_contents() == [model.words[0]]
        inside = page.frame_locator("iframe")
        assert inside.locator("polygon.star").count() == 1 and inside.locator("#landed li").count() == 3
        assert page.faults == page.left == []


@pytest.mark.slow
def test_typed_sentences_land_in_a_broad_atlas(browser, broad_run):
    """For stored sentences typed into the live page of 5,000 words, every word's numbers are `embed_words`'s of a model loaded anew, to 1e-4, and all are marked."""
    from minicoil import MiniCOIL
    from minicoil.pictures.explore import explore_server
    folder, rng, drawn = broad_run.stage("model").path, random.Random(3), drawn_sentences(broad_run)
    ids = np.array([rng.choice(drawn[rng.randrange(len(drawn))][2].tolist()) for _ in range(10)])
    texts, model, worst = list(sentence_texts(broad_run, ids).values()), MiniCOIL.load(folder), 0
    with explore_server(MiniCOIL.load(folder)) as server, watched(browser) as page:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for text, wanted in zip(texts, model.embed_words(texts)):
            page.goto(f"http://127.0.0.1:{server.server_port}")
            page.fill("#text", text)
            page.get_by_role("button").click()
            links = {a["word"]: a["at"] for a in page.evaluate("[...document.querySelectorAll('tbody th a')].map(a => ({word: a.textContent, at: a.href.split('#at=')[1].split(',').map(Number)}))")}
            assert links.keys() == wanted.keys() and len(wanted) > 0 and page.locator("#typed mark").count() >= len(wanted)
            worst = max([worst, *(np.abs(np.array(links[word]) - numbers).max() for word, numbers in wanted.items())])
            assert page.frame_locator("iframe").locator("polygon.star").count() == 1
        server.shutdown()
        print(f"{len(texts)} sentences typed: at most {worst:.1e} from embed_words")
        assert worst < 1e-4 and page.faults == page.left == []


def test_a_star_stands_on_the_point_with_its_numbers(browser, run):
    """A stored sentence's own numbers put the star on its own point."""
    view = next(word_views(run, 0, 1))
    with watched(browser) as page:
        page.goto((run.stage("atlas").path / "words" / file_name(0, "html")).as_uri() + "#at=" + ",".join(f"{v:.5f}" for v in view.numbers[5]))
        centre = page.evaluate("(() => { const b = document.querySelector('.star').points, m = k => [...b].reduce((s, p) => s + p[k], 0) / b.length; return [m('x'), m('y')]; })()")
        use = page.locator("svg.plot").last.locator("use").nth(5)
        assert np.abs(np.array(centre) - [float(use.get_attribute("x")), float(use.get_attribute("y"))]).max() < 1


@BOTH
def test_hostile_sentences_are_text_when_typed(browser, explorer, size):
    """What is typed comes back as text, in the box and below it; too much is refused in a sentence."""
    address, model = explorer
    with watched(browser, size) as page:
        for text in HOSTILE:
            typed = f"{model.words[0]} {text}".strip()
            page.goto(address)
            page.fill("#text", typed)
            page.get_by_role("button").click()
            assert page.input_value("#text") == typed.translate(OVERRIDES) and clean(page.locator("#typed").text_content()) == clean(typed)
            assert page.title() != "hacked" and page.locator("img").count() == 0 and wider_than_screen(page) <= 0
        assert page.faults == page.left == []
        page.evaluate("document.getElementById('text').removeAttribute('maxlength')")
        page.fill("#text", "x" * 20_001)
        page.get_by_role("button").click()
        assert "at most 20,000 characters" in page.locator("body").text_content()
