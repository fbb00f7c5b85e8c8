"""What `make docs` runs: executed notebooks, how-to pages, reference, benchmarks and changelog → docs/_build/html.

Everything is made in docs/_build. Notebooks are executed once for what they and the package are now; the stage notebooks come
from a finished run: outputs/demo if it fits, else a small run of its own. Nothing is fetched. A warning of Sphinx is an error."""
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
from reference import reference_pages

DOCS = Path(__file__).resolve().parent
ROOT, BUILD = DOCS.parent, DOCS / "_build"
SOURCE = BUILD / "source"
WORDS = "pitch,bat,bank,mouse/mice"
HOWTO = ["own-words", "own-corpus", "own-transformer", "search", "serving", "qdrant-server", "adding-words", "cluster"]   # in this order, others after them


def fingerprint(*files):
    """A hash of files, names and contents."""
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file.name}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def notebooks():
    """The notebooks by name, in order."""
    return {p.stem: p for p in sorted((ROOT / "nbs").glob("*.ipynb"))}


def code_of(path):
    """The code a notebook's author wrote, without what papermill put in."""
    cells = nbformat.read(path, 4).cells
    return [c.source for c in cells if c.cell_type == "code" and "injected-parameters" not in c.metadata.get("tags", [])]


def fits(run):
    """Whether the run is finished and its notebooks are as they are today."""
    from minicoil.runs.run import STAGES
    stages = [name for name, _ in STAGES.values()]
    return all((run / "notebooks" / f"{s}.ipynb").exists() and (run / s / "manifest.json").exists()
               and code_of(run / "notebooks" / f"{s}.ipynb") == code_of(ROOT / "nbs" / f"{s}.ipynb") for s in stages)


def finished_run():
    """A finished run whose executed notebooks the chapters show: MINICOIL_DOCS_RUN, outputs/demo, or one made here."""
    given = os.environ.get("MINICOIL_DOCS_RUN")
    for run in ([Path(given)] if given else []) + [ROOT / "outputs" / "demo", BUILD / "run"]:
        if fits(run):
            return run
    shutil.rmtree(BUILD / "run", ignore_errors=True)
    print("docs: training a small model for the chapters to show", flush=True)
    command = [sys.executable, "-c", "from minicoil.commands.pipeline import main; main()", "run", "--words", WORDS, "--pictures", "4", "--out", str(BUILD / "run")]
    subprocess.run(command, check=True, cwd=ROOT, env=environment())
    return BUILD / "run"


def environment():
    """Where kernels find this checkout's package; one thread each, as two run at a time."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def beneath(name):
    """The modules that a notebook can use: those of notebooks up to its own number, as imports only point to lower ones; the index uses any."""
    homes = {p: re.search(r"File to edit: \.\./nbs/(\w+)\.ipynb", p.read_text(encoding="utf-8")) for p in (ROOT / "minicoil").rglob("*.py")}
    return [p for p, home in homes.items() if p.name != "_modidx.py" and (not home or home[1] <= name)]


def executed(path):
    """The notebook at `path` executed, from the cache where neither it nor what it stands on nor the results have changed."""
    key = fingerprint(path, *beneath(path.stem), *(ROOT / "results").glob("*.json"))
    cached, stamp = BUILD / "executed" / path.name, BUILD / "executed" / f"{path.stem}.key"
    if not (stamp.exists() and stamp.read_text() == key):
        print(f"docs: executing {path.stem}", flush=True)
        from nbclient import NotebookClient
        notebook = nbformat.read(path, 4)
        NotebookClient(notebook, kernel_name="python3", timeout=900, extra_arguments=["--IPKernelApp.log_level=50"], resources={"metadata": {"path": str(ROOT / "nbs")}}).execute(env=environment())
        cached.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, cached)
        stamp.write_text(key)
    return cached


def all_executed(run):
    """{name: path of the executed notebook}, two executed at a time."""
    from minicoil.runs.run import STAGES
    staged = {name: run / "notebooks" / f"{name}.ipynb" for name, _ in STAGES.values()}
    others = {name: path for name, path in notebooks().items() if name not in staged}
    with ThreadPoolExecutor(2) as pool:
        return dict(sorted({**staged, **dict(zip(others, pool.map(executed, others.values())))}.items()))


def alternative(prose, limit=300):
    """Alternative text of a picture: the last prose before it, which says what is to be seen."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*>|]", r"\1", re.sub(r"^#.*$", "", prose, flags=re.M))
    text = " ".join(text.split())
    return (text if len(text) <= limit else text[:limit].rsplit(" ", 1)[0] + " …") or "A picture, explained in the text around it"


def formula(tex, number, folder):
    """A formula as an SVG file drawn by matplotlib, so that no script and no network is needed to read it."""
    from matplotlib.mathtext import math_to_image
    folder.mkdir(parents=True, exist_ok=True)
    math_to_image(f"${' '.join(tex.split()).rstrip('. ')}$", folder / f"formula-{number}.svg", format="svg")
    alt = tex.strip().replace("\\", "\\\\").replace("]", "\\]").replace("[", "\\[").replace("*", "\\*").replace("_", "\\_")
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
    inside = pio.to_html(figure, full_html=False, include_plotlyjs=False, config={"displaylogo": False, "responsive": True})
    return f'<script src="_static/plotly.min.js"></script><div class="plotly-live" role="img" aria-label="{html.escape(said)}">{inside}</div><noscript>This plot needs JavaScript.</noscript>'


