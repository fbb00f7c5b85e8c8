"""Endpoints for tests and benches: one in this process, or the command itself; and small clients."""

import contextlib
import http.client
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit

MINICOIL = str(Path(sys.executable).with_name("minicoil"))


@contextlib.contextmanager
def endpoint(model, limits=None, **options):
    """(address, `Endpoint`) of an endpoint that runs in a thread of this process."""
    from minicoil.commands.responses import Endpoint
    from minicoil.commands.serve import listening_socket, make_server

    mine = Endpoint(model, limits, **options)
    server = make_server(mine)
    with listening_socket("127.0.0.1", 0) as place:
        thread = threading.Thread(target=server.run, args=([place],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{place.getsockname()[1]}", mine
        finally:
            server.should_exit = True
            thread.join()


@contextlib.contextmanager
def command(*arguments, **environment):
    """(address, process) of `minicoil serve` on a free port; killed at the end if it still runs."""
    started = subprocess.Popen(
        [MINICOIL, "serve", "--port", "0", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        yield started.stdout.readline().split()[0], started
    finally:
        started.kill()
        started.wait()
        started.stdout.close()
        started.stderr.close()


class Client:
    """A caller with one connection that is kept open."""

    def __init__(self, address, timeout=1200, **headers):
        self.line = http.client.HTTPConnection(urlsplit(address).netloc, timeout=timeout)
        self.headers = {"Content-Type": "application/json", **headers}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.line.close()

    def ask(self, path, fields=None, **headers):
        """(status, body) of a request: a POST with `fields` as JSON (or bytes as they are), else a GET."""
        body = fields if isinstance(fields, (bytes, type(None))) else json.dumps(fields)
        method = "GET" if fields is None else "POST"
        self.line.request(method, path, body, {**self.headers, **headers})
        answer = self.line.getresponse()
        return answer.status, answer.read().decode()

    def sparse(self, inputs, **fields):
        """Sparse vectors as {index: value}, in order; an `AssertionError` unless the status is 200."""
        status, body = self.ask("/embed_sparse", {"inputs": inputs, **fields})
        assert status == 200, body
        return [{pair["index"]: pair["value"] for pair in vector} for vector in json.loads(body)]

    def metric(self, line):
        """The value of one line of /metrics, as a number."""
        found = dict(row.rsplit(" ", 1) for row in self.ask("/metrics")[1].splitlines() if row[:1] != "#")
        return float(found.get(line, 0))
