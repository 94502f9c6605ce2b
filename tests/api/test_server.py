"""The API's process is restarted under requests, on a catalogue and a Prefect server of its own."""

import http.client
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field

import httpx
import pytest

from emissary.processes import Supervised, Supervisor, listening_socket
from tests.api.backends import KEY, Backends
from tests.api.refusals import GOOD
from tests.conftest import free_port
from tests.jobs import until

# Processes are killed, and the rest waits until that is noticed.
pytestmark = pytest.mark.acceptance

HEADERS = {"X-API-Key": KEY}


@dataclass
class Api:
    """The process, and where it is reached."""

    process: Supervised
    url: str
    port: int

    def pid(self) -> int:
        assert self.process.process is not None
        return self.process.process.pid


@pytest.fixture(scope="module")
def api(backends: Backends) -> Iterator[Api]:
    environment = os.environ | {
        "EMISSARY_DATABASE_URL": backends.database_url,
        "EMISSARY_HOME": str(backends.home),
        "PREFECT_API_URL": backends.prefect_url,
    }
    port = free_port()
    supervisor = Supervisor(backends.home / "logs", environment)
    with listening_socket("127.0.0.1", port) as listener, supervisor.keep():
        descriptor = listener.fileno()
        process = supervisor.start(
            "api", sys.executable, "-m", "emissary.api.server", str(descriptor), descriptors=(descriptor,)
        )
        yield Api(process, f"http://127.0.0.1:{port}", port)


@pytest.fixture(autouse=True)
def up(api: Api) -> None:
    """The API answers. (A request that is made before there is a process to accept it waits.)"""
    assert httpx.get(f"{api.url}/v1/projects", headers=HEADERS, trust_env=False, timeout=120).status_code == 200


@dataclass
class Caller(threading.Thread):
    """Asks the API again and again until it is told to end."""

    url: str
    keeps_connection: bool
    answers: list[int] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        super().__init__()

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        with httpx.Client(base_url=self.url, headers=HEADERS, trust_env=False, timeout=120) as kept:
            while not self.done.is_set():
                try:
                    if self.keeps_connection:
                        answer = kept.get("/v1/projects")
                    else:
                        answer = httpx.get(f"{self.url}/v1/projects", headers=HEADERS, trust_env=False, timeout=120)
                    self.answers.append(answer.status_code)
                except httpx.TransportError as error:
                    self.errors.append(repr(error))


def restarted_under_calls(api: Api, how: signal.Signals) -> list[Caller]:
    """Callers that asked all the time while the API was ended and started again."""
    callers = [Caller(api.url, keeps) for keeps in (True, False, True, False)]
    before = api.pid()
    for caller in callers:
        caller.start()
    until(lambda: [len(caller.answers) for caller in callers], lambda counts: min(counts) > 5)
    os.kill(before, how)
    until(api.pid, lambda pid: pid != before, 40)
    counts = [len(caller.answers) for caller in callers]
    until(
        lambda: [len(caller.answers) for caller in callers],
        lambda now: all(n > c + 5 for n, c in zip(now, counts, strict=True)),
    )
    for caller in callers:
        caller.done.set()
    for caller in callers:
        caller.join()
        assert set(caller.answers) == {200}
    return callers


def test_no_request_fails_while_the_api_is_restarted(api: Api) -> None:
    assert [caller.errors for caller in restarted_under_calls(api, signal.SIGTERM)] == [[], [], [], []]


def test_kill_of_the_api_fails_only_requests_in_flight(api: Api) -> None:
    for caller in restarted_under_calls(api, signal.SIGKILL):
        assert len(caller.errors) <= 1, caller.errors


def test_request_in_flight_is_answered_before_the_api_ends(api: Api, backends: Backends) -> None:
    project = backends.request("POST", "/v1/projects", json={"name": "in-flight"}).json()["id"]
    form = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="rows.jsonl"\r\n\r\n'
        + GOOD * 4
        + b"\r\n--b--\r\n"
    )
    head = (
        f"POST /v1/projects/{project}/datasets HTTP/1.1\r\nHost: api\r\nX-API-Key: {KEY}\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {len(form)}\r\n\r\n"
    )
    before = api.pid()
    with socket.create_connection(("127.0.0.1", api.port), timeout=60) as connection:
        connection.sendall(head.encode() + form[:50])
        time.sleep(0.5)  # until it is accepted; there is nothing to poll
        os.kill(before, signal.SIGTERM)
        for start in range(50, len(form), 60):
            time.sleep(0.5)
            connection.sendall(form[start : start + 60])
        answer = connection.recv(65536).decode()
    assert answer.startswith("HTTP/1.1 201"), answer
    assert "connection: close" in answer.lower()
    until(api.pid, lambda pid: pid != before, 40)


@pytest.mark.parametrize("asked_before", [False, True])
def test_request_on_a_connection_from_before_the_restart_is_answered(api: Api, asked_before: bool) -> None:
    before = api.pid()
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=60)
    with closing(connection):
        connection.connect()
        if asked_before:
            connection.request("GET", "/v1/projects", headers=HEADERS)
            assert connection.getresponse().read()
        time.sleep(0.3)  # until it is accepted
        os.kill(before, signal.SIGTERM)
        time.sleep(0.4)  # until the API has begun to end
        connection.request("GET", "/v1/projects", headers=HEADERS)
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("connection")) == (200, "close")
        assert answer.read()
    until(api.pid, lambda pid: pid != before, 40)


def test_event_stream_ends_when_the_api_does_and_goes_on_with_the_next(api: Api, backends: Backends) -> None:
    path = backends.new_job()
    before = api.pid()
    headers = HEADERS | {"Accept": "text/event-stream"}
    last = 0
    with httpx.stream("GET", f"{api.url}{path}/events", headers=headers, trust_env=False, timeout=60) as stream:
        for line in stream.iter_lines():
            if line.startswith("id: "):
                last = int(line.removeprefix("id: "))
                os.kill(before, signal.SIGTERM)
                begun = time.monotonic()
    assert time.monotonic() - begun < 10, "the stream held the restart up"
    backends.request("POST", f"{path}/cancel")
    headers["Last-Event-ID"] = str(last)
    rest = httpx.get(f"{api.url}{path}/events", headers=headers, trust_env=False, timeout=60).text
    assert "event: cancelled" in rest
    assert "event: queued" not in rest
    until(api.pid, lambda pid: pid != before, 40)
