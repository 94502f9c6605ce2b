"""A fake that stands for the Hugging Face hub, which tests cannot reach: every repository of it has
the files of one folder, for whoever has the token. It knows what huggingface_hub and datasets ask to read them.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.web_server import serving

TOKEN = "hf_that-reads"
COMMIT = "1" * 40


@contextmanager
def private_hub(files: Path) -> Iterator[str]:
    """The address of the fake while the block runs."""
    with serving(_Handler) as server:
        server.files = files  # type: ignore[attr-defined]
        yield f"http://127.0.0.1:{server.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            return self._answer(401, b"", {"X-Error-Code": "RepoNotFound"})
        if found := re.fullmatch(r"(?:/datasets)?/[^/]+/[^/]+/resolve/[^/]+/(.+)", path):
            return self._file(self._files / found[1])
        if found := re.fullmatch(r"/api/(?:models|datasets)/[^/]+/[^/]+/tree/[^/]+(?:/(.*))?", path):
            return self._json(self._tree(found[1] or ""))
        if re.fullmatch(r"/api/datasets/[^/]+/[^/]+/paths-info/[^/]+", path):
            return self._json(self._tree(""))
        if found := re.fullmatch(r"/api/(?:models|datasets)/([^/]+/[^/]+)(?:/revision/[^/]+)?", path):
            siblings = [{"rfilename": entry["path"]} for entry in self._tree("") if entry["type"] == "file"]
            return self._json({"id": found[1], "sha": COMMIT, "private": True, "siblings": siblings})
        return self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.do_GET()

    @property
    def _files(self) -> Path:
        return self.server.files  # type: ignore[attr-defined, no-any-return]

    def _tree(self, below: str) -> list[dict[str, Any]]:
        paths = sorted((self._files / below).rglob("*"))
        return [
            {
                "type": "directory" if path.is_dir() else "file",
                "path": str(path.relative_to(self._files)),
                "oid": hashlib.sha1(str(path).encode()).hexdigest(),  # noqa: S324 - as git has it
                "size": path.stat().st_size if path.is_file() else 0,
            }
            for path in paths
        ]

    def _file(self, path: Path) -> None:
        if not path.is_file():
            return self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
        content = path.read_bytes()
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}  # noqa: S324
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not wanted:
            return self._answer(200, content, headers)
        first, last = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        return self._answer(206, content[first : last + 1], headers)

    def _json(self, body: Any) -> None:
        self._answer(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""
