"""Queries of the captured traffic of deployments.

What adds or changes entries holds a shared lock on the deployment, and takes their `revision` under it. So whoever had
the other lock on the deployment for a moment knows that all revisions up to the newest one are there (`settled`).
"""

from collections.abc import AsyncIterator, Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Select, delete, exists, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.data.rows import Row, TaskType, problem
from emissary.errors import InvalidInput, NotFound
from emissary.schemas.sources import TrafficSource
from emissary.schemas.traffic import Capture, Only, State
from emissary.store import deployments, training_jobs
from emissary.store.pages import Page, fetch
from emissary.store.tables import GONE, Deployment, TrafficEntry
from emissary.traffic_answers import Classes, checked

MOST_ENTRIES = 10_000
"""Of a deployment; of more, the oldest go, those that nobody has reviewed before all others."""
_PORTION = 500
_STATES: dict[Only, Sequence[State]] = {
    "corrected": ("corrected",),
    "reviewed": ("corrected", "accepted"),
    "all": ("corrected", "accepted", "unreviewed"),
}
_NEXT_REVISION = text("nextval('traffic_entries_revision')")


async def classes(session: AsyncSession, deployment: Deployment) -> Classes | None:
    """The classes of a deployment for classification; None of another."""
    if deployment.task_type != "classification" or deployment.training_job_id is None:
        return None
    report = (await training_jobs.get(session, deployment.training_job_id)).train_dataset.report
    return Classes(report["label_kind"], report["labels"])


async def capture(session: AsyncSession, deployment: Deployment, wanted: Capture | None) -> None:
    """Have the deployment keep its traffic from now on, or none; entries that are there expire as is wanted now."""
    row = await session.get_one(Deployment, deployment.id, with_for_update={"key_share": True}, populate_existing=True)
    if row.status in GONE:
        raise InvalidInput(f"The deployment {row.name!r} is {row.status}; there is no traffic to capture.")
    row.capture = None if wanted is None else wanted.model_dump()
    if wanted is not None:
        until = TrafficEntry.created_at + timedelta(days=wanted.keep_days)
        await session.execute(update(TrafficEntry).where(_of(row.id)).values(expires_at=until))


async def capturing(session: AsyncSession, deployment_ids: Collection[str]) -> Sequence[Deployment]:
    """Those of the deployments that still capture; they are locked for entries to be added."""
    query = select(Deployment).where(Deployment.id.in_(deployment_ids), Deployment.status.not_in(GONE))
    query = query.where(Deployment.capture.is_not(None)).order_by(Deployment.id)
    return (await session.scalars(query.with_for_update(read=True))).all()


async def add(session: AsyncSession, entries: Sequence[TrafficEntry]) -> None:
    """Keep these, of deployments that `capturing` has locked, but those that are there already."""
    known = select(TrafficEntry.id).where(TrafficEntry.id.in_([entry.id for entry in entries]))
    there = set(await session.scalars(known))
    session.add_all(entry for entry in entries if entry.id not in there)
    await session.flush()


async def count_lost(session: AsyncSession, deployment_id: str, count: int) -> None:
    """Note that so many answers were to be kept and were not."""
    values = {"capture_lost": Deployment.capture_lost + count, "updated_at": Deployment.updated_at}
    await session.execute(update(Deployment).where(Deployment.id == deployment_id).values(values))


async def list_all(
    session: AsyncSession,
    deployment_id: str,
    wanted: Page,
    *,
    state: State | None = None,
    answer_id: str | None = None,
) -> Sequence[TrafficEntry]:
    """The deployment's entries, the newest first: those that are as is said, all where nothing is."""
    query = select(TrafficEntry).where(_of(deployment_id))
    if state is not None:
        query = query.where(TrafficEntry.state == state)
    if answer_id is not None:
        query = query.where(TrafficEntry.answer_id == answer_id)
    return [row for (row,) in await fetch(session, query, TrafficEntry, wanted)]


async def get(session: AsyncSession, deployment_id: str, reference: str) -> TrafficEntry:
    """The deployment's entry of this id, or the only one of the answer of this id. Raises NotFound; InvalidInput where
    the answer was one to several inputs.
    """
    query = select(TrafficEntry).where(
        _of(deployment_id), (TrafficEntry.id == reference) | (TrafficEntry.answer_id == reference)
    )
    found = (await session.scalars(query.order_by(TrafficEntry.position).limit(2))).all()
    if not found:
        raise NotFound(
            f"The deployment {deployment_id!r} has captured nothing of the id {reference!r}, or it is removed already; "
            "an answer that has just been given is there within seconds."
        )
    if len(found) > 1:
        raise InvalidInput(
            f"{reference} answered several inputs; name one of its entries, such as {found[0].id} for the first "
            "(GET …/traffic?answer_id=… has all)."
        )
    return found[0]


async def correct(
    session: AsyncSession, deployment: Deployment, reference: str, output: Any, user_id: str
) -> TrafficEntry:
    """Note what would have been right. Raises NotFound; InvalidInput where that is no answer of the task type."""
    await _share(session, deployment)
    entry = await _locked(session, await get(session, deployment.id, reference))
    right = checked(output, task_type(deployment), await classes(session, deployment))
    _require_usable(deployment, entry.input, right)
    await _review(session, entry, "corrected", right, user_id)
    return entry


