"""The supervisor, on real processes."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from emissary.processes import (
    Supervised,
    Supervisor,
    is_dead_here,
    listening_socket,
    port_is_free,
    process_identity,
)
from tests.conftest import free_port
from tests.jobs import until

SLEEP = (sys.executable, "-c", "import time; print('here', flush=True); time.sleep(600)")


def wait_for(supervised: Supervised, restarts: int) -> None:
    deadline = time.monotonic() + 20
    while supervised.restarts < restarts or supervised.process is None or supervised.process.poll() is not None:
        assert time.monotonic() < deadline, "the process was not restarted"
        time.sleep(0.05)


def test_process_that_dies_is_restarted_and_all_end_with_the_block(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path, os.environ)
    with supervisor.keep():
        supervised = supervisor.start("sleeper", *SLEEP)
        assert supervised.process is not None
        first = supervised.process.pid
        os.kill(first, signal.SIGKILL)
        wait_for(supervised, restarts=1)
        assert supervised.process.pid != first
    assert supervised.process.poll() is not None


def test_processes_end_when_the_block_raises(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path, os.environ)
    supervised = supervisor.start("sleeper", *SLEEP)

    def interrupted() -> None:
        with supervisor.keep():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert supervised.process is not None
    assert supervised.process.poll() is not None


def test_processes_are_told_to_end_at_once_and_what_they_need_when_they_have(tmp_path: Path) -> None:
    program = (
        "import signal, sys, time\n"
        "def end(*_):\n    time.sleep(2)\n    print(time.time())\n    sys.exit()\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('here', flush=True)\n"
        "time.sleep(600)"
    )
    supervisor = Supervisor(tmp_path, os.environ)
    with supervisor.keep():
        supervisor.start("server", sys.executable, "-c", program, outlives=True)
        for name in ("one", "two", "three"):
            supervisor.start(name, sys.executable, "-c", program)
        logs = [tmp_path / f"{name}.log" for name in ("one", "two", "three", "server")]
        until(lambda: [log.read_text() for log in logs], lambda said: said == ["here\n"] * 4, 60)
    *ended, last = (float(log.read_text().split()[1]) for log in logs)
    assert max(ended) - min(ended) < 1.5, "one waited for another"
    assert last - max(ended) > 1.5, "what the others need ended with them"


def test_process_keeps_its_identity_when_the_clock_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    before = process_identity()
    assert not is_dead_here(before)
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: 1.0)
    assert process_identity() == before
    host, pid, start = before.split(":")
    assert (host, int(pid)) == (socket.gethostname(), os.getpid())
    assert is_dead_here(f"{host}:{pid}:1{start}")


def test_process_that_has_ended_is_dead(tmp_path: Path) -> None:
    """Also one whose name looks like the end of what the kernel says of it."""
    odd = tmp_path / "a) 1 (b"
    odd.symlink_to(sys.executable)
    with subprocess.Popen([odd, "-c", "input()"], stdin=subprocess.PIPE) as process:
        identity = process_identity(process.pid)
        assert not is_dead_here(identity)
    assert is_dead_here(identity)


def test_port_that_is_listened_on_is_not_free() -> None:
    port = free_port()
    assert port_is_free("127.0.0.1", port)
    with socket.create_server(("127.0.0.1", port)):
        assert not port_is_free("127.0.0.1", port)


def test_connection_to_a_listening_socket_waits_for_the_process_that_inherits_it(tmp_path: Path) -> None:
    program = "import socket, sys; print(socket.socket(fileno=int(sys.argv[1])).accept()[0].send(b'here'))"
    supervisor = Supervisor(tmp_path, os.environ)
    with listening_socket("127.0.0.1", port := free_port()) as listener:
        assert not port_is_free("127.0.0.1", port)
        with socket.create_connection(("127.0.0.1", port), timeout=20) as waiting, supervisor.keep():
            number = listener.fileno()
            supervisor.start("late", sys.executable, "-c", program, str(number), descriptors=(number,))
            assert waiting.recv(10) == b"here"
