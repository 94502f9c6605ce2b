"""A fake that stands for the server of Weights & Biases, which tests cannot reach: the few operations by which its
package begins, resumes, writes and ends a run, answered with what it was sent so far, kept in memory.
"""

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.web_server import serving


@dataclass
class Run:
    """What was sent of a run: lines of its history at their places, its last summary, how it ended."""

    history: dict[int, dict[str, Any]] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The history in its order."""
        return [line for _, line in sorted(self.history.items())]


@dataclass
class FakeServer:
    """Its address, and runs by their id."""

    url: str
    runs: dict[str, Run] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)
    """Every body, as text."""


@contextmanager
def fake_server() -> Iterator[FakeServer]:
    """The fake while the block runs."""
    with serving(_Handler) as server:
        fake = FakeServer(f"http://127.0.0.1:{server.server_port}")
        server.fake = fake  # type: ignore[attr-defined]
        yield fake


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        fake: FakeServer = self.server.fake  # type: ignore[attr-defined]
        fake.sent.append(body.decode(errors="replace"))
        answer: dict[str, Any] = {}
        if self.path == "/graphql":
            asked = json.loads(body)
            operations = {"RunResumeStatus": _resumed, "UpsertBucket": _upserted, "CreateRunFiles": _files}
            operation = operations.get(asked["operationName"], lambda _fake, _variables: {})
            answer = {"data": operation(fake, asked["variables"])}
        elif self.path.endswith("/file_stream"):
            _stream(fake.runs[self.path.split("/")[-2]], json.loads(body))
        content = json.dumps(answer).encode()
        self.send_response(200)
        for header, value in {"Content-Type": "application/json", "Content-Length": str(len(content))}.items():
            self.send_header(header, value)
        self.end_headers()
        self.wfile.write(content)

    do_PUT = do_POST

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _resumed(fake: FakeServer, asked: dict[str, Any]) -> dict[str, Any]:
    run = fake.runs.get(asked["name"])
    bucket = run and {
        "id": "1", "name": asked["name"], "displayName": "", "summaryMetrics": json.dumps(run.summary), "config": "{}",
        "logLineCount": 0, "eventsLineCount": 0, "historyLineCount": len(run.history), "eventsTail": "[]",
        "historyTail": json.dumps([json.dumps(line) for line in run.lines[-1:]]), "tags": [], "notes": "",
        "wandbConfig": '{"t": 1}',
    }  # fmt: skip
    return {"model": {"id": "1", "name": asked["project"], "entity": {"id": "1", "name": "acme"}, "bucket": bucket}}


def _upserted(fake: FakeServer, asked: dict[str, Any]) -> dict[str, Any]:
    inserted = asked["name"] not in fake.runs
    run = fake.runs.setdefault(asked["name"], Run())
    project = {"id": "1", "name": asked["project"], "entity": {"id": "1", "name": "acme"}}
    bucket = {
        "id": "1", "name": asked["name"], "displayName": asked["displayName"], "description": "", "config": "{}",
        "sweepName": None, "project": project, "historyLineCount": len(run.history),
    }  # fmt: skip
    return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}


def _files(fake: FakeServer, asked: dict[str, Any]) -> dict[str, Any]:
    files = [{"name": name, "uploadUrl": f"{fake.url}/upload/{name}"} for name in asked["files"]]
    return {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": files}}


def _stream(run: Run, sent: dict[str, Any]) -> None:
    files = sent.get("files") or {}
    history = files.get("wandb-history.jsonl", {"offset": 0, "content": []})
    for number, line in enumerate(history["content"], history["offset"]):
        run.history[number] = json.loads(line)
    for line in files.get("wandb-summary.json", {"content": []})["content"]:
        run.summary = json.loads(line)
    if sent.get("complete"):
        run.exit_code = sent.get("exitcode")
