"""A fake that stands for the Hugging Face hub, which tests cannot reach: the few operations by which huggingface_hub
makes a model's repository and commits to it, answered as the hub's own API describes them, kept in memory.

It takes large files by LFS; the hub itself takes them by Xet, which the client is told not to use here.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.web_server import serving

TOKEN = "hf_of-acme"


@dataclass
class Repository:
    """A repository: whether it is private, its files as they are, and the message of each commit."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)

    @property
    def sha(self) -> str:
        """Of the last commit."""
        return hashlib.sha1(f"{len(self.commits)}".encode()).hexdigest()  # noqa: S324 - as git has it


@dataclass
class FakeHub:
    """What is on it; `broken` answers everything with 503, and `writers` are the tokens that may write, by owner."""

    url: str
    repositories: dict[str, Repository] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    writers: dict[str, str] = field(default_factory=lambda: {"acme": TOKEN})
    broken: bool = False


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """The fake while the block runs."""
    with serving(_Handler) as server:
        hub = FakeHub(f"http://127.0.0.1:{server.server_port}")
        server.hub = hub  # type: ignore[attr-defined]
        yield hub


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        hub = self._hub
        if hub.broken:
            return self._answer(503, {"error": "maintenance"})
        if self.path == "/api/validate-yaml":
            return self._answer(200, {"errors": [], "warnings": []})
        if self.path == "/api/repos/create":
            return self._create(json.loads(body))
        name, operation = self._operation()
        if hub.writers.get(name.partition("/")[0]) != self._token:
            return self._answer(403, {"error": "You don't have the rights to write to it"})
        if operation.startswith("preupload"):
            return self._answer(200, {"files": [self._mode(name, row) for row in json.loads(body)["files"]]})
        if operation.startswith("info/lfs"):
            return self._answer(200, {"objects": [self._upload(row) for row in json.loads(body)["objects"]]})
        return self._commit(name, [json.loads(line) for line in body.splitlines()])

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self._hub.large[self.path.rpartition("/")[2]] = content
        self._answer(200, {})

    def do_GET(self) -> None:
        name, _ = self._operation()
        found = self._hub.repositories.get(name)
        if found is None or self._hub.broken:
            return self._answer(404, {"error": "Repository not found"})
        return self._answer(200, {"id": name, "sha": found.sha, "private": found.private, "siblings": []})

    @property
    def _hub(self) -> FakeHub:
        return self.server.hub  # type: ignore[attr-defined, no-any-return]

    @property
    def _token(self) -> str:
        return (self.headers["Authorization"] or "").removeprefix("Bearer ")

    def _operation(self) -> tuple[str, str]:
        path = self.path.partition("?")[0].removeprefix("/api/models")
        found = re.fullmatch(r"/([^/]+/[^/]+?)(?:\.git)?(?:/(.*))?", path)
        return (found[1], found[2] or "") if found else (path, "")

    def _create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted['organization']}/{wanted['name']}"
        if self._hub.writers.get(wanted["organization"]) != self._token:
            return self._answer(403, {"error": "You don't have the rights to create a model under this namespace"})
        url = {"url": f"{self._hub.url}/{name}"}
        if name in self._hub.repositories:
            return self._answer(409, url | {"error": "You already created this model repo"})
        private = wanted.get("private", wanted.get("visibility") == "private")
        self._hub.repositories[name] = Repository(private)
        return self._answer(200, url)

    def _mode(self, name: str, row: dict[str, Any]) -> dict[str, Any]:
        large = row["path"].endswith(".safetensors")
        there = self._hub.repositories[name].files.get(row["path"])
        oid = None
        if there is not None:
            blob = there if large else b"blob %d\0" % len(there) + there
            oid = hashlib.sha256(blob).hexdigest() if large else hashlib.sha1(blob).hexdigest()  # noqa: S324
        mode = "lfs" if large else "regular"
        return {"path": row["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid}

    def _upload(self, row: dict[str, Any]) -> dict[str, Any]:
        upload = {"href": f"{self._hub.url}/large/{row['oid']}", "header": {}}
        known = row["oid"] in self._hub.large
        return row | {"authenticated": True} | ({} if known else {"actions": {"upload": upload}})

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        found = self._hub.repositories[name]
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                found.commits.append(value["summary"])
            elif line["key"] == "file":
                found.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                found.files[value["path"]] = self._hub.large[value["oid"]]
        url = f"{self._hub.url}/{name}/commit/{found.sha}"
        self._answer(200, {"success": True, "commitOid": found.sha, "commitUrl": url})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        for header, value in {"Content-Type": "application/json", "Content-Length": str(len(content))}.items():
            self.send_header(header, value)
        self.end_headers()
        self.wfile.write(content)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Say nothing."""
