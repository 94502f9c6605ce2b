"""Which training jobs a tracker is to be told of, and that it was."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import and_, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.store import training_jobs
from emissary.store.tables import TERMINAL, Checkpoint, Organization, Project, TrackedJob, TrainingJob

_SETTLED = timedelta(seconds=5)
"""So long the process of a job that was cancelled may write."""
_GIVEN_UP = timedelta(days=7)


@dataclass(frozen=True)
class Known:
    """What the catalogue has of a job."""

    job: TrainingJob
    checkpoints: Sequence[Checkpoint]
    project: Project
    organization: Organization


async def due(session: AsyncSession, tracker: str) -> Sequence[str]:
    """Ids of the jobs of which the tracker may have to be told something, the oldest first: those that have not ended,
    and those that it was told of before and have ended since, for a week.
    """
    told = and_(TrackedJob.training_job_id == TrainingJob.id, TrackedJob.tracker == tracker)
    live = TrainingJob.status.not_in(TERMINAL)
    since_ended = func.now() - TrainingJob.updated_at
    ended = and_(
        TrackedJob.tracker.is_not(None),
        TrackedJob.status.is_distinct_from(TrainingJob.status),
        since_ended.between(_SETTLED, _GIVEN_UP),
    )
    query = select(TrainingJob.id).outerjoin(TrackedJob, told).where(or_(live, ended))
    found = (await session.scalars(query.order_by(TrainingJob.created_at))).all()
    for job_id in found:
        first = insert(TrackedJob).values(training_job_id=job_id, tracker=tracker)
        await session.execute(first.on_conflict_do_nothing())
    return found


async def known(session: AsyncSession, job_id: str) -> Known:
    """Everything that a tracker is told of is in it. Raises NotFound."""
    job = await training_jobs.get(session, job_id)
    project = await session.get_one(Project, job.project_id)
    organization = await session.get_one(Organization, project.organization_id)
    return Known(job, await training_jobs.checkpoints(session, job_id), project, organization)


async def told(session: AsyncSession, job_id: str, tracker: str, status: str) -> None:
    """Note that the tracker knows everything of the job, which ended so."""
    row = await session.get(TrackedJob, (job_id, tracker), with_for_update=True)
    if row is not None:
        row.status = status