async def accept(session: AsyncSession, deployment: Deployment, reference: str, user_id: str) -> TrafficEntry:
    """Note that the answer was right; a correction is taken back. Raises NotFound; InvalidInput where it is none that
    can be learnt.
    """
    await _share(session, deployment)
    entry = await _locked(session, await get(session, deployment.id, reference))
    _require_usable(deployment, entry.input, entry.output)
    await _review(session, entry, "accepted", None, user_id)
    return entry


async def delete_all(session: AsyncSession, deployment_id: str) -> None:
    """Remove everything that was captured of the deployment."""
    await session.execute(delete(TrafficEntry).where(_of(deployment_id)))


async def source(session: AsyncSession, wanted: TrafficSource, project_id: str, task_type: str) -> Deployment:
    """The deployment whose traffic a pipeline gathers. Raises InvalidInput where it is not there or gone, or is of
    another task type.
    """
    try:
        row = await deployments.get(session, wanted.deployment_id, project_id)
    except NotFound as error:
        raise InvalidInput(f"gather.deployment_id: {error}") from error
    if row.status in GONE:
        raise InvalidInput(f"gather.deployment_id: {row.name!r} is {row.status}, and so is its traffic; name another.")
    if row.task_type != task_type:
        raise InvalidInput(
            f"gather.deployment_id: {row.name!r} is for {row.task_type}, whose traffic cannot be trained on for "
            f"{task_type}; name another, or train that."
        )
    return row


async def check_source(session: AsyncSession, wanted: TrafficSource, project_id: str, task_type: str) -> None:
    """Raises as `source`, and where there is no traffic of the deployment and none will come."""
    row = await source(session, wanted, project_id, task_type)
    if row.capture is None and not await session.scalar(select(exists().where(_of(row.id)))):
        raise InvalidInput(
            f"gather.deployment_id: {row.name!r} captures no traffic; have it do so first (PUT …/{row.id}/capture)."
        )


async def settled(session: AsyncSession, wanted: TrafficSource, project_id: str, task_type: str) -> int:
    """The newest revision of the deployment's entries: nothing with a lower one is still to come. 0: there is none.

    Raises as `source`.
    """
    row = await source(session, wanted, project_id, task_type)
    await session.execute(select(Deployment.id).where(Deployment.id == row.id).with_for_update(key_share=True))
    return await session.scalar(select(func.max(TrafficEntry.revision)).where(_of(row.id))) or 0


async def examples(
    session: AsyncSession, deployment: Deployment, only: Only, behind: int = 0, until: int | None = None
) -> AsyncIterator[Row]:
    """Rows of a dataset made of the deployment's entries whose revision is in this range, in its order; what nobody can
    learn from, such as an empty answer, is left out.
    """
    query: Select[tuple[TrafficEntry]] = select(TrafficEntry).where(
        _of(deployment.id), TrafficEntry.state.in_(_STATES[only]), TrafficEntry.revision > behind
    )
    if until is not None:
        query = query.where(TrafficEntry.revision <= until)
    found = await session.stream_scalars(query.order_by(TrafficEntry.revision).execution_options(yield_per=_PORTION))
    async for entry in found:
        row = example(entry.input, entry.output if entry.correction is None else entry.correction)
        if problem(row, task_type(deployment)) is None:
            yield row


def example(asked: Row, answer: Any) -> Row:
    """The row of a dataset that an entry's input makes with this answer."""
    if "messages" in asked:
        return {"messages": [*asked["messages"], {"role": "assistant", "content": answer}]}
    return asked | {("similarity" if "itemA" in asked else "completion"): answer}


async def forget(session: AsyncSession) -> None:
    """Remove what has expired, and of deployments with more than `MOST_ENTRIES` what is too much."""
    await session.execute(delete(TrafficEntry).where(TrafficEntry.expires_at < func.now()))
    counts = select(TrafficEntry.deployment_id).group_by(TrafficEntry.deployment_id)
    for deployment_id in await session.scalars(counts.having(func.count() > MOST_ENTRIES)):
        too_much = select(TrafficEntry.id).where(_of(deployment_id)).offset(MOST_ENTRIES)
        too_much = too_much.order_by(TrafficEntry.state == "unreviewed", TrafficEntry.created_at.desc())
        await session.execute(delete(TrafficEntry).where(TrafficEntry.id.in_(too_much)))


def _of(deployment_id: str) -> Any:
    return TrafficEntry.deployment_id == deployment_id


def task_type(deployment: Deployment) -> TaskType:
    """The deployment's task type."""
    return deployment.task_type  # type: ignore[return-value]


async def _share(session: AsyncSession, deployment: Deployment) -> None:
    await session.execute(select(Deployment.id).where(Deployment.id == deployment.id).with_for_update(read=True))


async def _locked(session: AsyncSession, entry: TrafficEntry) -> TrafficEntry:
    """The entry as it is now, which nobody else changes. Raises NotFound where it has gone just now."""
    row = await session.get(TrafficEntry, entry.id, with_for_update=True, populate_existing=True)
    if row is None:
        raise NotFound(f"The entry {entry.id} is removed already.")
    return row


def _require_usable(deployment: Deployment, asked: Row, answer: Any) -> None:
    if reason := problem(example(asked, answer), task_type(deployment)):
        raise InvalidInput(f"output: with it the entry is no row to train on: {reason}.")


async def _review(session: AsyncSession, entry: TrafficEntry, state: State, correction: Any, user_id: str) -> None:
    entry.state, entry.correction = state, correction
    entry.reviewed_by, entry.reviewed_at = user_id, datetime.now(UTC)
    entry.revision = _NEXT_REVISION  # type: ignore[assignment]
    await session.flush()
    await session.refresh(entry)
