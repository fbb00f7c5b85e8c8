"""The how-to pages: each command and each program on them works in the folder that the pages speak of."""

import re
import shlex
import shutil
import textwrap
from pathlib import Path

import pytest
from calls import call
from chains import tiny_transformer
from homes import make_home

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "howto"
PAGES = {page.name: page.read_text(encoding="utf-8") for page in sorted(FOLDER.glob("*.md"))}
MODELS = ("mine", "en", "adapted")  # the pages' own runs: here each is the run of the session
# what serves until it is ended: tests of their own have these
ELSEWHERE = re.compile(r"minicoil (serve|explore)\b")


def blocks(page, language):
    """The code blocks of a page in a language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGES[page], flags=re.DOTALL)


def lines_of(page):
    """The `minicoil` lines of a page, without their comments."""
    found = [line for block in blocks(page, "sh") for line in block.splitlines()]
    return [line.split(" #")[0].strip() for line in found if line.startswith("minicoil ")]


def home_of(folder, run_folder):
    """A folder with the models and texts of the pages."""
    make_home(folder, run_folder)
    tiny_transformer(folder / "my-models" / "mpnet", 64, seed=5)
    for name in MODELS:
        shutil.copytree(run_folder, folder / "outputs" / name)
    return folder


def test_the_pages_have_commands():
    """The expressions that find commands find them."""
    assert sum(len(lines_of(page)) for page in PAGES) > 25
    assert all(lines_of(page) for page in ("search.md", "serving.md", "other-engines.md", "adding-words.md"))


SMALL = {"500": "3", "2000": "3", "5000": "3", "16": "2"}  # words to train and processes, for a test


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if lines_of(page)])
def test_the_commands_of_a_page_run(page, run_folder, tmp_path):
    """From the first to the last, in order. A run that the page makes takes the place of ours."""
    home, before = home_of(tmp_path, run_folder), ""
    for line in lines_of(page):
        if ELSEWHERE.search(line):
            continue
        words = [SMALL.get(word, word) for word in shlex.split(line)[1:]]
        if words[0] == "run":
            words += ["--pictures", "0"]
        if words[0] == "run" and "--until" not in before:
            shutil.rmtree(home / words[words.index("--out") + 1], ignore_errors=True)
        done = call(home, *words)
        assert done.returncode == 0, (line, done.stderr[-600:])
        before = line


def run_programs(page, model_folder, **names):
    """The Python of a page, run block after block with a Qdrant in memory; what its names stand for."""
    for block in blocks(page, "python"):
        block = block.replace("outputs/demo/23_model", str(model_folder))
        exec(block.replace("http://localhost:6333", ":memory:"), names)
    return names


def test_the_programs_on_qdrant(model_folder, monkeypatch):
    """Those of the page on a Qdrant server find the bats, by the sparse vectors and by both fused."""
    from qdrant_client import QdrantClient

    answers, query_points = [], QdrantClient.query_points

    def noted(self, *given, **named):
        answers.append(query_points(self, *given, **named))
        return answers[-1]

    monkeypatch.setattr(QdrantClient, "query_points", noted)
    run_programs("qdrant-server.md", model_folder)
    first = [answer.points[0].payload["text"] for answer in answers]
    assert first == ["At dusk the bats leave their cave."] * 2


def test_the_program_on_serving(model_folder, capsys):
    """It prints a vector for each text."""
    run_programs("serving.md", model_folder)
    assert len(re.findall(r"^\[", capsys.readouterr().out, flags=re.MULTILINE)) >= 2


def test_the_programs_on_production(model_folder, monkeypatch, capsys):
    """They fill a collection, name it, make a second one beside it and switch: in one Qdrant in memory."""
    from qdrant_client import QdrantClient, models

    from minicoil.retrieval import collect_server

    client = QdrantClient(":memory:")
    monkeypatch.setattr(client, "close", lambda: None)
    monkeypatch.setattr(collect_server, "server_client", lambda url, timeout=0: client)
    names = {"QdrantClient": lambda *given, **named: client, "m": models}
    programs = re.findall(r"^ *```python\n(.*?)^ *```", PAGES["production.md"], re.DOTALL | re.MULTILINE)
    assert len(programs) == 6
    for block in programs:
        block = textwrap.dedent(block).replace("outputs/new/23_model", str(model_folder))
        exec(block.replace("from qdrant_client import QdrantClient, models as m", ""), names)
    assert capsys.readouterr().out.split()[0] == "a"
    assert {c.name for c in client.get_collections().collections} == {"articles-2026-11", "articles-2026-12"}
    aliases = {a.alias_name: a.collection_name for a in client.get_aliases().aliases}
    assert aliases == {"articles": "articles-2026-12"}
