"""A stand-in of the Hugging Face hub over loopback: what huggingface_hub asks to push and pull.

Repositories lie in memory as lists of commits. Weights travel by the batch protocol of Git LFS, as
without Xet; other files lie in the commit, which is applied as a whole or not at all.
"""

import base64
import hashlib
import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

LICENSES = ("apache-2.0", "mit")

TOKEN = "hf_abcdefghijklmnopqrstuvwxyz012345"


@dataclass
class Repository:
    """A repository of the hub."""

    private: bool
    commits: list[dict[str, bytes]] = field(default_factory=lambda: [{".gitattributes": b""}])
    """Files of each commit, oldest first."""

    secret: str = field(default_factory=lambda: secrets.token_hex(8))
    """Makes its commits differ from those of every other repository, as contents do."""

    def sha(self, number: int = -1) -> str:
        place = range(len(self.commits))[number]
        return hashlib.sha1(f"{self.secret}:{place}".encode()).hexdigest()

    def files(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Commit and files of a branch or a commit."""
        named = {self.sha(n): self.commits[n] for n in range(len(self.commits))}
        sha = self.sha() if revision == "main" else revision
        return (sha, named[sha]) if sha in named else None


@dataclass
class Hub:
    """The state of the stand-in."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    """Contents that were uploaded, by sha256."""
    requests: list[str] = field(default_factory=list)
    """Method and path of each request."""
    pace_s: float = 0.0
    """Seconds between two parts of a large file, so that a kill finds it on the way."""
    change: Callable[[str, bytes], bytes] = lambda name, content: content
    """What is sent in the place of a file's content."""
    states: Callable[[str, int], int] = lambda name, size: size
    """The size that is stated for a file."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def _answer(self) -> None:
        path = urlsplit(self.path).path
        self.hub.requests.append(f"{self.command} {path}")
        for method, pattern, handle in ROUTES:
            found = re.fullmatch(pattern, path)
            if self.command in method and found is not None:
                handle(self, *found.groups())
                return
        self._send(501, {"error": f"{self.command} {path} is not played"})

    def _body(self) -> bytes:
        """The body, of a stated length or in chunks."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        step = 65536 if self.hub.pace_s else len(body) or 1
        for start in range(0, len(body), step):
            self.wfile.write(body[start : start + step])
            time.sleep(self.hub.pace_s)

    def _may(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _refuse(self) -> None:
        self._body()
        error = "Invalid username or password."
        self._send(401, {"error": f"{error} {self.headers.get('Authorization')}"},
                   {"X-Error-Code": "RepoNotFound"})  # fmt: skip

    def _found(self, name: str) -> Repository | None:
        """A repository that the caller may see; else the request is answered as the hub does."""
        there = self.hub.repositories.get(name)
        if there is None or (there.private and not self._may()):
            code, status = "RepoNotFound", 404 if self._may() else 401
            self._body()
            self._send(status, {"error": "Repository not found"}, {"X-Error-Code": code})
            return None
        return there

    def create(self) -> None:
        if not self._may():
            self._refuse()
            return
        asked = json.loads(self._body())
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.hub.repositories:
            self._send(409, {"error": "You already created this model repo"})
            return
        self.hub.repositories[name] = Repository(asked.get("visibility") == "private")
        self._send(200, {"url": f"{self.hub.url}/{name}"})

    def validate(self) -> None:
        from huggingface_hub import ModelCard

        found: Any = ModelCard(json.loads(self._body())["content"]).data
        good = found.license in (None, *LICENSES) and found.library_name is not None
        errors = [] if good else [{"message": f'"license" must be one of {LICENSES}'}]
        self._send(200 if good else 400, {"errors": errors, "warnings": []})

    def info(self, name: str, revision: str | None = None) -> None:
        there = self._found(name)
        if there is not None:
            sha, files = there.files(revision or "main") or ("", {})
            siblings = [{"rfilename": file} for file in files]
            self._send(200, {"id": name, "sha": sha, "private": there.private, "tags": [],
                             "siblings": siblings})  # fmt: skip

    def preupload(self, name: str, revision: str) -> None:
        if not self._may():
            self._refuse()
            return
        there = self._found(name)
        if there is None:
            return
        old, found = there.commits[-1], []
        for each in json.loads(self._body())["files"]:
            path = each["path"]
            large = path.endswith(".safetensors")
            oid = None
            if path in old:
                content = old[path]
                blob = b"blob %d\0" % len(content) + content
                oid = hashlib.sha256(content) if large else hashlib.sha1(blob)
            found.append({"path": path, "uploadMode": "lfs" if large else "regular",
                          "shouldIgnore": False, "oid": oid and oid.hexdigest()})  # fmt: skip
        self._send(200, {"files": found})

    def batch(self, name: str) -> None:
        if not self._may():
            self._refuse()
            return
        objects = []
        for each in json.loads(self._body())["objects"]:
            upload = {"href": f"{self.hub.url}/lfs/{each['oid']}"}
            held = each["oid"] in self.hub.objects
            objects.append({**each, **({} if held else {"actions": {"upload": upload}})})
        self._send(200, {"transfer": "basic", "objects": objects})

    def store(self, oid: str) -> None:
        parts, left = [], int(self.headers.get("Content-Length") or 0)
        while left:
            part = self.rfile.read(min(left, 65536))
            if not part:  # the client is gone
                self.close_connection = True
                return
            parts.append(part)
            left -= len(part)
            time.sleep(self.hub.pace_s)
        content = b"".join(parts) or self._body()
        good = hashlib.sha256(content).hexdigest() == oid
        if good:
            self.hub.objects[oid] = content
        self._send(200 if good else 400, {})

    def commit(self, name: str, revision: str) -> None:
        if not self._may():
            self._refuse()
            return
        there = self._found(name)
        if there is None:
            return
        files = dict(there.commits[-1])
        for line in self._body().splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header" and value.get("parentCommit") not in (None, there.sha()):
                self._send(412, {"error": "A commit has happened since"})
                return
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            if item["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            if item["key"] == "deletedFile":
                del files[value["path"]]
        there.commits.append(files)
        done = f"{self.hub.url}/{name}/commit/{there.sha()}"
        self._send(200, {"commitUrl": done, "commitOid": there.sha(), "pullRequestUrl": None})

    def resolve(self, name: str, revision: str, path: str) -> None:
        there = self._found(name)
        if there is None:
            return
        found = there.files(revision)
        if found is None:
            self._send(404, {}, {"X-Error-Code": "RevisionNotFound"})
            return
        sha, files = found
        if path not in files:
            self._send(404, {}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha})
            return
        content = self.hub.change(path, files[path])
        headers = {"X-Repo-Commit": sha, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        if self.command == "HEAD":
            headers["X-Linked-Size"] = str(self.hub.states(path, len(content)))
        self._send(200, content, headers)


NAME = r"([\w.-]+/[\w.-]+)"
ROUTES: list[tuple[tuple[str, ...], str, Callable[..., None]]] = [
    (("POST",), "/api/repos/create", _Handler.create),
    (("POST",), "/api/validate-yaml", _Handler.validate),
    (("GET",), f"/api/models/{NAME}", _Handler.info),
    (("GET",), f"/api/models/{NAME}/revision/([^/]+)", _Handler.info),
    (("POST",), f"/api/models/{NAME}/preupload/([^/]+)", _Handler.preupload),
    (("POST",), f"/api/models/{NAME}/commit/([^/]+)", _Handler.commit),
    (("POST",), rf"/{NAME}\.git/info/lfs/objects/batch", _Handler.batch),
    (("PUT",), "/lfs/([0-9a-f]{64})", _Handler.store),
    (("GET", "HEAD"), f"/{NAME}/resolve/([^/]+)/(.+)", _Handler.resolve),
]


@contextmanager
def hub_server() -> Iterator[Hub]:
    """A stand-in that answers until the end of the context."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
