"""The platform's own processes: started together, restarted when one dies, ended together."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
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
    return f"{socket.gethostname()}:{process_id}:{_start(process_id)}"


def _start(pid: int) -> str:
    """When a process began, "0" where there is none; on Linux by a clock that nobody sets, and since which boot."""
    try:
        if sys.platform != "linux":
            return str(psutil.Process(pid).create_time())
        # The program's name, in brackets, may hold spaces and brackets. After it comes field 3; field 22 is the start.
        ticks = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return "0"
    return f"{ticks}.{_boot()}"


@cache
def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text()[:8]


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
    outlives: bool = False
    """Whether the others need it for as long as they run."""
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

    def terminate(self) -> None:
        """Send SIGTERM to the process."""
        if self.process is not None:
            self.process.terminate()

    def end(self, seconds: float) -> None:
        """Wait for its end; SIGKILL to its group after so many seconds."""
        if self.process is None:
            return
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class Supervisor:
    """Keeps processes running until they are stopped, all at once, and then those that outlive the others."""

    def __init__(self, logs: Path, environment: Mapping[str, str]) -> None:
        self._logs, self._environment = logs, dict(environment)
        self._logs.mkdir(parents=True, exist_ok=True)
        self._running: list[Supervised] = []
        self._stopping = threading.Event()

    def start(self, name: str, *command: str, descriptors: tuple[int, ...] = (), outlives: bool = False) -> Supervised:
        """Start a process named `name`, whose log is `<name>.log`, and which inherits `descriptors`.

        One that `outlives` the others is stopped when they have ended.
        """
        log = self._logs / f"{name}.log"
        supervised = Supervised(name, list(command), log, self._environment, descriptors, outlives)
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
            self._stop()
            watcher.join()

    def _watch(self) -> None:
        while not self._stopping.wait(_LOOK_SECONDS):
            for supervised in self._running:
                if supervised.process is not None and supervised.process.poll() is not None:
                    supervised.restarts += 1
                    if not self._stopping.is_set():
                        supervised.start()
        self._stop()

    def _stop(self) -> None:
        """End all processes: SIGTERM, and SIGKILL to what has not ended after 20 seconds."""
        for outlives in (False, True):
            ending = [supervised for supervised in self._running if supervised.outlives is outlives]
            for supervised in ending:
                supervised.terminate()
            deadline = time.monotonic() + _STOP_SECONDS
            for supervised in ending:
                supervised.end(max(0.0, deadline - time.monotonic()))
