"""The platform's own processes: started together, restarted when one dies, ended together."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

_PR_SET_PDEATHSIG = 1
_STOP_SECONDS = 20.0
_LOOK_SECONDS = 1.0
_BACKLOG = 2048  # connections that wait while nobody accepts them


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies (Linux; elsewhere nothing happens)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def process_identity(pid: int | None = None) -> str:
    """host:pid:start of a process of this machine (None: this one), which names it beyond the reuse of its pid."""
    process_id = os.getpid() if pid is None else pid
    try:
        started = psutil.Process(process_id).create_time()
    except psutil.NoSuchProcess:
        started = 0.0
    return f"{socket.gethostname()}:{process_id}:{started}"


def is_dead_here(identity: str | None) -> bool:
    """Whether the process of this `process_identity` ran on this machine and no longer does."""
    host, _, rest = (identity or "").partition(":")
    if host != socket.gethostname():
        return False
    return process_identity(int(rest.partition(":")[0])) != identity


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises OSError when it cannot."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=_BACKLOG)


def port_is_free(host: str, port: int) -> bool:
    """Whether a server could listen there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


@dataclass
class Supervised:
    """One process that should run: how to start it, and the one that runs now."""

    name: str
    command: list[str]
    log: Path
    environment: dict[str, str]
    descriptors: tuple[int, ...] = ()
    """Open files that the process inherits, such as a listening socket; this process holds them between two starts."""
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    restarts: int = field(default=0, init=False)

    def start(self) -> None:
        """Start the process; its output is appended to the log file."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=self.descriptors,
                start_new_session=True,  # Ctrl-C reaches the starter alone, which ends the others in order
                preexec_fn=die_with_parent if sys.platform == "linux" else None,
            )

    def stop(self) -> None:
        """End the process: SIGTERM, and SIGKILL to its group after 20 seconds."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class Supervisor:
    """Keeps processes running until they are stopped, in the reverse order of their start."""

    def __init__(self, logs: Path, environment: Mapping[str, str]) -> None:
        self._logs, self._environment = logs, dict(environment)
        self._logs.mkdir(parents=True, exist_ok=True)
        self._running: list[Supervised] = []
        self._stopping = threading.Event()

    def start(self, name: str, *command: str, descriptors: tuple[int, ...] = ()) -> Supervised:
        """Start a process named `name`, whose log is `<name>.log`, and which inherits `descriptors`."""
        supervised = Supervised(name, list(command), self._logs / f"{name}.log", self._environment, descriptors)
        supervised.start()
        self._running.append(supervised)
        return supervised

    @contextmanager
    def keep(self) -> Iterator[None]:
        """Restart what dies for as long as the block runs, then stop everything."""
        # Not a daemon: the kernel ends children whose parent thread is gone, and this thread is their parent then.
        watcher = threading.Thread(target=self._watch, name="supervisor")
        watcher.start()
        try:
            yield
        finally:
            self._stopping.set()
            for supervised in reversed(self._running):
                supervised.stop()
            watcher.join()

    def _watch(self) -> None:
        while not self._stopping.wait(_LOOK_SECONDS):
            for supervised in self._running:
                if supervised.process is not None and supervised.process.poll() is not None:
                    supervised.restarts += 1
                    if not self._stopping.is_set():
                        supervised.start()
        for supervised in reversed(self._running):
            supervised.stop()
