"""The explorer that runs in the reader's browser: the same vectors as everywhere, by static files alone."""
import contextlib
import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from browsing import DESKTOP, PHONE, watched, wider_than_screen

from minicoil import MiniCOIL
from minicoil.commands.golden import golden_lines
from minicoil.serving.factors import float_factors, int8_factors

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs"))
import explorer  # noqa: E402

QUERY, TEXT = "a bat at the river bank", "The bats left; a bat came back to the bank, and to its river."
OURS = {"normalize": True, "windows": True}
SENSES = {"bat": [{"name": "<b>cave</b>", "numbers": [1, 0, 0, 0]}]}


def multiplied(data, shape, word):
    """The encoder of a word as the browser makes it of the one file."""
    words, hidden, rank, dim = (shape[name] for name in ("words", "hidden", "rank", "dim"))
    inside = hidden * rank * shape["projected"]
    floats = np.frombuffer(data, np.float32, inside + words * dim)
    factors = np.frombuffer(data, np.int8, offset=floats.nbytes).reshape(rank, words, dim)
    factor = factors[:, word] * floats[inside:].reshape(words, dim)[word]
    return floats[:inside].reshape(hidden, rank) @ factor if inside else factor


def random_parts(words):
    """A projection (32, 6) and factors (words + 1, 6, 4) for so many words."""
    rng = np.random.default_rng(3)
    factors = rng.normal(size=(words + 1, 6, 4)).astype(np.float32)
    factors[0] = 0
    return rng.normal(size=(32, 6)).astype(np.float32), factors


def test_encoders_of_every_form_are_packed():
    """Encoders in int8 factors are kept to the bit; in float32, alone or as factors, to a hundredth."""
    projection, factors = random_parts(70)
    small = int8_factors(projection, factors)
    data, shape = explorer.flat_encoders(small)
    for word in (0, 1, 70):
        np.testing.assert_allclose(multiplied(data, shape, word), small[word], atol=1e-5)
    for weights in (float_factors(projection, factors), factors):
        data, shape = explorer.flat_encoders(weights)
        assert shape["projected"] == (weights is not factors)
        right = weights[33]
        np.testing.assert_allclose(multiplied(data, shape, 33), right, atol=0.02 * np.abs(right).max())


class Unpacking:
    """Numbers in int8 that are made when they are asked for."""

    def __init__(self, numbers):
        self.kept, self.shape = np.packbits(numbers > 0, axis=None), numbers.shape
        self.dtype = np.dtype(np.int8)

    def __getitem__(self, ids):
        signs = np.unpackbits(self.kept, count=int(np.prod(self.shape))).reshape(self.shape)
        return (2 * signs.astype(np.int8) - 1)[ids]


def test_numbers_of_a_bit_are_packed():
    """Numbers that a model keeps in bits are taken as they are; a wrong projection is noticed."""
    projection, factors = random_parts(60)
    weights = int8_factors(projection, factors)
    weights.numbers = Unpacking(weights.numbers)
    data, shape = explorer.flat_encoders(weights)
    for word in (1, 60):
        np.testing.assert_allclose(multiplied(data, shape, word), weights[word], atol=1e-5)

    class Wrong(type(weights)):
        def __getitem__(self, ids):
            return 2 * super().__getitem__(ids)

    with pytest.raises(ValueError, match="another one"):
        explorer.flat_encoders(Wrong(weights.projection, weights.numbers, weights.scales))


def test_without_npm_the_page_says_so(run_folder, tmp_path, monkeypatch, capsys):
    """The site is built without the explorer where npm is missing, and a line says so."""
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    for name in ("build", "source"):
        (tmp_path / name).mkdir()
    explorer.write_explorer(run_folder, tmp_path / "build", tmp_path / "source")
    assert "left out: npm" in capsys.readouterr().out
    assert "without npm" in (tmp_path / "source" / "explorer.md").read_text(encoding="utf-8")
    assert not (tmp_path / "build" / "extra").exists()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Files of a folder, without a log."""

    def log_message(self, *_):
        pass

    def copyfile(self, source, outputfile):
        with contextlib.suppress(ConnectionError):   # a browser ends a download
            super().copyfile(source, outputfile)


@contextlib.contextmanager
def served(folder):
    """The address of a server of a folder's files."""
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def work():
    """The folder with the packages and the bundled script."""
    if not (shutil.which("npm") and shutil.which("node")):
        pytest.skip("NO NODE: npm is not installed")
    try:
        return explorer.bundle(ROOT / "docs" / "_build" / "node")
    except explorer.NoNode as e:
        pytest.skip(f"NO NODE: {e}")


