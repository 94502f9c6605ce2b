"""Runs that pipelines begin because a dataset was uploaded."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.store import pipeline_runs, pipelines
from emissary.store.pipeline_tables import Pipeline, PipelineRun
from emissary.store.tables import Dataset


async def dataset_uploaded(session: AsyncSession, dataset: Dataset) -> Sequence[PipelineRun]:
    """The new runs, to be submitted; call it in the transaction in which the dataset comes into the catalogue.

    A pipeline begins none while it is paused, where the dataset does not fit, or while one waits that will gather it.
    """
    triggered = Pipeline.config.contains({"triggers": {"on_dataset": True}})
    query = select(Pipeline).where(Pipeline.project_id == dataset.project_id, Pipeline.paused.is_(False), triggered)
    # Two datasets at once begin one run: the second waits here, and finds the first one's. In order, against deadlocks.
    rows = (await session.scalars(query.order_by(Pipeline.id).with_for_update(key_share=True))).all()
    begun = []
    for pipeline in rows:
        fits = pipelines.misfit(dataset, pipelines.config(pipeline).train.task_type) is None
        if fits and await pipeline_runs.waiting(session, pipeline) is None:
            begun.append(
                await pipeline_runs.create(session, pipeline, "dataset", dataset.upload_by, trigger_id=dataset.id)
            )
    return begun
