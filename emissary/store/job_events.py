"""What happens to training jobs: recorded once, listed in order, and told to whoever listens."""

from collections.abc import AsyncIterator, Sequence

import psycopg
from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.schemas.events import Kind
from emissary.settings import settings
from emissary.store.database import catalogue_url
from emissary.store.tables import JobEvent, Json, TrainingJob

_LAST: dict[str, Kind] = {"Success": "succeeded", "Cancelled": "cancelled", "Failed": "failed", "TimedOut": "failed"}
"""Status of an ended job → the kind of its last event."""
_CHANNEL = "job_events"


async def record(
    session: AsyncSession, /, training_job_id: str, kind: Kind, key: Json | None = None, **more: object
) -> None:
    """Record that something happened to the job, and tell those who listen when the transaction is committed.

    Does nothing where the job has an event of this kind with the same `key` (part of the details, such as
    `{"epoch": 1}`) already, since a resumed run repeats its last step, nor when the job has ended and was not queued
    again since. `more` are the other details.
    """
    if await _lock(session, training_job_id) and not await _has_ended(session, training_job_id):
        same = and_(JobEvent.kind == kind, JobEvent.details.contains(key or {}))
        # That an earlier attempt ended in the same way is another event.
        if kind in _LAST.values() or not await _has(session, training_job_id, same):
            await _add(session, training_job_id, kind, (key or {}) | more)


async def record_start(session: AsyncSession, training_job_id: str) -> None:
    """Record that the job's run begins: `started`, or `resumed` where it did before."""
    if await _lock(session, training_job_id) and not await _has_ended(session, training_job_id):
        kind: Kind = "resumed" if await _has(session, training_job_id, JobEvent.kind == "started") else "started"
        await _add(session, training_job_id, kind, {})


async def record_queued(session: AsyncSession, training_job_id: str) -> None:
    """Record that the job waits for a run: a new job, or one that goes on after it had ended."""
    if await _lock(session, training_job_id):
        await _add(session, training_job_id, "queued", {})


async def record_end(session: AsyncSession, training_job_id: str, status: str, reason: str | None = None) -> None:
    """Record how the job ended, by its new status; does nothing for a status in which it goes on."""
    if status in _LAST:
        await record(session, training_job_id, _LAST[status], {"reason": reason} if reason else {})


async def happened(session: AsyncSession, training_job_id: str, kind: Kind) -> bool:
    """Whether the job has an event of this kind."""
    return await _has(session, training_job_id, JobEvent.kind == kind)


async def list_all(
    session: AsyncSession, training_job_id: str, *, limit: int | None = None, after: int = 0
) -> Sequence[JobEvent]:
    """The job's events in their order, at most `limit` of them, from behind the one with the id `after`."""
    query = select(JobEvent).where(JobEvent.training_job_id == training_job_id, JobEvent.id > after)
    return (await session.scalars(query.order_by(JobEvent.id).limit(limit))).all()


async def news() -> AsyncIterator[str | None]:
    """Ids of jobs as events of theirs are committed, for ever; first None, once nothing is missed any more.

    Holds a connection of its own (PostgreSQL's LISTEN). Raises psycopg.Error where the connection breaks.
    """
    url = catalogue_url(settings().database_url or "").set(drivername="postgresql")
    connection = await psycopg.AsyncConnection.connect(url.render_as_string(hide_password=False), autocommit=True)
    async with connection:
        await connection.execute(f"LISTEN {_CHANNEL}")
        yield None
        async for notification in connection.notifies():
            yield notification.payload


async def _lock(session: AsyncSession, training_job_id: str) -> bool:
    """Have others that record for the job wait, so that its events are committed in the order of their ids.

    False when there is no such job (any more).
    """
    row = select(TrainingJob.id).where(TrainingJob.id == training_job_id)
    return await session.scalar(row.with_for_update(key_share=True)) is not None


async def _has_ended(session: AsyncSession, training_job_id: str) -> bool:
    """Whether the job has ended, since it was last queued."""
    last = (JobEvent.kind == "queued") | JobEvent.kind.in_(_LAST.values())
    query = select(JobEvent.kind).where(JobEvent.training_job_id == training_job_id, last)
    kind = await session.scalar(query.order_by(JobEvent.id.desc()).limit(1))
    return kind is not None and kind != "queued"


async def _has(session: AsyncSession, training_job_id: str, which: ColumnElement[bool]) -> bool:
    query = select(JobEvent.id).where(JobEvent.training_job_id == training_job_id, which)
    return await session.scalar(query.limit(1)) is not None


async def _add(session: AsyncSession, training_job_id: str, kind: Kind, details: Json) -> None:
    session.add(JobEvent(training_job_id=training_job_id, kind=kind, details=details))
    await session.flush()
    await session.execute(select(func.pg_notify(_CHANNEL, training_job_id)))
