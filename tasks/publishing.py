"""Publishing what a run has made, as long as the run is still the one that works for its row."""

import errno
import logging
import time
from pathlib import Path

from emissary.errors import EmissaryError, Unavailable
from emissary.store.artifacts import Manifest, artifact_store
from tasks.attempt import require_lease

logger = logging.getLogger(__name__)

_PATIENCE_SECONDS = 600.0


class DiskFull(EmissaryError):
    """There is no room for what a run makes."""

    code = "disk_full"

    def __init__(self, what: str) -> None:
        super().__init__(f"There is no room left for {what}. Make room on the disk, and resume the job.")


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
