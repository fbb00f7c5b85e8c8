"""A Qdrant server that the tester has running, for the tests that ask for one.

    QDRANT_URL=http://localhost:6333 pytest tests/test_{store,search,collection,qdrant}.py

With QDRANT_KILL and QDRANT_RETURN, two commands for a shell, the tests also take the server away and bring it
back, as `docker stop qdrant` and `docker start qdrant` do. Collections that were there before stay.
"""

import contextlib
import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from qdrant_fake import FakeQdrant, serving

from minicoil.runs.locks import locked
from minicoil.runs.server import connect_server

URL = os.environ.get("MINICOIL_TEST_QDRANT", "")  # conftest.py takes it from QDRANT_URL
KILL, RETURN = os.environ.get("QDRANT_KILL", ""), os.environ.get("QDRANT_RETURN", "")
PLACES = ["folder", "server", *(["real server"] if URL else [])]  # for fixtures that try every home
NEVER = "the collection minicoil is on the server at QDRANT_URL: these tests make one of that name"

needs_server = pytest.mark.skipif(
    not URL, reason="needs a Qdrant server: set QDRANT_URL (docs/qdrant/docker-compose.yml starts one)"
)
needs_hook = pytest.mark.skipif(
    not (URL and KILL and RETURN),
    reason="needs a server that can be taken away: QDRANT_URL, QDRANT_KILL, QDRANT_RETURN",
)


def names(client):
    """The names of all collections on a server."""
    return {found.name for found in client.get_collections().collections}


@contextlib.contextmanager
def real_server():
    """The URL of the server; at the end the collections that were made meanwhile are deleted.

    One test at a time has it, also where several processes share the tests.
    """
    lock = Path(tempfile.gettempdir()) / "minicoil-test-server.lock"
    lock.touch()
    with locked(lock, "another test has the server", 600), contextlib.closing(connect_server(URL)) as client:
        before = names(client)
        if "minicoil" in before:
            pytest.skip(NEVER)
        try:
            yield URL
        finally:
            for name in names(client) - before:
                client.delete_collection(name)


@contextlib.contextmanager
def some_server(place):
    """The URL of the tester's server for "real server", else of a stand-in."""
    with real_server() if place == "real server" else serving(FakeQdrant()) as url:
        yield url


def call(command):
    """Run one of the tester's commands."""
    subprocess.run(command, shell=True, check=True, timeout=120)
