"""A real HTTP server on a loopback address, for what is fetched from the web."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ADDRESS = "127.0.0.2"
"""A loopback address that the tests' platform is allowed to call; 127.0.0.1 is not."""


@dataclass
class Web:
    """What the server answers and was asked."""

    port: int
    address: str
    answers: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    """Status, headers and body by path. One with an ETag that the request has is answered with 304."""
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """Path and headers of each request."""
    posted: list[bytes] = field(default_factory=list)
    """What was posted, in the order of `asked`."""
    held: threading.Event = field(default_factory=threading.Event)
    """While it is set, what is posted is not answered."""

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{self.address}:{self.port}"

    def put(self, path: str, body: bytes, **headers: str) -> str:
        """Have it answer `path` with this, and the address of that."""
        self.answers[path] = (200, headers, body)
        return f"{self.url}{path}"


@contextmanager
def web_server(address: str = ADDRESS) -> Iterator[Web]:
    """The server while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            web.posted.append(self.rfile.read(int(self.headers["Content-Length"])))
            while web.held.is_set():
                time.sleep(0.05)
            self.do_GET()

        def do_GET(self) -> None:
            web.asked.append((self.path, dict(self.headers)))
            status, headers, body = web.answers.get(self.path.partition("?")[0], (404, {}, b"nothing here"))
            if "ETag" in headers and self.headers["If-None-Match"] == headers["ETag"]:
                status, body = 304, b""
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with serving(Handler, address) as server:
        web = Web(server.server_port, address)
        yield web


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], address: str = "127.0.0.1") -> Iterator[ThreadingHTTPServer]:
    """A server with this handler, on a free port, while the block runs."""
    server = ThreadingHTTPServer((address, 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
