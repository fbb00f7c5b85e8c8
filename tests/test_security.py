"""Strangers' archives, parameters, models and requests are data, never code.

Nothing is written outside the folder, and no secret is written down."""
import ast
import contextlib
import io
import json
import lzma
import os
import re
import socket
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from conftest import minicoil

from minicoil.runs.files import UserError, load_npy
from minicoil.runs.run import check_parameters
from minicoil.text.formats import read_documents

ROOT = Path(__file__).resolve().parents[1]
SECRET = "sk-a-secret-that-nobody-writes-down"


def tar_of(path, members):
    """A tar of (name, bytes or None, type, target of a link)."""
    with tarfile.open(path, "w") as tar:
        for name, raw, kind, target in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = kind, target, len(raw or b"")
            tar.addfile(member, io.BytesIO(raw or b""))
    return path


def test_an_archive_writes_nowhere(tmp_path):
    """Members that climb out of the archive, absolute ones, links: none is written or followed."""
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.txt").write_text("not yours")
    members = [
        ("../escaped.txt", b"climbed", tarfile.REGTYPE, ""),
        (str(tmp_path / "absolute.txt"), b"absolute", tarfile.REGTYPE, ""),
        ("link.txt", None, tarfile.SYMTYPE, str(tmp_path / "secret.txt")),
        ("hard.txt", None, tarfile.LNKTYPE, "../secret.txt"),
        ("pipe.txt", None, tarfile.FIFOTYPE, ""),
    ]
    tar = tar_of(tmp_path / "in" / "a.tar", members)
    assert list(read_documents(tar)) == ["climbed", "absolute"]
    found = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*"))
    assert found == ["in", "in/a.tar", "secret.txt"]


BOMB = """
import resource, sys
from minicoil.text.formats import read_documents
from minicoil.runs.files import UserError
with open("/proc/self/statm") as f:  # threads of many cores take addresses too
    most = int(f.read().split()[0]) * resource.getpagesize() + (3 << 29)
resource.setrlimit(resource.RLIMIT_AS, (most, most))
try:
    print(sum(len(t) for t in read_documents(sys.argv[1], on_bad_input="skip", skipped=[])))
except UserError as e:
    print(f"minicoil: {e}")
"""


PARTS, PART = 160, 2**24  # 2.5 GB, more than the process may take, which is 1.5 GB


def bomb(path, packed):
    """An archive of a few KB that unpacks to 2.5 GB: a text in a tar of tars, or one line."""
    part = lzma.compress(b"a" * PART, preset=0)
    if packed == "line":
        path.write_bytes(part * PARTS)
        return path
    size = PARTS * PART
    header = tarfile.TarInfo("a.txt")
    header.size = size
    inner_tar = lzma.compress(header.tobuf(), preset=0) + part * PARTS + lzma.compress(b"\0" * 1024, preset=0)
    return tar_of(path, [("inner.xz", inner_tar, tarfile.REGTYPE, "")])


@pytest.mark.parametrize("name, packed", [("bomb.txt.xz", "line"), ("bomb.tar", "tar")])
def test_a_bomb_is_refused(tmp_path, name, packed):
    """A few KB that would unpack to 2.5 GB of one text end in one line about bad input, in bounded memory."""
    command = [sys.executable, "-c", BOMB, str(bomb(tmp_path / name, packed))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-500:]
    assert "Traceback" not in done.stderr
    assert "MemoryError" not in done.stderr


HOSTILE = [
    "__import__('os').system('touch ran')",
    "'];import os;os.system('touch ran');['",
    '"""',
    "\\",
    "{run_dir}",
    "%cd /",
    "!touch ran",
    "a'b\"c",
    "bat\nimport os",
]


def test_parameters_are_data(tmp_path):
    """What papermill writes into a notebook for hostile words is a literal that reads as the same words."""
    from papermill.translators import PythonTranslator
    params = check_parameters(dict(words=HOSTILE, text_field=HOSTILE[1]))
    code = PythonTranslator.codify({"words": list(params.words), "text_field": params.text_field})
    tree = ast.parse(code)
    assert all(isinstance(node, ast.Assign) for node in tree.body)
    written = {node.targets[0].id: ast.literal_eval(node.value) for node in tree.body}
    assert written == {"words": HOSTILE, "text_field": HOSTILE[1]}


def assert_refused(done, *traces):
    """A command was refused in one line, and left none of `traces`."""
    assert done.returncode == 2, done.stderr[-600:]
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr[-600:]
    assert not any(trace.exists() for trace in traces)


def test_hostile_words_run_nothing(tmp_path):
    """A run of hostile words refuses them by name in one line and runs nothing."""
    done = minicoil("run", "--words-file", words_file(tmp_path), "--out", tmp_path / "run",
                    "--until", "sentences", cwd=tmp_path)
    assert_refused(done, tmp_path / "ran")


def words_file(folder):
    """The hostile words as a word list."""
    (folder / "words.txt").write_text("\n".join(w for w in HOSTILE if "\n" not in w))
    return folder / "words.txt"


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_no_pickle_is_opened(tmp_path):
    """An array file with a pickle inside is refused and the pickle never runs."""
    np.save(tmp_path / "x.npy", np.array([Touch(tmp_path / "ran")], object), allow_pickle=True)
    with pytest.raises(UserError, match="x.npy is damaged"):
        load_npy(tmp_path / "x.npy")
    assert not (tmp_path / "ran").exists()


def calls(source):
    """(name, keywords) of the calls in a module."""
    found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [(ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}) for node in found]


