"""The light install: what a search and an embedding may import, and when."""

import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = {  # packages that are imported by another name
    "qdrant-edge-py": "qdrant_edge",
    "qdrant-client": "qdrant_client",
    "scikit-learn": "sklearn",
    "umap-learn": "umap",
    "sentence-transformers": "sentence_transformers",
    "stop-words": "stop_words",
    "ir-measures": "ir_measures",
}
NO_EXTRA = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"{{name}} is not in the light install", name=name)

sys.meta_path.insert(0, Refuse())
from minicoil.commands.pipeline import main
main()
"""


def extras():
    """The modules of all packages that only the extras bring."""
    config = configparser.ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    given = config["DEFAULT"]
    light = set(re.findall(r"(\S+?)>=", given["requirements"]))
    heavy = {
        re.split(r"[><=]", part)[0]
        for key in ("train_requirements", "dev_requirements")
        for part in given[key].split()
    }
    return sorted(MODULES.get(name, name.replace("-", "_")) for name in heavy - light) + [
        "fastcore",
        "gt_all",
    ]


def light(folder, *arguments, **options):
    """The command in a process that has none of the extras."""
    program = NO_EXTRA.format(blocked=set(extras()))
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, **options)


@pytest.fixture(scope="module")
def notes(tmp_path_factory):
    """A folder with a few files."""
    folder = tmp_path_factory.mktemp("light") / "notes"
    folder.mkdir()
    (folder / "cave.txt").write_text("At dusk the bat left its cave.")
    (folder / "club.txt").write_text("He swung the bat.")
    (folder / "more.jsonl").write_text('{"text": "The bank raised its rates."}\n')
    return folder


def test_the_extras_are_blocked(tmp_path):
    """The proof that these tests can fail: torch and Qdrant are among what is refused, and are refused."""
    assert {"torch", "qdrant_edge", "psutil", "pyarrow", "threadpoolctl"} <= set(extras())
    done = light(tmp_path, "run", "--words", "bat", "--out", "r")
    assert "a light install leaves it out" in done.stderr


ASKED = {
    "run": ["run", "--words", "bat", "--out", "r"],
    "add-words": ["add-words", "--model", "MODEL", "--words", "seal", "--corpus", "cave.txt", "--out", "g"],
    "benchmark": ["benchmark", "retrieval", "--model", "MODEL", "--data", "demo"],
    "expand": ["search", "--model", "MODEL", "--documents", ".", "--expand", "documents", "bat"],
}


@pytest.mark.parametrize("command", ASKED)
def test_what_a_light_install_lacks_is_named(tiny_run, notes, command):
    """A command that needs a package of the training says which, and how to get it, in one line."""
    given = [str(tiny_run / "23_model") if word == "MODEL" else word for word in ASKED[command]]
    done = light(notes, *given)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.count("\n") == 1
    assert "pip install" in done.stderr
    assert sorted(path.name for path in notes.iterdir()) == ["cave.txt", "club.txt", "more.jsonl"]


def test_explore_needs_no_extra(tiny_run, tmp_path):
    """The live page is made without Jinja; what is typed is escaped in it."""
    program = f"""
from minicoil import MiniCOIL
from minicoil.pictures.explore import explore_page, explore_server
model = MiniCOIL.load({str(tiny_run / "23_model")!r})
explore_server(model).server_close()
page = explore_page(model, "<b>The bat</b> left.")
assert "&lt;b&gt;The <mark>bat</mark>&lt;/b&gt; left." in page
assert "number 3" in page
"""
    assert not loaded_by(program) & {"jinja2", "matplotlib"}


@pytest.mark.parametrize("using", ["minicoil", "dense", "hybrid", "mix"])
def test_a_search_needs_no_extra(tiny_run, notes, using):
    """`minicoil search` finds, explains and keeps its index with the light install, by every way."""
    model = tiny_run / "23_model"
    done = light(notes, "search", "--model", model, "--documents", notes, "--using", using, "bat cave")
    assert done.returncode == 0, done.stderr[-600:]
    assert "1. " in done.stdout
    assert "[cave.txt]" in done.stdout


def test_embed_and_the_cache_need_no_extra(tiny_run, notes):
    """`embed` and `cache` work with the light install."""
    for arguments in (["embed", "--model", tiny_run / "23_model", "cave.txt"], ["cache", "list"]):
        done = light(notes, *arguments)
        assert done.returncode == 0, done.stderr[-600:]


def test_qdrant_that_is_missing_is_named(tiny_run, notes, tmp_path):
    """Whoever asks for Qdrant's engine is told what to install, in one line."""
    asked = ("search", "--model", tiny_run / "23_model", "--documents", notes, "--collection", tmp_path / "c")
    done = light(notes, *asked, "bat")
    assert done.returncode == 2
    assert "pip install qdrant-edge-py" in done.stderr
    assert done.stderr.count("\n") == 1
    assert light(notes, *asked, "--engine", "numpy", "bat").returncode == 0


def loaded_by(code):
    """The modules that a program has loaded in the end."""
    program = f"{code}\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_the_package_loads_nothing():
    """`import minicoil` loads neither numpy nor any other package."""
    assert {name for name in loaded_by("import minicoil") if name.startswith("minicoil")} == {"minicoil"}
    assert "numpy" not in loaded_by("import minicoil")


def test_the_command_line_loads_what_it_uses():
    """The command line itself loads no ONNX Runtime and no stage of the training."""
    found = loaded_by("import minicoil.commands.pipeline")
    assert not found & {"onnxruntime", "torch", "pyarrow"}
    assert not [name for name in found if name.startswith("minicoil.stages")]


def test_a_query_without_a_known_word_opens_no_session(tiny_run):
    """Words without an encoder never reach the transformer, alone or in a search."""
    program = f"""
from minicoil import MiniCOIL
model = MiniCOIL.load({str(tiny_run / "23_model")!r})
assert [v.values.tolist() for v in model.query_embed(["zzyzx", "", "quux caves"])] == [[1.0], [], [1.0, 1.0]]
assert list(model.readings("bats")) != []
"""
    assert "onnxruntime" not in loaded_by(program)
    assert "onnxruntime" in loaded_by(program + 'next(model.query_embed("bat"))')
