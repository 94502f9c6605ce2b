"""What Prefect calls the flow run of a row: its name, and the tags by which all that belongs together is found."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.store.pipeline_tables import PipelineRun
from emissary.store.tables import Dataset, Deployment, Engine, FlowBacked, TrainingJob


def name(row: FlowBacked) -> str:
    """The name of the run of a row's attempt."""
    return row.id if row.attempt == 1 else f"{row.id}-{row.attempt}"


async def tags(session: AsyncSession, row: FlowBacked) -> list[str]:
    """Ids: the row's own, and those of what it is a part of; of a job that a pipeline made also the pipeline's."""
    match row:
        case TrainingJob():
            made_by = select(PipelineRun.pipeline_id).where(PipelineRun.training_job_id == row.id)
            return [row.project_id, *(await session.scalars(made_by)), row.id]
        case Engine():
            return [row.id]
        case Deployment():
            return [row.project_id, row.engine_id, row.id]
        case Dataset():
            return [row.project_id, row.id]
        case PipelineRun():
            return [row.project_id, row.pipeline_id, row.id]
    raise TypeError(f"{type(row).__name__} rows have no flow")
