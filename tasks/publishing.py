"""Publishing what a run has made, as long as the run is still the one that works for its row."""

import errno
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

from emissary.errors import EmissaryError, NotFound
from emissary.store.artifacts import CorruptArtifact, Manifest, Notes, artifact_store
from tasks.attempt import require_lease
from tasks.patience import patiently

logger = logging.getLogger(__name__)


class DiskFull(EmissaryError):
    """There is no room for what a run makes."""

    code = "disk_full"

    def __init__(self, what: str) -> None:
        super().__init__(f"There is no room left for {what}. Make room on the disk, and resume the job.")


def made_once(key: str, make: Callable[[Path], None]) -> Path:
    """The folder of the artifact `key`; `make(folder)` writes its files where it is not there, or damaged.

    Of several runs that make it at once one publishes it, and the others find that. Raises as `publish`.
    """
    store = artifact_store()
    try:
        return patiently(store.folder, key)
    except NotFound:
        pass
    except CorruptArtifact as error:
        logger.warning("%s It is made again.", error)
        patiently(store.delete, key)
    with tempfile.TemporaryDirectory(prefix="emissary-prepare-") as scratch:
        make(Path(scratch))
        publish(key, Path(scratch), move=True)
    return patiently(store.folder, key)


def publish(key: str, folder: Path, notes: Notes | None = None, *, move: bool = False) -> Manifest:
    """`ArtifactStore.publish` for a run: ends the process where another one works for the row by now.

    Waits for a store that is away, as `patiently`. Raises DiskFull.
    """

    def once() -> Manifest:
        require_lease()
        return artifact_store().publish(key, folder, notes, move=move)

    try:
        return patiently(once)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"the artifact {key}") from error
        raise