def written_model(work, folder, model, transformer):
    """The files of a site with the page's script and a model, in `folder`."""
    target, runtime = folder / "explorer" / "model", explorer.runtime_of(work)
    explorer.write_model(target, "demo", model, transformer, runtime, SENSES)
    explorer.write_script(work, folder / "explorer")
    (folder / "empty.html").write_text("<!doctype html><link rel=icon href=data:,><title>empty</title>")
    return folder


EMBED = """async ([asked, query, text]) => {
  const { compare, load } = await import("/explorer/page.js");
  const model = await load(new URL("/explorer/model/", location.href)), { reader } = model, found = [];
  for (const [text, ours] of asked) {
    const { indices, values } = await reader.embed(text, { ours });
    found.push([indices, values]);
  }
  return [found, await compare(model, query, text)];
}"""


def in_the_browser(browser, folder, asked):
    """[(indices, values)] of [(text, whether in our reading)], and `QUERY` and `TEXT` compared.

    Made in Chromium, by the files of a folder."""
    with served(folder) as address, watched(browser) as page:
        page.goto(f"{address}/empty.html")
        found, both = page.evaluate(EMBED, [asked, QUERY, TEXT])
        assert (page.faults, page.left) == ([], [])
    return found, both


@pytest.mark.slow
def test_the_browser_reproduces_the_golden_file(browser, work, model_folder, tmp_path):
    """With the transformer in float32: the indices of the golden file, and the values of its int8 part."""
    model = MiniCOIL.load(model_folder, threads=1)
    graph = (model_folder / "onnx" / "model.onnx").read_bytes()
    folder = written_model(work, tmp_path, model, graph)
    lines = list(golden_lines(model))
    asked = [(line["text"], ours) for line in lines for ours in (False, True)]
    right = [line[name] for line in lines for name in ("fastembed", "minicoil")]
    found, both = in_the_browser(browser, folder, asked)
    worst = 0.0
    for (text, _), (indices, values), read in zip(asked, found, right):
        assert indices == read["indices"], text
        worst = max(worst, np.abs(np.array(values) - read["int8"]).max(initial=0))
    print(f"largest difference of values: {worst:.2g}")
    assert worst < 1e-4
    rows = MiniCOIL.load(model_folder, threads=1, precision="int8_head").explain(QUERY, TEXT, **OURS)
    assert len(rows) == len(both["rows"]) == 3
    for mine, row in zip(both["rows"], rows):
        assert row == pytest.approx({name: mine[name] for name in row}, abs=1e-4)
    assert both["score"] == pytest.approx(sum(row["contribution"] for row in rows), abs=1e-4)


