"""JupyterLab, driven as a person drives it: every notebook of a clean clone is opened and run to its end."""
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from browsing import watched

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(p.stem for p in (ROOT / "nbs").glob("*.ipynb"))
STATE = """() => {
  const notebook = window.jupyterapp.shell.currentWidget.content.model.sharedModel.toJSON();
  const cells = notebook.cells.filter(c => c.cell_type === 'code' && c.source.length);
  const errors = cells.flatMap(c => c.outputs).filter(o => o.output_type === 'error');
  return {cells: cells.length, done: cells.filter(c => c.execution_count).length,
          errors: errors.map(o => o.ename + ': ' + o.evalue)};
}"""
CONTEXT = "window.jupyterapp.shell.currentWidget?.context?.sessionContext"
KERNEL = f"{CONTEXT}?.session?.kernel?.status === 'idle'"
OPTIONS = ["--allow-root", "--no-browser", "--ServerApp.port_retries=0",
           "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=",
           "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
           "--ServerApp.root_dir=."]


def clone(folder):
    """The tracked files as they are here, nothing else, in a folder."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    for name in listed.stdout.split("\0")[:-1]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def free_port():
    """A port that nothing listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_until_up(process, log, limit=600):
    """Wait until JupyterLab says its address."""
    end = time.monotonic() + limit
    while "http://127.0.0.1" not in log.read_text(encoding="utf-8", errors="replace"):
        assert process.poll() is None, log.read_text(encoding="utf-8", errors="replace")
        assert time.monotonic() < end, log.read_text(encoding="utf-8", errors="replace")
        time.sleep(0.5)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """(address, token, folder) of a JupyterLab on a clean clone, with settings and a home of its own."""
    folder, token = clone(tmp_path_factory.mktemp("lab") / "clone"), secrets.token_hex(8)
    home = tmp_path_factory.mktemp("home")
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1",
                   "JUPYTER_CONFIG_DIR": str(home / "config"), "JUPYTER_DATA_DIR": str(home / "data"),
                   "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
                   "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces")}
    for _ in range(3):   # another process may take the port before JupyterLab does
        port = free_port()
        command = [sys.executable, "-m", "jupyter", "lab", *OPTIONS, f"--IdentityProvider.token={token}",
                   f"--ServerApp.port={port}"]
        with open(folder / "lab.log", "w", encoding="utf-8") as log:
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log,
                                       stderr=subprocess.STDOUT)
        try:
            wait_until_up(process, folder / "lab.log")
            break
        except AssertionError:
            if "already in use" not in (folder / "lab.log").read_text(encoding="utf-8", errors="replace"):
                raise
    yield f"http://127.0.0.1:{port}", token, folder
    process.terminate()
    process.wait(300)


def run_all(page, address, token, name, limit=1200):
    """Open a notebook, run all its cells, wait for the last; returns the final state."""
    page.goto(f"{address}/lab/tree/nbs/{name}.ipynb?token={token}&reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=240_000)
    page.wait_for_function(KERNEL, timeout=240_000)
    page.evaluate("void window.jupyterapp.commands.execute('notebook:run-all-cells')")
    end = time.monotonic() + limit
    while time.monotonic() < end:
        state = page.evaluate(STATE)
        if state["errors"] or state["done"] == state["cells"]:
            break
        time.sleep(1)
    return state


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_in_jupyterlab(browser, lab, name):
    """Opened and Run All: every cell runs, none shows an error, and no request leaves the machine."""
    address, token, _ = lab
    with watched(browser) as page:
        state = run_all(page, address, token, name)
        page.evaluate("window.jupyterapp.shell.currentWidget.context.sessionContext.shutdown()")
        assert state["errors"] == []
        assert state["done"] == state["cells"] > 0
        assert page.left == []


PRINTED = """hostile = ("</pre><script>document.title='hacked'</script>"
           "<img src=x onerror=document.title='hacked'> {{7*7}} \\u200f") + 'endless ' * 1250 + 'bat'
print(hostile)"""
PLOTTED = """import numpy as np
from IPython.display import display
from minicoil.pictures.views import WordView
from minicoil.pictures.word_figure import turning_figure
view = WordView(hostile, 0, [hostile] * 6, [[(0, 3)]] * 6, np.arange(6) % 2, [hostile, 'x'], None,
                np.eye(6, 4), 1.0)
display(turning_figure(view), raw=True)"""


def notebook_of(*sources):
    """A notebook of code cells as JSON."""
    cells = [{"cell_type": "code", "id": f"c{i}", "metadata": {}, "source": source, "outputs": [],
              "execution_count": None} for i, source in enumerate(sources)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}
    return json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5})


@pytest.mark.slow
def test_hostile_output_is_text_in_jupyterlab(browser, lab):
    """A printed and a plotted hostile sentence are text in JupyterLab."""
    address, token, folder = lab
    (folder / "nbs" / "hostile.ipynb").write_text(notebook_of(PRINTED, PLOTTED))
    with watched(browser) as page:
        state = run_all(page, address, token, "hostile")
        assert state["errors"] == []
        assert state["done"] == 2
        page.wait_for_selector(".js-plotly-plot .main-svg", timeout=240_000)
        assert "hacked" not in page.title()
        assert page.locator("img[src=x]").count() == 0
        assert page.locator(".jp-OutputArea pre").filter(has_text="</pre><script>").count() >= 1
        assert page.left == []
        assert not [fault for fault in page.faults if fault.startswith("dialog")]


OPENED = """from minicoil import MiniCOIL
model = MiniCOIL.load({folder!r}, threads=1)
model"""


@pytest.mark.slow
def test_the_live_atlas_in_a_cell(browser, lab, model_folder):
    """A model shows its facts, and `explore()` a page in a frame that answers what is typed into it."""
    address, token, folder = lab
    opened = OPENED.format(folder=str(model_folder))
    (folder / "nbs" / "live.ipynb").write_text(notebook_of(opened, "model.explore(height=700)"))
    with watched(browser) as page:
        state = run_all(page, address, token, "live")
        assert state["errors"] == []
        facts = page.locator(".jp-OutputArea table").filter(has_text="MiniCOIL")
        facts.wait_for(timeout=240_000)
        assert "all-MiniLM-L6-v2" in facts.inner_text()
        frame = page.frame_locator("iframe[title='Live atlas of the model']")
        frame.locator("#text").fill("A bat slept in the <b>cave</b>.")
        frame.get_by_role("button", name="Show").click()
        found = frame.locator("#typed")
        found.wait_for(timeout=240_000)
        assert found.inner_text() == "A bat slept in the <b>cave</b>."
        assert found.locator("mark").inner_text() == "bat"
        page.screenshot(path=str(folder / "live.png"))
        page.evaluate("window.jupyterapp.shell.currentWidget.context.sessionContext.shutdown()")
        assert page.left == []
