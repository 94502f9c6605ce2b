"""What is pushed to the Hugging Face hub, and whether it may be."""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import joinedload

from emissary.errors import InvalidInput, NotFound
from emissary.schemas.hub_pushes import PushedToHub, PushToHub
from emissary.sources import connections
from emissary.store.tables import Checkpoint, Organization, Project, TrainingJob


@dataclass(frozen=True)
class Pushable:
    """A checkpoint that can be pushed."""

    job: TrainingJob
    checkpoint: Checkpoint
    last: int
    """Number of the job's last checkpoint."""
    organization: str
    """Its name."""


async def check(session: AsyncSession, project: Project, wanted: PushToHub) -> None:
    """Raises InvalidInput where the operator does not let the project's organization push there."""
    organization = await session.get_one(Organization, project.organization_id)
    connections.hub_connection(wanted.repo, organization.name)


async def pushable(
    session: AsyncSession, job_id: str, project_id: str | None = None, number: int | None = None
) -> Pushable:
    """The job's checkpoint `number`; without it the best one, or the last where none is.

    Raises NotFound for a job that is not there, or not in `project_id`; InvalidInput for a checkpoint that is not.
    """
    datasets = (joinedload(TrainingJob.train_dataset), joinedload(TrainingJob.test_dataset))
    job = await session.get(TrainingJob, job_id, options=datasets)
    if job is None or (project_id is not None and job.project_id != project_id):
        raise NotFound(f"There is no training job {job_id!r}" + (f" in project {project_id!r}." if project_id else "."))
    query = select(Checkpoint).where(Checkpoint.training_job_id == job.id).order_by(Checkpoint.number)
    there = {row.number: row for row in await session.scalars(query)}
    if not there:
        raise InvalidInput(f"The job {job.id} is {job.status} and has no checkpoint yet, so there is nothing to push.")
    wanted = number or job.best_checkpoint or max(there)
    if wanted not in there:
        complete = ", ".join(map(str, there))
        raise InvalidInput(f"checkpoint: {job.name!r} has no checkpoint {wanted}; complete are: {complete}.")
    project = await session.get_one(Project, job.project_id)
    organization = await session.get_one(Organization, project.organization_id)
    return Pushable(job, there[wanted], max(there), organization.name)


async def record(session: AsyncSession, job_id: str, pushed: PushedToHub) -> None:
    """Note the last push of the job; nothing where it was deleted meanwhile."""
    job = await session.get(TrainingJob, job_id, with_for_update={"key_share": True})
    if job is not None:
        job.pushed_to_hub = pushed.model_dump()
