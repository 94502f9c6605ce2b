"""A proxy in front of a Prefect server that can make it slow, failing, or answer too late."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

import httpx

Mood = Literal["well", "error", "locked", "slow", "late"]
_DROPPED = {"transfer-encoding", "connection", "content-encoding", "content-length", "host", "accept-encoding"}


class PrefectProxy(ThreadingHTTPServer):
    """Passes requests on, unless in a mood: error answers 500, locked 503; slow asks, late answers too late."""

    daemon_threads = True

    def __init__(self, server_url: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.server_url = server_url.removesuffix("/api")
        self.mood: Mood = "well"
        self.recovered = threading.Event()

    @property
    def api_url(self) -> str:
        """Where it is reached."""
        return f"http://127.0.0.1:{self.server_address[1]}/api"

    @contextmanager
    def being(self, mood: Mood) -> Iterator[None]:
        """In this mood while the block runs; what is held up goes on at its end."""
        self.mood = mood
        try:
            yield
        finally:
            self.mood = "well"
            self.recovered.set()
            self.recovered = threading.Event()


class _Handler(BaseHTTPRequestHandler):
    server: PrefectProxy
    protocol_version = "HTTP/1.1"

    def _pass_on(self) -> None:
        content = self.rfile.read(int(self.headers.get("content-length", 0)))
        mood, recovered = self.server.mood, self.server.recovered
        if mood in ("error", "locked"):
            status, body = (500, b"Internal Server Error") if mood == "error" else (503, b'"database is locked"')
            self._answer(status, body, {})
            return
        if mood == "slow":
            recovered.wait(60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _DROPPED}
        url = f"{self.server.server_url}{self.path}"
        answer = httpx.request(self.command, url, content=content, headers=headers, trust_env=False, timeout=60)
        if mood == "late":
            recovered.wait(60)
        self._answer(answer.status_code, answer.content, dict(answer.headers))

    do_GET = do_POST = do_PATCH = do_DELETE = _pass_on

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        try:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in _DROPPED | {"date", "server"}:
                    self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except ConnectionError:
            self.close_connection = True  # whoever asked has given up

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def proxy_of(server_url: str) -> Iterator[PrefectProxy]:
    """A proxy of the server while the block runs."""
    with PrefectProxy(server_url) as proxy:
        thread = threading.Thread(target=proxy.serve_forever)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()
