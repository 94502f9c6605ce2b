"""Publishing what a run has made, as long as the run is still the one that works for its row."""

import errno
import logging
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg

from emissary.errors import EmissaryError, NotFound
from emissary.settings import settings
from emissary.store.artifacts import CorruptArtifact, Manifest, Notes, artifact_store
from emissary.store.database import catalogue_url
from tasks.attempt import require_lease
from tasks.patience import patiently

logger = logging.getLogger(__name__)

_PATIENCE_SECONDS = 600.0
# So that the server misses a machine that lost its power within half a minute, not after hours.
_NOTICING = """SELECT set_config('tcp_keepalives_idle', '10', false), set_config('tcp_keepalives_interval', '5', false),
set_config('tcp_keepalives_count', '4', false), set_config('lock_timeout', %(patience)s, false)"""


class DiskFull(EmissaryError):
    """There is no room for what a run makes."""

    code = "disk_full"

    def __init__(self, what: str) -> None:
        super().__init__(f"There is no room left for {what}. Make room on the disk, and resume the job.")


def made_once(key: str, make: Callable[[Path], None]) -> Path:
    """The folder of the artifact `key`; `make(folder)` writes its files where it is not there, or damaged.

    Of several runs that need it at once one makes it, and the others wait, for ten minutes at most, and find it. Raises
    as `publish`.
    """
    if (folder := _made(key)) is not None:
        return folder
    with closing(_locked(key)):
        if (folder := _made(key)) is not None:
            return folder
        with tempfile.TemporaryDirectory(prefix="emissary-prepare-") as scratch:
            make(Path(scratch))
            publish(key, Path(scratch), move=True)
    return patiently(artifact_store().folder, key)


def _made(key: str) -> Path | None:
    store = artifact_store()
    try:
        return patiently(store.folder, key)
    except NotFound:
        return None
    except CorruptArtifact as error:
        logger.warning("%s It is made again.", error)
        patiently(store.delete, key)
        return None


def _locked(key: str) -> psycopg.Connection:
    """A connection that has the lock of `key` until it is closed, or its process or machine dies.

    Waits while the catalogue cannot be reached. The lock saves work and no more, for what is made twice is published
    once: who has waited ten minutes for another process, which may be frozen, goes on without.
    """
    url = catalogue_url(settings().database_url or "").set(drivername="postgresql")
    wait = 0.2
    while True:
        connection = None
        try:
            connection = psycopg.connect(url.render_as_string(hide_password=False), autocommit=True, connect_timeout=10)
            connection.execute(_NOTICING, {"patience": f"{_PATIENCE_SECONDS:.0f}s"})
            connection.execute("SELECT pg_advisory_lock(hashtextextended(%s, 1))", [key])
            return connection
        except psycopg.errors.LockNotAvailable:
            logger.warning("Another run has been making %s for a long time; it is made here too.", key)
            assert connection is not None
            return connection
        except psycopg.OperationalError as error:
            if connection is not None:
                connection.close()
            logger.warning("The catalogue cannot be reached (%s); trying again in %.1f s", error, wait)
        time.sleep(wait)
        wait = min(2 * wait, 10.0)


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
