"""Publishing what a run has made, as long as the run is still the one that works for its row."""

import errno
from pathlib import Path

from emissary.errors import EmissaryError
from emissary.store.artifacts import Manifest, artifact_store
from tasks.attempt import require_lease


class DiskFull(EmissaryError):
    """There is no room for what a run makes."""

    code = "disk_full"

    def __init__(self, what: str) -> None:
        super().__init__(f"There is no room left for {what}. Make room on the disk, and resume the job.")


def publish(key: str, folder: Path, *, move: bool = False) -> Manifest:
    """`ArtifactStore.publish` for a run: ends the process where another one works for the row by now.

    Raises DiskFull.
    """
    require_lease()
    try:
        return artifact_store().publish(key, folder, move=move)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"the artifact {key}") from error
        raise
