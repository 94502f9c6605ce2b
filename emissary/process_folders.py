"""The folders of a process: its temporary files, and of a worker the socket of its fork server.

They are named by the process, so that what one left that was killed is known, and removed by the next.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from emissary.processes import is_dead_here, process_identity
from emissary.settings import Settings

_SOCKETS = "emissary-worker-"


@dataclass(frozen=True)
class WorkerFolders:
    """`scratch` is for temporary files; `sockets` lies in the system's folder, for a short path."""

    scratch: Path
    sockets: Path


@contextmanager
def scratch_folder(chosen: Settings) -> Iterator[Path]:
    """A folder for this process's temporary files, beside the artifacts, where there is room, while the block runs;
    removes what processes left that are dead.
    """
    parent = chosen.home / "scratch"
    parent.mkdir(parents=True, exist_ok=True)
    for folder in parent.iterdir():
        if is_dead_here(folder.name):
            _remove(folder)
    mine = parent / process_identity()
    mine.mkdir(mode=0o700)
    try:
        yield mine
    finally:
        _remove(mine)


@contextmanager
def worker_folders(chosen: Settings) -> Iterator[WorkerFolders]:
    """The folders of this process, a worker, while the block runs."""
    with scratch_folder(chosen) as scratch:
        sockets = _sockets(scratch)
        sockets.mkdir(mode=0o700)
        yield WorkerFolders(scratch, sockets)


def _sockets(scratch: Path) -> Path:
    return Path(tempfile.gettempdir()) / f"{_SOCKETS}{scratch.name.partition(':')[2]}"


def _remove(scratch: Path) -> None:
    shutil.rmtree(_sockets(scratch), ignore_errors=True)
    shutil.rmtree(scratch, ignore_errors=True)
