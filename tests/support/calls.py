"""The `minicoil` command called in this process: as from a shell, without the seconds that a new process
needs to start."""

import contextlib
import io
import os
import sys
from dataclasses import dataclass
from types import SimpleNamespace
from unittest import mock

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before anything asks a hub

from minicoil.commands.pipeline import main  # noqa: E402


@dataclass
class Done:
    """A finished command, with the names that `subprocess` uses."""

    returncode: int
    stdout: str
    stderr: str


def stream(encoding):
    """A standard stream that keeps what is written, as strict about characters as a terminal's."""
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict", newline="")


def written(wrapped):
    """What was written to such a stream, as text."""
    wrapped.flush()
    return wrapped.buffer.getvalue().decode(wrapped.encoding)


def call(folder, *arguments, given=b"", encoding="utf-8", **environment):
    """The command, called in `folder` with bytes `given` on standard input; an error that it does not
    handle is raised."""
    out, err = stream(encoding), stream(encoding)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.chdir(folder))
        stack.enter_context(mock.patch.dict(os.environ, environment))
        stack.enter_context(mock.patch.object(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(given))))
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        try:
            main([str(argument) for argument in arguments])
            code = 0
        except SystemExit as e:
            code = e.code
    return Done(code, written(out), written(err))


def one_line(done):
    """The one line on stderr of a refused command, which is printable and short, and has exit code 2."""
    lines = done.stderr.splitlines()
    assert (done.returncode, len(lines)) == (2, 1), (done.returncode, done.stderr[-600:])
    assert lines[0].isprintable() and len(lines[0]) < 600 and "Traceback" not in lines[0], lines[0]
    return lines[0]
