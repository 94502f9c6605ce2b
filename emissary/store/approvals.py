"""A person's word on deploying what passed the gate of a pipeline's run. What is said first counts, and is kept."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.errors import InvalidInput
from emissary.schemas.decisions import Decision
from emissary.schemas.pipelines import Approval
from emissary.store import deployments, pipeline_runs, pipelines
from emissary.store.pipeline_tables import PipelineRun


async def ask(session: AsyncSession, run_id: str) -> Approval | None:
    """What the run waits for, or has been told; None where its pipeline does not ask. Refuses it when time is over."""
    run = await pipeline_runs.locked(session, run_id)
    now = await _now(session)
    if run.approval is None:
        gate = pipelines.config(await pipelines.get(session, run.pipeline_id)).gate
        if not gate.approval:
            return None
        _keep(run, Approval(until=int((now + timedelta(hours=gate.approval_hours)).timestamp())))
        run.crashes = 0
    if _is_over(run, now):
        await _answer(session, run, None, False, "Nobody approved it in time.")
    return Approval.model_validate(run.approval)


async def answer(session: AsyncSession, run: PipelineRun, user_id: str, approved: bool, reason: str | None) -> None:
    """Note what a user says of the run.

    Raises InvalidInput where it does not wait to be told, and for a yes where there is something else by now than what
    was compared.
    """
    run = await pipeline_runs.locked(session, run.id)
    if run.approval is None or run.status not in pipelines.LIVE:
        raise InvalidInput(f"The run {run.id} does not wait for approval (status {run.status}); its detail says more.")
    if Approval.model_validate(run.approval).approved is not None or _is_over(run, await _now(session)):
        raise InvalidInput(f"The run {run.id} waits no more: it was approved or rejected, or its time is over.")
    if approved:
        await _require_compared(session, run)
    await _answer(session, run, user_id, approved, reason)
    await session.flush()
    await session.refresh(run)


async def answer_unless_answered(
    session: AsyncSession, run_id: str, user_id: str, approved: bool, reason: str | None
) -> None:
    """Note what a user said in Prefect, where nobody has said anything yet."""
    run = await pipeline_runs.locked(session, run_id)
    if run.approval is not None and Approval.model_validate(run.approval).approved is None:
        await _answer(session, run, user_id, approved, reason)


async def answered(session: AsyncSession) -> Sequence[PipelineRun]:
    """The runs that wait though they have been told, or their time is over."""
    query = select(PipelineRun).where(
        PipelineRun.status == "Pending", PipelineRun.flow_run_id.is_not(None), PipelineRun.approval.is_not(None)
    )
    now = await _now(session)
    rows = (await session.scalars(query)).all()
    return [row for row in rows if Approval.model_validate(row.approval).approved is not None or _is_over(row, now)]


def waits(run: PipelineRun) -> Approval | None:
    """What the run waits for, where it waits for a person."""
    if run.approval is None or run.status not in pipelines.LIVE:
        return None
    approval = Approval.model_validate(run.approval)
    return approval if approval.approved is None else None


async def _now(session: AsyncSession) -> datetime:
    return (await session.execute(select(func.now()))).scalar_one()


def _is_over(run: PipelineRun, now: datetime) -> bool:
    approval = Approval.model_validate(run.approval)
    return approval.approved is None and now >= datetime.fromtimestamp(approval.until, UTC)


async def _answer(
    session: AsyncSession, run: PipelineRun, user_id: str | None, approved: bool, reason: str | None
) -> None:
    told = {"approved": approved, "by": user_id, "at": int((await _now(session)).timestamp()), "reason": reason}
    _keep(run, Approval.model_validate(run.approval).model_copy(update=told))


def _keep(run: PipelineRun, approval: Approval) -> None:
    run.approval = approval.model_dump(mode="json")


async def _require_compared(session: AsyncSession, run: PipelineRun) -> None:
    if run.training_job_id is None:
        raise InvalidInput(
            "The training job whose checkpoint was to be deployed was deleted; reject it, and run again."
        )
    replaces = Decision.model_validate(run.decision).replaces
    if replaces is not None:
        row = await deployments.get(session, replaces.deployment_id, run.project_id)
        pipeline_runs.require_served(row, replaces)
