"""Queries of projects."""

from collections.abc import Collection, Sequence
from uuid import UUID

from sqlalchemy import delete as sql_delete
from sqlalchemy import null, select
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.errors import NotFound
from emissary.ids import new_id
from emissary.store import leases, leftovers
from emissary.store.pages import Page, fetch
from emissary.store.pipeline_tables import Pipeline, PipelineRun, Subscription
from emissary.store.tables import Checkpoint, Dataset, Deployment, JobEvent, Leftover, Project, TrainingJob, Upload
from emissary.store.users import Caller


async def create(session: AsyncSession, name: str | None, caller: Caller) -> Project:
    """A new project."""
    project_id = new_id("ms")
    project = Project(
        id=project_id,
        organization_id=caller.organization_id,
        name=name or f"project-{project_id[3:9]}",
        created_by=caller.user_id,
    )
    session.add(project)
    await session.flush()
    return project


async def get(session: AsyncSession, project_id: str, organization_id: str) -> Project:
    """The organization's project. Raises NotFound."""
    project = await session.get(Project, project_id)
    if project is None or project.organization_id != organization_id:
        raise NotFound(f"There is no project {project_id!r}.")
    return project


async def list_all(session: AsyncSession, organization_id: str, wanted: Page) -> Sequence[Project]:
    """The organization's projects, the newest first."""
    query = select(Project).where(Project.organization_id == organization_id)
    return [row for (row,) in await fetch(session, query, Project, wanted)]


async def flow_runs(session: AsyncSession, project_id: str) -> set[UUID]:
    """The flow runs of the project's jobs, deployments and pipelines."""
    found: set[UUID | None] = set()
    for kind in (PipelineRun, TrainingJob, Deployment):
        found.update(await session.scalars(select(kind.flow_run_id).where(kind.project_id == project_id)))
    return {run for run in found if run is not None}


async def delete(session: AsyncSession, project_id: str, ended: Collection[UUID]) -> Sequence[Leftover] | None:
    """Delete all rows of the project, whose flow runs `ended`; returns what they leave outside the catalogue.

    None, and nothing is deleted, when it has another run by now. Raises NotFound when the project is gone already.
    """
    # The lock keeps others from adding to the project until it is gone, and those on the jobs from adding to them.
    if await session.scalar(select(Project.id).where(Project.id == project_id).with_for_update()) is None:
        raise NotFound(f"There is no project {project_id!r}.")
    jobs = (
        await session.scalars(select(TrainingJob.id).where(TrainingJob.project_id == project_id).with_for_update())
    ).all()
    await session.execute(select(Pipeline.id).where(Pipeline.project_id == project_id).with_for_update())
    if not await flow_runs(session, project_id) <= set(ended):
        return None
    deployments = select(Deployment.id, Deployment.engine_id).where(Deployment.project_id == project_id)
    # A file that is still coming in parts has its dataset's id already.
    datasets = (
        select(Dataset.id, Dataset.sha256)
        .where(Dataset.project_id == project_id)
        .union(
            select(Upload.dataset_id, null())
            .outerjoin(Dataset, Dataset.id == Upload.dataset_id)
            .where(Upload.project_id == project_id, Dataset.id.is_(None))
        )
    )
    left = [leftovers.of_deployment(row_id, engine_id) for row_id, engine_id in await session.execute(deployments)]
    left += [leftovers.of_training_job(job_id) for job_id in jobs]
    pipeline_runs = await session.scalars(select(PipelineRun.id).where(PipelineRun.project_id == project_id))
    left += [leftovers.of_pipeline_run(run_id) for run_id in pipeline_runs]
    left += [leftovers.of_dataset(dataset_id, sha256) for dataset_id, sha256 in await session.execute(datasets)]
    # First, so that nobody is told of what goes now.
    await session.execute(sql_delete(Subscription).where(Subscription.project_id == project_id))
    of_project = select(TrainingJob.id).where(TrainingJob.project_id == project_id)
    for of_job in (JobEvent, Checkpoint):
        await session.execute(sql_delete(of_job).where(of_job.training_job_id.in_(of_project)))
    for kind in (PipelineRun, Pipeline, Deployment, TrainingJob, Upload, Dataset):
        await session.execute(sql_delete(kind).where(kind.project_id == project_id))
    await session.execute(sql_delete(Project).where(Project.id == project_id))
    await leases.forget(session, [one.id for one in left])
    await leftovers.add(session, left)
    return left
