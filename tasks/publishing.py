"""Publishing what a run has made, as long as the run is still the one that works for its row."""

import errno
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from emissary.errors import EmissaryError, NotFound, Unavailable
from emissary.store.artifacts import CorruptArtifact, Manifest, artifact_store
from tasks.attempt import require_lease

logger = logging.getLogger(__name__)

_PATIENCE_SECONDS = 600.0


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
        return store.folder(key)
    except NotFound:
        pass
    except CorruptArtifact as error:
        logger.warning("%s It is made again.", error)
        store.delete(key)
    with tempfile.TemporaryDirectory(prefix="emissary-prepare-") as scratch:
        make(Path(scratch))
        publish(key, Path(scratch), move=True)
    return store.folder(key)


def publish(key: str, folder: Path, *, move: bool = False) -> Manifest:
    """`ArtifactStore.publish` for a run: ends the process where another one works for the row by now.

    Waits up to ten minutes for a store that is away; then raises Unavailable. Raises DiskFull.
    """
    give_up = time.monotonic() + _PATIENCE_SECONDS
    wait = 0.5
    while True:
        require_lease()
        try:
            return artifact_store().publish(key, folder, move=move)
        except Unavailable as error:
            if time.monotonic() > give_up:
                raise
            logger.warning("%s Trying again in %.1f s.", error, wait)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull(f"the artifact {key}") from error
            raise
        time.sleep(wait)
        wait = min(2 * wait, 30.0)
