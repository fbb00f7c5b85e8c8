"""A hub of this machine: the part of the Hugging Face hub's interface that models need."""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote


class Hub(BaseHTTPRequestHandler):
    """Repositories are folders `ROOT/org/name/COMMIT` with files; `main` is the newest commit."""

    def reply(self, status, data=b"", **headers):
        """Answer with JSON or bytes."""
        data = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(data), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def body(self):
        """What was sent."""
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_POST(self):
        server, data = self.server, self.body()
        server.tokens.append(self.headers.get("authorization"))
        if server.refuses:
            self.reply(403, {"error": "you may not"})
        elif self.path == "/api/repos/create":
            server.created.append(json.loads(data))
            self.reply(200, {"url": f"{server.url}/someone/model"})
        elif found := re.match(r"/api/models/[^/]+/[^/]+/branch/(.+)", self.path):
            server.branches.append(unquote(found[1]))
            self.reply(200, {})
        elif self.path == "/api/validate-yaml":
            self.reply(200, {"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                     for f in json.loads(data)["files"]]
            self.reply(200, {"files": files})
        elif found := re.match(r"/api/models/([^/]+/[^/]+)/commit/", self.path):
            self.reply(200, self.commit(found[1], data))
        else:
            self.reply(404, {"error": "unknown"})

    def commit(self, name, data):
        """Write the files of a commit into a new folder; what the hub says about it."""
        rows = [json.loads(line) for line in data.splitlines()]
        commit = hashlib.sha1(data).hexdigest()
        for row in rows:
            if row["key"] == "file":
                file = self.server.root / name / commit / row["value"]["path"]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(base64.b64decode(row["value"]["content"]))
        self.server.newest[name] = commit
        address = f"{self.server.url}/{name}/commit/{commit}"
        return {"success": True, "commitOid": commit, "commitUrl": address}

    def do_GET(self):
        self.server.tokens.append(self.headers.get("authorization"))
        path = self.path.split("?")[0]
        about = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        tree = re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path)
        found = about or file or tree
        name, revision = (found[1], found[2]) if found else (None, None)
        commit = self.server.newest.get(name) if revision in (None, "main") else revision
        folder = self.server.root / str(name) / str(commit)
        if not folder.is_dir():
            self.reply(404, {"error": "Repository not found"}, X_Error_Code="RevisionNotFound")
        elif tree:
            files = sorted(f for f in folder.rglob("*") if f.is_file())
            self.reply(200, [{"type": "file", "path": str(f.relative_to(folder)), "size": f.stat().st_size,
                              "oid": hashlib.sha1(f.read_bytes()).hexdigest()} for f in files])
        elif about:
            files = sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file())
            self.reply(200, {"id": name, "modelId": name, "sha": commit, "private": False, "tags": [],
                             "downloads": 0, "likes": 0, "siblings": [{"rfilename": f} for f in files]})
        elif not (folder / file[3]).is_file():
            self.reply(404, {"error": "no such file"}, X_Error_Code="EntryNotFound")
        else:
            data = (folder / file[3]).read_bytes()
            self.reply(200, data, X_Repo_Commit=commit, ETag=f'"{hashlib.sha1(data).hexdigest()}"')

    do_HEAD = do_GET

    def log_message(self, *_):
        """Nothing is logged."""


@contextmanager
def hub(root):
    """A hub over a folder, as a server with `url`, `created`, `branches`, `tokens` and `refuses`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.url = f"http://127.0.0.1:{server.server_port}"
    server.root, server.newest, server.created, server.tokens = Path(root), {}, [], []
    server.branches, server.refuses, server.daemon_threads = [], False, True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