def unit_words(indices, values, dim, shift):
    """{word id: its numbers at length 1} of a sparse vector."""
    found = {}
    for index, value in zip(indices, values):
        if index < shift:
            found.setdefault(index // dim, []).append(value)
    return {word: np.array(row) / max(np.linalg.norm(row), 1e-9) for word, row in found.items()}


@pytest.mark.slow
def test_the_transformer_in_int8(browser, work, model_folder, tmp_path):
    """As the page has it, in int8: the indices of the golden file, and the meanings of its int8 part."""
    model = MiniCOIL.load(model_folder, threads=1)
    folder = written_model(work, tmp_path, model, explorer.int8_graph(model))
    lines = list(golden_lines(model))
    found, _ = in_the_browser(browser, folder, [(line["text"], True) for line in lines])
    cosines = []
    for line, (indices, values) in zip(lines, found):
        assert indices == line["minicoil"]["indices"], line["text"]
        mine = unit_words(indices, values, model.dim, model.shift)
        right = unit_words(indices, line["minicoil"]["int8"], model.dim, model.shift)
        cosines += [float(mine[word] @ right[word]) for word in mine]
    print(f"cosine to the golden file: mean {np.mean(cosines):.4f}, least {min(cosines):.4f}")
    assert np.mean(cosines) > 0.99
    assert min(cosines) > 0.9


@pytest.fixture(scope="module")
def page_folder(work, model_folder, tmp_path_factory):
    """A site of the one page, with a model whose transformer is in int8."""
    pytest.importorskip("myst_nb", reason="the site's packages are not installed: make docs does that")
    folder = tmp_path_factory.mktemp("site")
    model, source = MiniCOIL.load(model_folder, threads=1), folder / "source"
    written_model(work, folder / "extra", model, explorer.int8_graph(model))
    source.mkdir()
    (source / "index.md").write_text("# Site\n\n:::{toctree}\nexplorer\nformat\n20_senses\n:::\n")
    for name in ("format", "20_senses"):
        (source / f"{name}.md").write_text(f"# {name}\n")
    page = explorer.explorer_page(33_000_000, SENSES).replace("20_senses.ipynb", "20_senses.md")
    (source / "explorer.md").write_text(page, encoding="utf-8")
    settings = [f"html_extra_path={folder / 'extra'}", f"html_static_path={ROOT / 'docs' / '_static'}"]
    options = [part for setting in settings for part in ("-D", setting)]
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", "-c", str(ROOT / "docs"), *options]
    done = subprocess.run([*command, str(source), str(folder / "html")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "html"


def opened(page, address):
    """Press the button, and wait for the first answer."""
    page.goto(f"{address}/explorer.html")
    page.locator("#explorer-load").click()
    page.wait_for_selector("#explorer-answer table")


def compared(page, query, text):
    """What the page answers to two texts: rows of cells."""
    page.locator("#explorer-query").fill(query)
    page.locator("#explorer-text").fill(text)
    page.locator("#explorer-answer").evaluate("e => e.replaceChildren()")
    page.get_by_role("button", name="Compare").click()
    page.wait_for_selector("#explorer-answer p")
    rows = page.locator("#explorer-answer tr").all()
    return [[cell.inner_text() for cell in row.locator("th, td").all()] for row in rows]


def number(shown):
    """A number as the page shows it."""
    return float(shown.replace("−", "-"))


@pytest.mark.slow
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_two_texts_are_compared_on_the_page(browser, page_folder, model_folder, size):
    """Nothing is loaded before the button; the words are those of `explain`; the rows sum to the score."""
    with served(page_folder) as address, watched(browser, size) as page:
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{address}/explorer.html")
        assert not [url for url in asked if "/explorer/" in url and not url.endswith("/start.js")]
        assert "33 MB" in page.locator("#explorer-load").inner_text()
        opened(page, address)
        rows = compared(page, QUERY, TEXT)
        assert wider_than_screen(page) <= 0
        assert (page.faults, page.left) == ([], [])
    right = MiniCOIL.load(model_folder, threads=1).explain(QUERY, TEXT, **OURS)
    assert {row[0].split("\n")[0] for row in rows[1:-1]} == {row["word"] for row in right}
    assert any("in the query: <b>cave</b>" in row[0] for row in rows)
    bm25 = {row["word"]: row["bm25"] for row in right}
    for name, meaning, weight, adds in rows[1:-1]:
        assert number(weight) == pytest.approx(bm25[name.split("\n")[0]], abs=0.006)
        similarity = 1 if meaning == "unknown word" else number(meaning)
        assert number(adds) == pytest.approx(similarity * number(weight), abs=0.02)
    assert number(rows[-1][3]) == pytest.approx(sum(number(row[3]) for row in rows[1:-1]), abs=0.02)


@pytest.mark.slow
def test_hostile_texts_are_text(browser, page_folder):
    """Markup that is typed, or stands in a sense's name, is shown as it is."""
    script = "<script>document.title='hacked'</script>"
    hostile = f"<img src=x onerror=document.title='hacked'> bat </textarea>{script}"
    with served(page_folder) as address, watched(browser) as page:
        opened(page, address)
        compared(page, hostile, f"A bat. {hostile} zzyzx")
        assert "<b>cave</b>" in page.locator("#explorer-answer").inner_text()
        assert page.locator("#explorer-answer img, #explorer-answer script, #explorer-answer b").count() == 0
        assert page.title() != "hacked"
        assert page.faults == []
        assert compared(page, "", "") == []
        assert "share no word" in page.locator("#explorer-answer").inner_text()


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["missing", "cut", "damaged", "list"])
def test_what_cannot_be_loaded_is_said(browser, page_folder, tmp_path, broken):
    """A missing, a cut and a damaged file: one line says so, and the button can be pressed again."""
    folder = tmp_path / "site"
    shutil.copytree(page_folder, folder, copy_function=os.link)
    file = folder / "explorer" / "model" / ("model.json" if broken == "list" else "texts.bin")
    whole = file.read_bytes()
    file.unlink()
    changed = {"cut": whole[:-9], "damaged": whole[:500] + bytes(100) + whole[600:]}
    if broken in changed:
        file.write_bytes(changed[broken])
    with served(folder) as address, watched(browser) as page:
        page.goto(f"{address}/explorer.html")
        page.locator("#explorer-load").click()
        status = page.locator("#explorer-status")
        page.wait_for_function("document.getElementById('explorer-status').innerText.includes('could not')")
        assert len(status.inner_text().splitlines()) == 1
        assert page.locator("#explorer-form").is_hidden()
        file.write_bytes(whole)
        page.locator("#explorer-load").click()
        page.wait_for_selector("#explorer-answer table")


@pytest.mark.slow
def test_opened_from_disk_the_page_says_what_it_needs(browser, page_folder):
    """Browsers load no modules from disk: the page says so in one line, and makes no error."""
    with watched(browser) as page:
        page.goto((page_folder / "explorer.html").as_uri())
        page.locator("#explorer-load").click()
        page.wait_for_function("document.getElementById('explorer-status').innerText.includes('http.server')")
        assert page.faults == []
