"""What `make docs` runs: notebooks, how-to pages, reference, benchmarks and changelog → docs/_build/html.

Everything is made in docs/_build. Notebooks are executed once for what they and the package are now. Those of
the stages come from a finished run: outputs/demo if it fits, else a small run of its own. Packages of
npm are fetched, once, for the page that runs in the browser. A warning of Sphinx is an error."""
import hashlib
import html
import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from benchmarks import benchmark_page
from explorer import write_explorer
from reference import public_door, reference_pages

DOCS = Path(__file__).resolve().parent
ROOT, BUILD = DOCS.parent, DOCS / "_build"
SOURCE = BUILD / "source"
WORDS = "pitch,bat,bank,mouse/mice"
# The how-to pages in this order, others after them.
HOWTO = ["own-words", "own-corpus", "own-transformer", "search", "serving", "endpoint", "qdrant-server",
         "production", "other-engines", "langchain", "llamaindex", "haystack", "sentence-transformers",
         "mteb", "adding-words", "cluster"]


def fingerprint(*files):
    """A hash of files, names and contents."""
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file.name}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def notebooks():
    """The notebooks by name, in order."""
    return {p.stem: p for p in sorted((ROOT / "nbs").glob("*.ipynb"))}


def howto_notebooks():
    """The how-to pages that are notebooks, in order."""
    return sorted((DOCS / "howto").glob("*.ipynb"))


def code_of(path):
    """The code a notebook's author wrote, without what papermill put in."""
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    return [cell.source for cell in cells if "injected-parameters" not in cell.metadata.get("tags", [])]


def stage_notebooks():
    """The names of the stages' notebooks, in order."""
    from minicoil.runs.run import STAGES
    return [name for name, _ in STAGES.values()]


def stage_fits(run, name):
    """Whether a stage of a run is done and its notebook is as it is today."""
    done, shown = run / name / "manifest.json", run / "notebooks" / f"{name}.ipynb"
    return done.exists() and shown.exists() and code_of(shown) == code_of(ROOT / "nbs" / f"{name}.ipynb")


def fits(run):
    """Whether the run is finished and its notebooks are as they are today."""
    return all(stage_fits(run, name) for name in stage_notebooks())


def train():
    """A run of a few words in docs/_build, for the chapters to show."""
    shutil.rmtree(BUILD / "run", ignore_errors=True)
    print("docs: training a small model for the chapters to show", flush=True)
    command = [sys.executable, "-m", "minicoil", "run", "--words", WORDS, "--pictures", "4",
               "--out", str(BUILD / "run")]
    subprocess.run(command, check=True, cwd=ROOT, env=environment())
    return BUILD / "run"


def finished_run():
    """A finished run for the chapters to show: MINICOIL_DOCS_RUN, outputs/demo, or one made here."""
    given = os.environ.get("MINICOIL_DOCS_RUN")
    for run in ([Path(given)] if given else []) + [ROOT / "outputs" / "demo", BUILD / "run"]:
        if fits(run):
            return run
    return train()


