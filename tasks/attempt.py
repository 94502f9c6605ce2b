"""This process's attempt at its row (a training job, an engine, a deployment): its lease, and whether it is to stop.

A thread of its own gives signs of life, whatever the rest of the process does. A process that is no longer the one that
works for the row ends at once, without a word to Prefect: another one tells by now.
"""

import logging
import os
import signal
import threading
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
from prefect import runtime
from prefect._internal.control_listener import get_intent
from prefect.exceptions import TerminationSignal
from prefect.utilities import engine
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.processes import process_identity
from emissary.settings import settings
from emissary.store import leases
from emissary.store.database import catalogue_url
from emissary.store.tables import TrainingJob

logger = logging.getLogger(__name__)

BEAT_SECONDS = 2.0
_LOOK_SECONDS = 0.2
# A cancelled run has to be gone within five seconds; what stops by itself does so sooner.
_CANCEL_SECONDS = 3.0
_OVERTIME_SECONDS = 30.0
# As long as a worker that leaves gives its runs; together below the 20 seconds that whoever sent the SIGTERM waits.
_SAVE_SECONDS, _END_SECONDS = 11.0, 5.0


class Interrupted(Exception):
    """Unwinds a step in another thread when the run is to stop; `end_if_interrupted` then ends the run."""


class _Attempt:
    def __init__(self, row_id: str, token: int, deadline: datetime | None) -> None:
        self.row_id, self.token, self.deadline = row_id, token, deadline
        url = catalogue_url(settings().database_url or "").set(drivername="postgresql")
        self._address = url.render_as_string(hide_password=False)
        self._cancelled_at: float | None = None
        self._ended = False

    def live(self) -> None:
        """Beat, and see to it that the process ends when it must, until it has."""
        beat_at = time.monotonic() + BEAT_SECONDS
        connection: psycopg.Connection | None = None
        while True:
            time.sleep(_LOOK_SECONDS)
            self._kill_if_stuck()
            if time.monotonic() < beat_at:
                continue
            beat_at = time.monotonic() + BEAT_SECONDS
            try:
                connection = connection or self._connect()
                beat = "UPDATE leases SET beats = beats + 1, updated_at = now() WHERE id = %s AND token = %s"
                held = connection.execute(beat, (self.row_id, self.token)).rowcount == 1
            except psycopg.Error as error:
                logger.warning("No sign of life: the catalogue cannot be reached (%s)", error)
                connection = None
                continue
            if not held:
                _leave()

    def still_held(self) -> bool:
        with self._connect() as connection:
            query = "SELECT 1 FROM leases WHERE id = %s AND token = %s"
            return connection.execute(query, (self.row_id, self.token)).fetchone() is not None

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(self._address, autocommit=True, connect_timeout=10)

    def _kill_if_stuck(self) -> None:
        now = time.monotonic()
        if get_intent() == "cancel":
            self._cancelled_at = self._cancelled_at or now
            if now - self._cancelled_at > _CANCEL_SECONDS:
                _kill()
        if get_intent() == "reschedule":
            _save()
        if _saving_since is not None and now - _saving_since > _SAVE_SECONDS and not self._ended:
            self._ended = True
            signal.raise_signal(signal.SIGTERM)
        if _saving_since is not None and now - _saving_since > _SAVE_SECONDS + _END_SECONDS:
            _kill()
        if self.deadline is not None and datetime.now(UTC) > self.deadline + timedelta(seconds=_OVERTIME_SECONDS):
            _kill()


_attempt: _Attempt | None = None
_saving_since: float | None = None


async def take_lease(session: AsyncSession, row_id: str) -> int:
    """Take the lease of the row from whoever had it; `begin` with the token once that is committed."""
    return await leases.take(session, row_id, UUID(runtime.flow_run.get_id()), process_identity())


async def has_lease(session: AsyncSession, row_id: str) -> bool:
    """Whether this process has taken the row's lease for its run, and nobody else since."""
    beat = (await leases.beats(session, [row_id])).get(row_id)
    mine = (UUID(runtime.flow_run.get_id()), process_identity())
    return beat is not None and (beat.flow_run_id, beat.holder) == mine


def begin(row_id: str, token: int, job: TrainingJob | None = None) -> None:
    """Give signs of life for the row from now on, and mind the time limit of `job`."""
    global _attempt
    deadline = None
    if job is not None and job.timeout_seconds is not None and job.started_at is not None:
        deadline = job.started_at + timedelta(seconds=job.timeout_seconds)
    _attempt = _Attempt(row_id, token, deadline)
    _replace_sigterm_handler()
    threading.Thread(target=_attempt.live, name="lease", daemon=True).start()


def require_lease() -> None:
    """Ends the process where another one works for the row by now; for the moment before something is published.

    Waits while the catalogue cannot be reached.
    """
    wait = 0.2
    while _attempt is not None:
        try:
            if not _attempt.still_held():
                _leave()
            return
        except psycopg.Error as error:
            logger.warning("The catalogue cannot be reached (%s); trying again in %.1f s", error, wait)
        time.sleep(wait)
        wait = min(2 * wait, 10.0)


def must_stop() -> bool:
    """Whether the run was cancelled: it is to stop at once."""
    return get_intent() == "cancel"


def must_save() -> bool:
    """Whether the run is to save what it has and stop: it or its worker is told to end, or its time is over."""
    return get_intent() == "reschedule" or _saving_since is not None or _is_over_time()


def raise_if_interrupted() -> None:
    """Raises Interrupted when the run is to stop; for steps that can be done again."""
    if must_stop() or must_save():
        raise Interrupted


def end_if_interrupted() -> None:
    """End the run if it is to stop; for the main thread, once nothing else of the run works any more.

    Raises TimeoutError with a sentence when its time is over, else the signal on which Prefect ends a run whose next
    state its worker sets.
    """
    if get_intent() is not None or _saving_since is not None:
        raise TerminationSignal(signal=signal.SIGTERM)
    if _is_over_time():
        assert _attempt is not None
        raise TimeoutError("The job took longer than its timeout_seconds; raise them and resume it.")


def _replace_sigterm_handler() -> None:
    """Have a SIGTERM make the run save first, whoever sends it; Prefect's handler raises wherever the run is.

    Prefect takes no word of its worker unless the handler is the one that it knows of, so that name is replaced too.
    """
    with engine._prefect_sigterm_bridge_lock:
        if engine.is_prefect_sigterm_handler_installed():
            engine._prefect_sigterm_handler = _on_sigterm  # type: ignore[assignment]
            signal.signal(signal.SIGTERM, _on_sigterm)


def _on_sigterm(number: int, *_: object) -> None:
    _save()
    assert _saving_since is not None
    if must_stop() or time.monotonic() - _saving_since > _SAVE_SECONDS:
        raise TerminationSignal(signal=number)


def _save() -> None:
    global _saving_since
    _saving_since = _saving_since or time.monotonic()


def _is_over_time() -> bool:
    deadline = _attempt.deadline if _attempt is not None else None
    return deadline is not None and datetime.now(UTC) > deadline


def _leave() -> None:
    logger.warning("Another process works for this run by now; this one ends")
    # Exit code 0: the worker is to report nothing of a run that is another's.
    os._exit(0)


def _kill() -> None:
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