def outputs_of(cell, secret):
    """A cell's outputs as readers may see them: no progress bars, no paths of this machine, plots live."""
    kept = []
    for output in cell.outputs:
        if output.output_type == "error":
            raise SystemExit(f"docs: a notebook failed: {output.ename}: {output.evalue}")
        if output.output_type == "stream":
            if output.name == "stdout":
                kept.append({**output, "text": secret(output.text)})
            continue
        data = {k: secret(v) if isinstance(v, str) and k.startswith("text/") else v for k, v in output.data.items()}
        plot = data.pop("application/vnd.plotly.v1+json", None)
        kept.append({**output, "data": {"text/html": live_plot(plot, data.get("text/plain", "A plot"))} if plot else data})
    return [nbformat.from_dict(o) for o in kept]


def chapter(path, secret):
    """An executed notebook as a page of the site."""
    notebook, cells, prose, number = nbformat.read(path, 4), [], "", 0
    injected = any("injected-parameters" in c.metadata.get("tags", []) for c in notebook.cells)
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "markdown":
            def drawn(found):
                nonlocal number
                number += 1
                return formula(found[1], f"{path.stem}-{number}", SOURCE / "formulas")
            prose = cell.source
            text = re.sub(r"\$\$(.+?)\$\$", drawn, cell.source, flags=re.S).replace("](../outputs/gallery/", "](gallery/")
            cells.append(nbformat.v4.new_markdown_cell(text))
            continue
        source, hidden, folded = shown_code(cell.source)
        if "injected-parameters" in tags or "parameters" in tags and not injected:
            source = re.sub(r'^run_dir = .*$', 'run_dir = "outputs/demo"', source, flags=re.M) if injected else source
        elif "parameters" in tags:
            continue
        new = nbformat.v4.new_code_cell(secret(source), execution_count=cell.execution_count, outputs=outputs_of(cell, secret))
        new.metadata = {"mystnb": {"image": {"alt": alternative(prose)}}, "tags": ["remove-input"] if hidden else ["hide-input"] if folded else []}
        if not hidden or new.outputs:
            cells.append(new)
    notebook.cells, notebook.metadata = cells, {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}, "language_info": {"name": "python"}}
    return notebook


def write_chapters(paths, run):
    """Every chapter into the sources; the run's folder and home are called by what readers know."""
    def secret(text):
        for place, name in ((str(run), "outputs/demo"), (str(ROOT), "."), (str(Path.home()) + "/", "~/")):
            text = text.replace(place, name)
        return re.sub(r"/tmp/[\w./-]*", "/tmp/…", text)
    for name, path in paths.items():
        page = chapter(path, secret)
        if name == "index":
            page.cells.append(nbformat.v4.new_markdown_cell(contents(paths)))
        nbformat.write(page, SOURCE / f"{name}.ipynb")
    with open(SOURCE / "30_atlas.ipynb", encoding="utf-8") as f:
        atlas = nbformat.read(f, 4)
    atlas.cells.append(nbformat.v4.new_markdown_cell(
        '## The pages themselves\n\n<p>The <a href="atlas/30_atlas/index.html">atlas of this run</a>, and its <a href="atlas/report.html">report</a>. One page of it, live:</p>\n\n'
        '<iframe class="live" title="The first word\'s page in the atlas" src="atlas/30_atlas/words/word-00000.html"></iframe>'))
    nbformat.write(atlas, SOURCE / "30_atlas.ipynb")


def contents(paths):
    """The site's table of contents, at the end of its first page."""
    howto = [f"howto/{name}" for name in sorted((p.stem for p in (DOCS / "howto").glob("*.md")), key=lambda n: HOWTO.index(n) if n in HOWTO else len(HOWTO))]
    parts = {"How to": howto, "The book": [n for n in paths if n != "index"], "Reference": ["reference/index", "benchmarks", "promises", "versions", "changelog"]}
    return "\n\n".join(f":::{{toctree}}\n:hidden:\n:caption: {title}\n\n" + "\n".join(names) + "\n:::" for title, names in parts.items())


def write_static(run):
    """plotly, the gallery, the atlas and the report, as they are."""
    from plotly.offline import get_plotlyjs
    (BUILD / "static").mkdir(parents=True, exist_ok=True)
    (BUILD / "static" / "plotly.min.js").write_text(get_plotlyjs(), encoding="utf-8")
    shutil.copytree(ROOT / "outputs" / "gallery", SOURCE / "gallery")
    shutil.rmtree(BUILD / "extra", ignore_errors=True)
    shutil.copytree(run / "30_atlas", BUILD / "extra" / "atlas" / "30_atlas")
    shutil.copy(run / "report.html", BUILD / "extra" / "atlas" / "report.html")


def main():
    """Sources, then Sphinx; leaves with Sphinx's exit code."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    SOURCE.mkdir(parents=True)
    run = finished_run()
    paths = all_executed(run)
    write_chapters(paths, run)
    write_static(run)
    shutil.copytree(DOCS / "howto", SOURCE / "howto")
    shutil.copy(ROOT / "CHANGELOG.md", SOURCE / "changelog.md")
    for name in ("promises.md", "versions.md"):
        shutil.copy(DOCS / name, SOURCE / name)
    (SOURCE / "benchmarks.md").write_text(benchmark_page(ROOT / "results"), encoding="utf-8")
    for name, text in reference_pages(ROOT / "minicoil").items():
        (SOURCE / "reference").mkdir(exist_ok=True)
        (SOURCE / "reference" / f"{name}.md").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-c", str(DOCS), "-d", str(BUILD / "doctrees"), str(SOURCE), str(BUILD / "html")]
    code = subprocess.run(command, env={**os.environ, "PYTHONWARNINGS": "ignore"}).returncode
    print(f"docs: {BUILD / 'html' / 'index.html'}" if not code else f"docs: Sphinx ended with {code}")
    sys.exit(code)


if __name__ == "__main__":
    main()