def dotted(path):
    """`pictures.pages` of the path of a module."""
    return ".".join(path.relative_to(ROOT / "minicoil").with_suffix("").parts)


MODULES = sorted((ROOT / "minicoil").rglob("*.py"))
FORBIDDEN = ("eval", "exec", "os.system", "os.popen")
UNPACKING = ("extractall", "unpack_archive")
UNPICKLING = ("pickle.", "joblib.", "dill.", "torch.load", "yaml.load")


def test_every_module_is_looked_at():
    """The modules that are read below are those of every package, each under a name of its own."""
    names = [dotted(path) for path in MODULES]
    packages = {path.parent.name for path in (ROOT / "minicoil").glob("*/__init__.py")}
    assert packages == {name.split(".")[0] for name in names if "." in name}
    assert len(set(names)) == len(names) > 40


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_nothing_executes_what_it_reads(path):
    """No module unpickles, evaluates or trusts remote code, opens a shell or unpacks an archive to disk."""
    for name, keywords in calls(path.read_text(encoding="utf-8")):
        assert name not in FORBIDDEN
        assert name.split(".")[-1] not in UNPACKING, name
        assert not name.startswith(UNPICKLING), name
        for keyword in ("trust_remote_code", "allow_pickle", "shell"):
            assert keywords.get(keyword, "False") == "False", name
        if name in ("np.load", "numpy.load"):
            assert keywords.get("allow_pickle") == "False", name


def test_a_models_own_code_is_not_run(tmp_path):
    """A transformer that brings code of its own is refused in one line, and its code never runs."""
    folder = tmp_path / "model"
    folder.mkdir()
    own = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.Own", "AutoTokenizer": ["own.Own", None]}
    config = {"model_type": "own", "architectures": ["Own"], "auto_map": own}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    done = minicoil("run", "--words", "bat", "--input-model", folder, "--out", tmp_path / "run", cwd=tmp_path,
                    input="y\ny\ny\n", env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert_refused(done, tmp_path / "ran")


def test_no_secret_of_the_environment_is_written(tiny_run, tmp_path):
    """Keys in the environment are in no file, notebook, log or output of a chain."""
    from chains import copy_before, with_notebooks
    folder = with_notebooks(copy_before(tiny_run, "tokens", tmp_path / "run"))
    names = ("QDRANT_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY")
    environment = {**os.environ, **dict.fromkeys(names, SECRET)}
    done = minicoil("run", "--out", folder, "--until", "tokens", env=environment)
    assert done.returncode == 0, done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert not [p for p in folder.rglob("*") if p.is_file() and SECRET.encode() in p.read_bytes()]


def test_every_pin_is_tabled():
    """The dated page of versions says of every pinned package what is pinned today, and nothing of others."""
    from versions import PAGE, pinned, tabled
    today = {name: version for name, (version, _) in tabled().items()}
    assert today == pinned(), "python tests/support/versions.py --write NEWEST.tsv"
    assert len(pinned()) > 100
    assert re.search(r" on 20\d\d-\d\d-\d\d: ", PAGE.read_text(encoding="utf-8"))


# `minicoil explore`

@pytest.fixture
def explorer(tiny_run):
    """(host, port) of a running explorer."""
    import threading

    from minicoil import MiniCOIL
    from minicoil.pictures.explore import explore_server
    with explore_server(MiniCOIL.load(tiny_run / "23_model")) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address
        server.shutdown()


def asked(address, raw):
    """The first line of the answer to raw bytes."""
    with socket.create_connection(address, 300) as s:
        with contextlib.suppress(ConnectionError):  # who is refused may be answered before all is sent
            s.sendall(raw)
        return s.makefile("rb").readline().decode()


def request(address, body=b"", method="POST", path="/embed", host=None, extra=""):
    """Status of a request made by hand."""
    head = [f"{method} {path} HTTP/1.1", f"Host: {host or f'127.0.0.1:{address[1]}'}",
            f"Content-Length: {len(body)}", "Connection: close"]
    return int(asked(address, ("\r\n".join(head) + f"\r\n{extra}\r\n").encode() + body).split()[1])


def test_explore_is_on_loopback(explorer):
    """The server listens on 127.0.0.1 and answers no other name and no other site's page."""
    assert explorer[0] == "127.0.0.1"
    good = json.dumps({"text": "a bat"}).encode()
    assert request(explorer, good) == 200
    assert request(explorer, good, host="evil.example") == 403
    assert request(explorer, good, extra="Origin: http://evil.example\r\n") == 403
    assert request(explorer, method="GET", path="/atlas/../../run.json") == 404


REFUSED = {
    "large": (b"x" * 400_000, 413),
    "long": (json.dumps({"text": "a" * 20_001}).encode(), 413),
    "deep": (b"[" * 100_000, 400),
    "broken": (b"{", 400),
    "number": (b'{"text": 3}', 400),
    "surrogate": (b'{"text": "\\ud800 bat"}', 400),
}


@pytest.mark.parametrize("body, status", REFUSED.values(), ids=REFUSED.keys())
def test_explore_limits(explorer, body, status):
    """What is too long, too deep or not a text is refused, and the server goes on."""
    assert request(explorer, body) == status
    assert request(explorer, json.dumps({"text": "a bat"}).encode()) == 200


def test_explore_length_in_other_digits(explorer):
    """A length that is a digit but not a number is refused."""
    head = f"POST /embed HTTP/1.1\r\nHost: 127.0.0.1:{explorer[1]}\r\nContent-Length: \xb2\r\n\r\n"
    assert asked(explorer, head.encode("latin-1")).split()[1] == "413"
