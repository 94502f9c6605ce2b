"""Training jobs as their runs come and go: cancelled, resumed, over their time limit."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.errors import InvalidInput, Unavailable
from emissary.store import job_events, leases, testing_functions, training_jobs
from emissary.store.tables import TERMINAL, Project, TrainingJob

RESUMABLE = TERMINAL - {"Success"}


async def cancel(session: AsyncSession, project: Project, training_job_id: str) -> TrainingJob:
    """Make a live job Cancelled; that its run is to end is noted by `state_at` being null.

    Raises NotFound, and InvalidInput when the job has ended.
    """
    job = await _locked(session, project, training_job_id)
    if job.status in TERMINAL:
        raise InvalidInput(f"The training job {job.id} has ended already (status {job.status}).")
    job.status, job.state_at = "Cancelled", None
    await job_events.record_end(session, job.id, job.status)
    return job


async def resume(session: AsyncSession, project: Project, training_job_id: str) -> TrainingJob:
    """Make a job that ended without success Pending again, for a new flow run that goes on from its last checkpoint.

    Whoever still works for it loses the lease. Raises NotFound; InvalidInput where there is nothing to go on with, or
    what it needs is deleted; Unavailable while its cancelling waits for Prefect.
    """
    job = await _locked(session, project, training_job_id)
    if job.status not in RESUMABLE:
        reason = "has succeeded, so nothing is left to do" if job.status == "Success" else f"is {job.status}"
        raise InvalidInput(f"The training job {job.id} {reason}; only one that failed or was cancelled is resumed.")
    if job.base_model_option == "fine-tuned" and job.parent_id is None:
        raise InvalidInput(
            f"The training job {job.id} starts from a checkpoint of {job.base_fine_tuned_model!r}, which is deleted."
        )
    await testing_functions.resolve(session, project.organization_id, job.test_functions)
    if job.status == "Cancelled" and job.state_at is None:
        raise Unavailable(f"Prefect has not been reached yet to cancel {job.id}, so it may still run; try again soon.")
    job.status, job.error, job.flow_run_id, job.state_at, job.started_at = "Pending", None, None, None, None
    job.attempt, job.crashes = job.attempt + 1, 0
    await leases.revoke(session, job.id)
    await job_events.record_queued(session, job.id)
    return job


async def _locked(session: AsyncSession, project: Project, training_job_id: str) -> TrainingJob:
    row = select(TrainingJob.id).where(TrainingJob.id == training_job_id)
    await session.execute(row.with_for_update(key_share=True))
    return await training_jobs.get(session, training_job_id, project.id)


async def overdue(session: AsyncSession, flow_run_ids: Sequence[UUID], grace: timedelta) -> dict[UUID, int]:
    """The runs whose job is over its time limit by more than `grace`, by the database's clock, with the limit."""
    took = func.extract("epoch", func.now() - TrainingJob.started_at)
    query = select(TrainingJob.flow_run_id, TrainingJob.timeout_seconds).where(
        TrainingJob.flow_run_id.in_(flow_run_ids), took > TrainingJob.timeout_seconds + grace.total_seconds()
    )
    return {run: limit for run, limit in (await session.execute(query)).tuples() if run is not None and limit}
