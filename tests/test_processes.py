"""The supervisor, on real processes."""

import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from emissary.processes import Supervised, Supervisor, listening_socket, port_is_free
from tests.conftest import free_port

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
