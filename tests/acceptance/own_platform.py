"""`emissary up` in a home of its own, as processes that can be killed: one of a kind, or all of them at once."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx
import psutil

from emissary.client import Client
from emissary.errors import Unavailable
from emissary.secret_files import first_api_key
from emissary.settings import PROJECT_ROOT, Settings
from tests.conftest import free_port
from tests.jobs import until
from tests.orphans import adopting_orphans

T = TypeVar("T")
READY_SECONDS = 240.0


@dataclass(frozen=True)
class Part:
    """A process of the platform, and what it is."""

    kind: str
    process: psutil.Process


class OwnPlatform:
    """The platform of one home. Its orphans become children of this process, so that none gets out of sight."""

    def __init__(self, folder: Path, models: Path, variables: dict[str, str]) -> None:
        self.home, self.temporary, self.log = folder / "home", folder / "tmp", folder / "up.log"
        self.temporary.mkdir()
        self.temporary.chmod(0o1777)  # PostgreSQL has a user of its own where the tests run as root
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("EMISSARY_", "PREFECT_"))}
        self.port, self.prefect_port = free_port(), free_port()
        self._environment = kept | {
            "EMISSARY_HOME": str(self.home),
            "EMISSARY_MODELS": str(models),
            "EMISSARY_PORT": str(self.port),
            "EMISSARY_PREFECT_PORT": str(self.prefect_port),
            "TMPDIR": str(self.temporary),
            **variables,
        }
        self._before = {child.pid for child in psutil.Process().children()}
        self._up: subprocess.Popen[bytes] | None = None
        self.prefect = httpx.Client(base_url=f"http://127.0.0.1:{self.prefect_port}/api", trust_env=False, timeout=60)

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        with self.log.open("ab") as log:
            self._up = subprocess.Popen(
                [sys.executable, "-m", "emissary.cli", "up"],
                env=self._environment,
                cwd=PROJECT_ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until(self._is_ready, bool, READY_SECONDS)

    def _is_ready(self) -> bool:
        self.reap()
        assert self._up is not None
        assert self._up.poll() is None, f"`emissary up` ended: {self.log.read_text()[-3000:]}"
        # The end of its start, after which a signal finds all in place. Looked at last, for a request is held while the
        # API starts.
        return self.is_healthy() and self.log.read_text().count("Ctrl-C stops everything.") == self._starts

    @property
    def _starts(self) -> int:
        return self.log.read_text().count("PostgreSQL: starting")

    def is_healthy(self) -> bool:
        """Whether jobs can run."""
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"http://127.0.0.1:{self.port}/healthz", trust_env=False, timeout=30).status_code == 200
        return False

    def client(self) -> Client:
        """A new client with the first key."""
        key = first_api_key(Settings(home=self.home, api_key=None)).get_secret_value()
        return Client(f"http://127.0.0.1:{self.port}", key)

    def stop(self) -> None:
        """End it as Ctrl-C does."""
        if self._up is not None and self._up.poll() is None:
            self._up.send_signal(signal.SIGINT)
            self._up.wait(120)
        self.reap()

    def kill_everything(self) -> None:
        """Kill -9 every process of it, PostgreSQL's too, as when the machine loses its power."""
        while found := self.processes():
            for process in found:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(found, 10)
            self.reap()

    def processes(self) -> list[psutil.Process]:
        """All its processes that live, also those whose parent has died."""
        self.reap()
        found = []
        for child in psutil.Process().children():
            if child.pid not in self._before:
                with contextlib.suppress(psutil.NoSuchProcess):
                    found += [child, *child.children(recursive=True)]
        return [process for process in found if _is_alive(process)]

    def parts(self) -> list[Part]:
        """Its processes with their kinds."""
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(Part(self._kind(process), process))
        return found

    def _kind(self, process: psutil.Process) -> str:
        words = process.cmdline()
        line, parent = " ".join(words), process.parent()
        above = " ".join(parent.cmdline()) if parent else ""
        for mark, kind in (
            ("emissary.cli up", "supervisor"),
            ("emissary.worker", "worker"),
            ("emissary.api.server", "API"),
            ("prefect server start", "Prefect server"),
            ("multiprocessing.resource_tracker", "resource tracker"),
            (str(self.home / "postgres"), "postmaster"),
            # Of the two that bubblewrap is, the outer one.
            ("bwrap", "other" if "bwrap" in above else "sandbox"),
        ):
            if mark in line:
                return kind
        if line.startswith("postgres:"):
            return "PostgreSQL backend" if "[local]" in line else "PostgreSQL"
        if "multiprocessing.forkserver" in line:
            # A run has the command line of the fork server, whose child it is.
            return "run" if "multiprocessing.forkserver" in above else "fork server"
        return "other"

    def send(self, kind: str, number: signal.Signals, share: float) -> str | None:
        """Send a signal to one process of the kind, of several the one at `share` of their list; says to which."""
        found = [part.process for part in self.parts() if part.kind == kind]
        if not found:
            return None
        process = sorted(found, key=lambda each: each.pid)[int(share * len(found))]
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
        return f"{kind} {process.pid}"

    def database_url(self) -> str:
        """The catalogue's address, as the platform's processes have it."""
        (api,) = [part.process for part in self.parts() if part.kind == "API"]
        return api.environ()["EMISSARY_DATABASE_URL"]

    def reap(self) -> None:
        """Wait for adopted processes that have ended, so that they are gone for those who look for them."""
        for child in psutil.Process().children():
            if child.pid in self._before or (self._up is not None and child.pid == self._up.pid):
                continue
            with contextlib.suppress(psutil.NoSuchProcess, ChildProcessError):
                if child.status() == psutil.STATUS_ZOMBIE:
                    os.waitpid(child.pid, os.WNOHANG)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextlib.contextmanager
def own_platform(models: Path, **variables: str) -> Iterator[OwnPlatform]:
    """A platform that has been started; whatever it leaves is killed and removed at the end."""
    # Not pytest's folder: that is closed to PostgreSQL's user. Short, for it holds sockets, whose paths are limited.
    temporary = tempfile.TemporaryDirectory(prefix="emissary-own-", ignore_cleanup_errors=True)
    with adopting_orphans(), temporary as folder:
        Path(folder).chmod(0o755)
        platform = OwnPlatform(Path(folder), models, variables)
        try:
            platform.start()
            yield platform
            platform.stop()
        finally:
            platform.kill_everything()


def patient(call: Callable[[], T], seconds: float = 120.0) -> T:
    """What `call()` gives once the API answers."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return call()
        except Unavailable:
            assert time.monotonic() < deadline, "the API does not answer"
            time.sleep(0.2)
