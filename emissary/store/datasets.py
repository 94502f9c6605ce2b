"""Queries of datasets."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import delete as sql_delete
from sqlalchemy import or_, select, update
from sqlalchemy.dialects.postgresql import array
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import defer, undefer

from emissary.errors import InvalidInput, NotFound
from emissary.store import leases
from emissary.store.pages import Page, fetch
from emissary.store.tables import TERMINAL, Dataset, Json, TrainingJob, Upload


async def get(session: AsyncSession, project_id: str, dataset_id: str) -> Dataset:
    """The dataset of the project. Raises NotFound."""
    dataset = await session.get(Dataset, dataset_id, options=[undefer(Dataset.profile)])
    if dataset is None or dataset.project_id != project_id:
        raise NotFound(f"There is no dataset {dataset_id!r} in project {project_id!r}.")
    return dataset


async def list_all(session: AsyncSession, project_id: str, wanted: Page) -> Sequence[Dataset]:
    """The project's datasets, the newest first, without their reports."""
    query = select(Dataset).where(Dataset.project_id == project_id).options(defer(Dataset.report, raiseload=True))
    return [row for (row,) in await fetch(session, query, Dataset, wanted)]


async def delete(session: AsyncSession, dataset: Dataset) -> None:
    """Forget the dataset. Raises InvalidInput when a training job was made from it."""
    used = select(TrainingJob.id).where(
        or_(TrainingJob.train_dataset_id == dataset.id, TrainingJob.test_dataset_id == dataset.id)
    )
    job_id = (await session.scalars(used.limit(1))).first()
    if job_id is not None:
        raise InvalidInput(f"The dataset {dataset.id} belongs to training job {job_id}; delete that first.")
    await session.execute(sql_delete(Upload).where(Upload.dataset_id == dataset.id))
    await leases.forget(session, [dataset.id])
    await session.delete(dataset)


def adopt(dataset: Dataset, flow_run_id: UUID) -> None:
    """Make the flow run the one that makes the dataset's profile. Raises InvalidInput while another one does."""
    if dataset.flow_run_id == flow_run_id:
        return
    if dataset.flow_run_id is not None:
        if dataset.status in ("Pending", "Running"):
            raise InvalidInput(
                f"The flow run {dataset.flow_run_id} prepares the dataset {dataset.id}; wait until it has ended."
            )
        dataset.attempt += 1
    dataset.flow_run_id, dataset.status = flow_run_id, "Running"
    dataset.state_at, dataset.crashes, dataset.error = None, 0, None


async def record_profile(session: AsyncSession, dataset_id: str, profile: Json, artifact: str) -> None:
    """Show this profile, whose plots are in `artifact`, as the dataset's."""
    await session.execute(
        update(Dataset).where(Dataset.id == dataset_id).values(profile=profile, profile_artifact=artifact, crashes=0)
    )


async def profile_again(session: AsyncSession, task_types: Sequence[str]) -> None:
    """Have profiles without token lengths made again, of datasets fit for one of the tasks: these have a model now."""
    without = Dataset.profile.is_not(None) & Dataset.profile["tokens"].astext.is_(None)
    fit = Dataset.report["compatible_task_types"].has_any(array(task_types))
    await session.execute(
        update(Dataset)
        .where(without, fit, Dataset.status.in_(TERMINAL))
        .values(flow_run_id=None, status="Pending", attempt=Dataset.attempt + 1, state_at=None, crashes=0, error=None)
    )