def environment():
    """Where kernels find this checkout's package; one thread each, as two run at a time; nobody is told."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    quiet = {"HF_HUB_OFFLINE": "1", "HAYSTACK_TELEMETRY_ENABLED": "False", "LANGSMITH_TRACING": "false"}
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **quiet}


def imported(path):
    """What a module or a notebook names of the package, as dotted names without minicoil."""
    text = path.read_text(encoding="utf-8")
    found = set(re.findall(r"minicoil\.([a-z][\w.]*)(?: import|:)", text))   # or "minicoil.stages.x:name"
    if "from minicoil import" in text:
        found |= set(public_door(ROOT / "minicoil").values())
    if path.suffix == ".py":   # from ..runs.files import, from .pages import
        package = ".".join(path.relative_to(ROOT / "minicoil").parent.parts)
        found |= set(re.findall(r"from \.\.([a-z][\w.]*) import", text))
        found |= {f"{package}.{name}" for name in re.findall(r"from \.([a-z][\w.]*) import", text)}
    return found


def beneath(path):
    """The modules that a notebook stands on: those it imports, and those that they import."""
    homes = {".".join(p.relative_to(ROOT / "minicoil").with_suffix("").parts): p
             for p in (ROOT / "minicoil").rglob("*.py") if p.name != "_modidx.py"}
    found, left = set(), imported(path)
    while left:
        name = left.pop()
        if name in homes and name not in found:
            found.add(name)
            left |= imported(homes[name])
    return sorted(homes[name] for name in found)


def execute(path, target):
    """Execute the notebook at `path` in nbs/, and write it to `target`."""
    from nbclient import NotebookClient
    print(f"docs: executing {path.stem}", flush=True)
    notebook = nbformat.read(path, 4)
    client = NotebookClient(notebook, kernel_name="python3", timeout=900,
                            extra_arguments=["--IPKernelApp.log_level=50"],
                            resources={"metadata": {"path": str(ROOT / "nbs")}})
    client.execute(env=environment())
    target.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, target)


def executed(path):
    """The notebook executed, from the cache where it, its modules and the results have not changed.

    That of a how-to page stands on other packages too.
    """
    howto, data = path.parent.name == "howto", ROOT / "minicoil" / "data"
    files = [p for p in data.iterdir() if p.is_file()] + list(data.glob("english/manifest.json"))
    more = [ROOT / "constraints.txt"] if howto else (ROOT / "results").glob("*.json")
    key, home = fingerprint(path, *beneath(path), *files, *more), BUILD / "executed" / ("howto" * howto)
    cached, stamp = home / path.name, home / f"{path.stem}.key"
    if not (stamp.exists() and stamp.read_text() == key):
        execute(path, cached)
        stamp.write_text(key)
    return cached


def all_executed(run):
    """{name: path of the executed notebook}, two executed at a time."""
    staged = {name: run / "notebooks" / f"{name}.ipynb" for name in stage_notebooks()}
    others = {name: path for name, path in notebooks().items() if name not in staged}
    with ThreadPoolExecutor(2) as pool:
        return dict(sorted({**staged, **dict(zip(others, pool.map(executed, others.values())))}.items()))


def alternative(prose, limit=300):
    """Alternative text of a picture: the last prose before it, which says what is to be seen."""
    text = re.sub(r"^#.*$", "", prose, flags=re.M)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*>|]", r"\1", text)
    text = " ".join(text.split())
    text = text if len(text) <= limit else text[:limit].rsplit(" ", 1)[0] + " …"
    return text or "A picture, explained in the text around it"


def formula(tex, number, folder):
    """A formula as an SVG file drawn by matplotlib, so that no script and no network is needed to read it."""
    from matplotlib.mathtext import math_to_image
    folder.mkdir(parents=True, exist_ok=True)
    plain = re.sub(r"\\[bB]igg?[lr]?(?![A-Za-z])", "", tex)   # TeX that matplotlib does not know
    plain = re.sub(r"\\[lr](Vert|vert)(?![A-Za-z])", r"\\\1", plain)
    plain = re.sub(r"\\frac(\w)(\w)", r"\\frac{\1}{\2}", plain)
    drawn = f"${' '.join(plain.split()).rstrip('. ')}$"
    math_to_image(drawn, folder / f"formula-{number}.svg", format="svg")
    alt = re.sub(r"([\\\[\]*_])", r"\\\1", tex.strip())
    return f"![{alt}](formulas/formula-{number}.svg){{.formula}}"


def shown_code(source):
    """(code without nbdev's directives, whether it is hidden, whether it is folded)."""
    marks = set(re.findall(r"^#\|\s*(\w+)", source, re.M))
    lines = [line for line in source.split("\n") if not line.startswith("#|")]
    return "\n".join(lines).strip("\n"), "hide" in marks or not "".join(lines).strip(), "export" in marks


def live_plot(data, said):
    """HTML of a plotly output, drawn by the site's own copy of plotly."""
    import plotly.io as pio
    figure = pio.from_json(json.dumps({k: v for k, v in data.items() if k in ("data", "layout")}))
    config = {"displaylogo": False, "responsive": True}
    inside = pio.to_html(figure, full_html=False, include_plotlyjs=False, config=config)
    return (f'<script src="_static/plotly.min.js"></script><div class="plotly-live" role="img" '
            f'aria-label="{html.escape(said)}">{inside}</div>'
            "<noscript>This plot needs JavaScript.</noscript>")


def shown_data(data, secret):
    """The forms of an output as readers may see them: no paths of this machine, plots live."""
    data = {k: secret(v) if isinstance(v, str) and k.startswith("text/") else v for k, v in data.items()}
    plot = data.pop("application/vnd.plotly.v1+json", None)
    return {"text/html": live_plot(plot, data.get("text/plain", "A plot"))} if plot else data


def outputs_of(cell, secret):
    """A cell's outputs as readers may see them, without progress bars."""
    kept = []
    for output in cell.outputs:
        if output.output_type == "error":
            raise SystemExit(f"docs: a notebook failed: {output.ename}: {output.evalue}")
        if output.output_type == "stream":
            if output.name == "stdout":
                kept.append({**output, "text": secret(output.text)})
            continue
        kept.append({**output, "data": shown_data(output.data, secret)})
    return [nbformat.from_dict(o) for o in kept]


class Formulas:
    """Draws the formulas of a chapter, numbered in their order."""

    def __init__(self, chapter):
        self.chapter, self.number = chapter, 0

    def __call__(self, found):
        self.number += 1
        return formula(found[1], f"{self.chapter}-{self.number}", SOURCE / "formulas")

    def drawn(self, prose):
        """Prose with its formulas as pictures, and the gallery where the site has it."""
        text = re.sub(r"\$\$(.+?)\$\$", self, prose, flags=re.S)
        return text.replace("](../outputs/gallery/", "](gallery/")


def parameters_shown(source, tags, injected):
    """The code of a cell of parameters as a reader would run it; None where papermill's cell replaces it."""
    if "parameters" in tags and injected:
        return None
    if "injected-parameters" in tags:
        return re.sub(r"^run_dir = .*$", 'run_dir = "outputs/demo"', source, flags=re.M)
    return source


def code_cell(cell, prose, injected, secret):
    """A code cell as the site shows it, or None."""
    source, hidden, folded = shown_code(cell.source)
    source = parameters_shown(source, cell.metadata.get("tags", []), injected)
    outputs = outputs_of(cell, secret)
    if source is None or hidden and not outputs:
        return None
    new = nbformat.v4.new_code_cell(secret(source), execution_count=cell.execution_count, outputs=outputs)
    tags = ["remove-input"] if hidden else ["hide-input"] if folded else []
    new.metadata = {"mystnb": {"image": {"alt": alternative(prose)}}, "tags": tags}
    return new


PYTHON = {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"},
          "language_info": {"name": "python"}}


def chapter(path, secret):
    """An executed notebook as a page of the site."""
    notebook, cells, prose, formulas = nbformat.read(path, 4), [], "", Formulas(path.stem)
    injected = any("injected-parameters" in c.metadata.get("tags", []) for c in notebook.cells)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            prose = cell.source
            cells.append(nbformat.v4.new_markdown_cell(formulas.drawn(prose)))
        else:
            cells.append(code_cell(cell, prose, injected, secret))
    notebook.cells, notebook.metadata = [cell for cell in cells if cell], PYTHON
    return notebook


class Secret:
    """Calls the run's folder, the project and the home by what readers know."""

    def __init__(self, run):
        self.places = [(str(run), "outputs/demo"), (str(ROOT), "."), (str(Path.home()) + "/", "~/")]

    def __call__(self, text):
        for place, name in self.places:
            text = text.replace(place, name)
        return re.sub(r"/tmp/[\w./-]*", "/tmp/…", text)


LIVE = """## The pages themselves

<p>The <a href="atlas/30_atlas/index.html">atlas of this run</a>, and its
<a href="atlas/report.html">report</a>. One page of it, live:</p>

<iframe class="live" title="The first word's page in the atlas"
src="atlas/30_atlas/words/word-00000.html"></iframe>
"""


def write_chapters(paths, run):
    """Every chapter into the sources, the table of contents below the first, the live atlas below its own."""
    for name, path in paths.items():
        page = chapter(path, Secret(run))
        below = {"index": contents(paths), "30_atlas": LIVE.strip()}.get(name)
        if below:
            page.cells.append(nbformat.v4.new_markdown_cell(below))
        nbformat.write(page, SOURCE / f"{name}.ipynb")


PARTS = {  # of the book, by the number of their first chapter
    "The book: foundations": 0,
    "The book: training": 10,
    "The book: retrieval": 25,
    "The book: pictures and search": 30,
    "The book: commands": 34,
    "The book: research": 50,
}


def book_parts(names):
    """{title of a part: its chapters}, in order."""
    found = {title: [] for title in PARTS}
    for name in names:
        number = int(name.partition("_")[0])
        found[max((first, title) for title, first in PARTS.items() if first <= number)[1]].append(name)
    return found


def contents(paths):
    """The site's table of contents, at the end of its first page."""
    order = {name: place for place, name in enumerate(HOWTO)}
    howto = [path.stem for path in [*(DOCS / "howto").glob("*.md"), *howto_notebooks()]]
    howto.sort(key=lambda name: (order.get(name, len(HOWTO)), name))
    parts = {
        "How to": ["explorer", *(f"howto/{name}" for name in howto)],
        **book_parts(name for name in paths if name != "index"),
        "Reference": ["reference/index", "format", "benchmarks", "promises", "versions", "changelog"],
    }
    trees = [[":::{toctree}", ":hidden:", f":caption: {title}", "", *names, ":::"]
             for title, names in parts.items()]
    return "\n\n".join("\n".join(lines) for lines in trees)


def write_static(run):
    """plotly, the gallery, the atlas and the report, as they are."""
    from plotly.offline import get_plotlyjs
    (BUILD / "static").mkdir(parents=True, exist_ok=True)
    (BUILD / "static" / "plotly.min.js").write_text(get_plotlyjs(), encoding="utf-8")
    shutil.copytree(ROOT / "outputs" / "gallery", SOURCE / "gallery")
    shutil.rmtree(BUILD / "extra", ignore_errors=True)
    shutil.copytree(run / "30_atlas", BUILD / "extra" / "atlas" / "30_atlas")
    shutil.copy(run / "report.html", BUILD / "extra" / "atlas" / "report.html")


def on_site(page):
    """A how-to page with the site's links; in the repository they lead to nbs/ and results/."""
    return page.replace("](../../nbs/", "](../").replace("](../../results/)", "](../benchmarks.md)")


def write_howto_notebooks(secret):
    """The how-to pages that are notebooks, executed two at a time."""
    (SOURCE / "howto").mkdir(exist_ok=True)
    with ThreadPoolExecutor(2) as pool:
        for path in pool.map(executed, howto_notebooks()):
            page = chapter(path, secret)
            for cell in page.cells:
                if cell.cell_type == "markdown":
                    cell.source = on_site(cell.source)
            nbformat.write(page, SOURCE / "howto" / path.name)


def write_pages():
    """The pages that are no chapters: how-to, changelog, promises, versions, benchmarks and reference."""
    (SOURCE / "howto").mkdir(exist_ok=True)
    for path in (DOCS / "howto").glob("*.md"):
        (SOURCE / "howto" / path.name).write_text(on_site(path.read_text(encoding="utf-8")), encoding="utf-8")
    shutil.copy(ROOT / "CHANGELOG.md", SOURCE / "changelog.md")
    for name in ("promises.md", "versions.md", "format.md"):
        shutil.copy(DOCS / name, SOURCE / name)
    (SOURCE / "benchmarks.md").write_text(benchmark_page(ROOT / "results"), encoding="utf-8")
    (SOURCE / "reference").mkdir()
    for name, text in reference_pages(ROOT / "minicoil").items():
        (SOURCE / "reference" / f"{name}.md").write_text(text, encoding="utf-8")


def main():
    """Sources, then Sphinx; leaves with Sphinx's exit code."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    SOURCE.mkdir(parents=True)
    run = finished_run()
    write_chapters(all_executed(run), run)
    write_static(run)
    write_howto_notebooks(Secret(run))
    write_pages()
    write_explorer(run, BUILD, SOURCE)
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-c", str(DOCS),
               "-d", str(BUILD / "doctrees"), str(SOURCE), str(BUILD / "html")]
    code = subprocess.run(command, env={**os.environ, "PYTHONWARNINGS": "ignore"}).returncode
    print(f"docs: {BUILD / 'html' / 'index.html'}" if not code else f"docs: Sphinx ended with {code}")
    sys.exit(code)


if __name__ == "__main__":
    main()
