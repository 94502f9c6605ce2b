"""The folders of a worker: temporary files of its runs, and the socket of its fork server.

They are named by the worker's process, so that what one left that was killed is known, and removed by the next.
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
    """`scratch` lies beside the artifacts, where there is room; `sockets` in the system's folder, for a short path."""

    scratch: Path
    sockets: Path


@contextmanager
def worker_folders(chosen: Settings) -> Iterator[WorkerFolders]:
    """The folders of this process, while the block runs; removes those of workers that are dead."""
    parent = chosen.home / "scratch"
    parent.mkdir(parents=True, exist_ok=True)
    for folder in parent.iterdir():
        if is_dead_here(folder.name):
            _remove(_folders(parent, folder.name))
    mine = _folders(parent, process_identity())
    mine.scratch.mkdir()
    mine.sockets.mkdir(mode=0o700)
    try:
        yield mine
    finally:
        _remove(mine)


def _folders(parent: Path, identity: str) -> WorkerFolders:
    return WorkerFolders(parent / identity, Path(tempfile.gettempdir()) / f"{_SOCKETS}{identity.partition(':')[2]}")


def _remove(folders: WorkerFolders) -> None:
    shutil.rmtree(folders.sockets, ignore_errors=True)
    shutil.rmtree(folders.scratch, ignore_errors=True)
