"""Runs of pipelines: begun, cancelled, and what each step has done."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import null, select
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.errors import InvalidInput, NotFound
from emissary.ids import new_id
from emissary.schemas.decisions import DecidedRun, Decision, Served
from emissary.schemas.pipelines import PipelineRunCreate, Trigger
from emissary.store import job_events, pipelines, training_jobs
from emissary.store.pages import Page, fetch
from emissary.store.pipeline_tables import Pipeline, PipelineRun
from emissary.store.tables import GONE, TERMINAL, Dataset, Deployment, Project, TrainingJob


async def create(
    session: AsyncSession,
    pipeline: Pipeline,
    trigger: Trigger,
    user_id: str,
    wanted: PipelineRunCreate | None = None,
    trigger_id: str | None = None,
) -> PipelineRun:
    """A new run, Pending, begun by the webhook or dataset `trigger_id` where one did.

    Raises InvalidInput where `wanted` names a dataset or an object that it cannot use.
    """
    wanted = wanted or PipelineRunCreate()
    # It is not deleted before this run is there.
    await session.execute(select(Pipeline.id).where(Pipeline.id == pipeline.id).with_for_update(read=True))
    objects = None
    if wanted.datasets is not None:
        await pipelines.gathered(session, pipeline.project_id, pipelines.config(pipeline), wanted.datasets)
    if wanted.objects is not None:
        if wanted.datasets is not None:
            raise InvalidInput("objects: give them or datasets, for a run has its rows from either.")
        objects = pipelines.object_keys(pipelines.config(pipeline), wanted.objects)
    run = PipelineRun(
        id=new_id("pr"),
        project_id=pipeline.project_id,
        pipeline_id=pipeline.id,
        trigger=trigger,
        trigger_id=trigger_id,
        requested=wanted.datasets,
        requested_objects=objects,
        status="Pending",
        created_by=user_id,
    )
    session.add(run)
    await session.flush()
    return run


async def waiting(session: AsyncSession, pipeline: Pipeline) -> PipelineRun | None:
    """A run that is to look for the pipeline's data and has not begun to; until the transaction ends it does not.

    So it finds what this transaction brings, and what its source had before, and needs no other run for that. One by
    schedule may yet be skipped.
    """
    query = select(PipelineRun).where(
        PipelineRun.pipeline_id == pipeline.id,
        PipelineRun.status.in_(pipelines.LIVE),
        PipelineRun.outcome.is_(None),
        PipelineRun.looked.is_(False),
        PipelineRun.requested.is_(null()),
        PipelineRun.requested_objects.is_(null()),
        PipelineRun.trigger != "schedule",
    )
    query = query.order_by(PipelineRun.created_at).limit(1)
    return (await session.scalars(query.with_for_update(key_share=True))).first()


async def get(session: AsyncSession, run_id: str, pipeline_id: str | None = None) -> PipelineRun:
    """The run, of `pipeline_id` where given. Raises NotFound."""
    run = await session.get(PipelineRun, run_id)
    if run is None or (pipeline_id is not None and run.pipeline_id != pipeline_id):
        raise NotFound(
            f"There is no run {run_id!r}" + (f" of the pipeline {pipeline_id!r}." if pipeline_id else " of a pipeline.")
        )
    return run


async def list_all(session: AsyncSession, pipeline_id: str, wanted: Page) -> Sequence[PipelineRun]:
    """The pipeline's runs, the newest first."""
    query = select(PipelineRun).where(PipelineRun.pipeline_id == pipeline_id)
    return [row for (row,) in await fetch(session, query, PipelineRun, wanted)]


async def cancel(session: AsyncSession, run: PipelineRun) -> PipelineRun:
    """Make a live run Cancelled, with its training job; that its flow run is to end is noted by `state_at` being null.

    Raises InvalidInput when it has ended.
    """
    run = await locked(session, run.id)
    if run.status not in pipelines.LIVE:
        raise InvalidInput(f"The run {run.id} has ended already (status {run.status}).")
    run.status, run.state_at = "Cancelled", None
    await cancel_job(session, run)
    return run


async def cancel_job(session: AsyncSession, run: PipelineRun) -> None:
    """Have the training job of a cancelled run be cancelled too; the sweep ends what runs for it."""
    if run.training_job_id is None:
        return
    job = await session.get_one(TrainingJob, run.training_job_id, with_for_update={"key_share": True})
    if job.status not in TERMINAL:
        job.status, job.state_at = "Cancelled", None
        await job_events.record_end(session, job.id, job.status)


async def earlier(session: AsyncSession, run: PipelineRun) -> PipelineRun | None:
    """An earlier run of the same pipeline that has not ended."""
    query = select(PipelineRun).where(
        PipelineRun.pipeline_id == run.pipeline_id,
        PipelineRun.status.in_(pipelines.LIVE),
        PipelineRun.outcome.is_(None),
        (PipelineRun.created_at < run.created_at)
        | ((PipelineRun.created_at == run.created_at) & (PipelineRun.id < run.id)),
    )
    return (await session.scalars(query.limit(1))).first()


async def has_its_turn(session: AsyncSession, run_id: str) -> bool:
    """Whether no earlier run of the pipeline is on; its reason says which one it waits for."""
    run = await locked(session, run_id)
    before = await earlier(session, run)
    run.reason = None if before is None else f"It waits for the run {before.id}, which has not ended."
    return before is None


async def gather(session: AsyncSession, run_id: str) -> Sequence[Dataset]:
    """The datasets that the run uses, the oldest first, from now on the same; none where all of their content was in
    an earlier run that came to a decision. Raises InvalidInput as `pipelines.gathered`.
    """
    run = await locked(session, run_id)
    if run.gathered is not None:
        rows = {row.id: row for row in await session.scalars(_datasets(run.gathered))}
        if missing := [entry["id"] for entry in run.gathered if entry["id"] not in rows]:
            raise InvalidInput(
                f"gather: the dataset {missing[0]!r}, which this run began with, was deleted; run again."
            )
        return [rows[entry["id"]] for entry in run.gathered]
    run.looked = True
    pipeline = await pipelines.get(session, run.pipeline_id)
    found = await pipelines.gathered(session, run.project_id, pipelines.config(pipeline), run.requested)
    decided = select(PipelineRun.gathered).where(pipelines.had_before(pipeline))
    known = {entry["sha256"] for entries in await session.scalars(decided) for entry in entries or []}
    if all(row.sha256 in known for row in found):
        return []
    run.gathered = [{"id": row.id, "sha256": row.sha256} for row in found]
    return found


def _datasets(gathered: list[dict[str, Any]]) -> Any:
    return select(Dataset).where(Dataset.id.in_([entry["id"] for entry in gathered]))


async def use(session: AsyncSession, run_id: str, dataset: Dataset, merged: bool) -> None:
    """Note what the run trains on; a dataset that it merged itself comes into the catalogue with that."""
    run = await locked(session, run_id)
    if merged and await session.get(Dataset, dataset.id) is None:
        session.add(dataset)
        await session.flush()
    run.train_dataset_id, run.merged = dataset.id, merged


async def start_job(session: AsyncSession, run_id: str) -> str:
    """Id of the run's training job, made the first time, checked as one that is created over the API.

    Raises InvalidInput as `pipelines.composed`, and where the run was cancelled.
    """
    run = await locked(session, run_id)
    if run.training_job_id is not None:
        return run.training_job_id
    if run.status == "Cancelled":
        raise InvalidInput(f"The run {run.id} was cancelled.")
    if run.decision is not None:
        raise InvalidInput("The training job whose checkpoint was to be deployed was deleted; run again.")
    if run.train_dataset_id is None:
        raise InvalidInput("gather: the dataset that this run was to train on was deleted; run again.")
    project = await session.get_one(Project, run.project_id)
    pipeline = await pipelines.get(session, run.pipeline_id)
    wanted = pipelines.config(pipeline)
    train = await session.get_one(Dataset, run.train_dataset_id)
    job = await pipelines.composed(session, project, wanted, train, run.created_by)
    if wanted.deployment_id is not None:
        await pipelines.champion(session, run.project_id, wanted.deployment_id, job)
    await training_jobs.keep(session, job)
    run.training_job_id, run.crashes = job.id, 0
    return job.id


async def of_job(session: AsyncSession, training_job_id: str) -> DecidedRun | None:
    """The run that made the job, and what it decided; None where nobody but a caller did."""
    run = (await session.scalars(select(PipelineRun).where(PipelineRun.training_job_id == training_job_id))).first()
    if run is None:
        return None
    outcome = "Failed" if run.status == "Failed" else run.outcome
    return DecidedRun.model_validate(
        {"id": run.id, "pipeline_id": run.pipeline_id, "outcome": outcome, "decision": run.decision}
    )


async def decide(session: AsyncSession, run_id: str, decision: Decision) -> None:
    """Note what the gate decided."""
    run = await locked(session, run_id)
    run.decision, run.crashes = decision.model_dump(mode="json"), 0


def require_served(row: Deployment, expected: Served) -> None:
    """Raises InvalidInput where the deployment is gone, or serves something else than expected."""
    if row.status in GONE:
        raise InvalidInput(f"The deployment {row.name!r} is {row.status}.")
    if not serves(row, expected):
        raise InvalidInput(
            f"{row.name!r} serves another checkpoint by now than was compared with; run the pipeline again."
        )


def serves(row: Deployment, checkpoint: Served) -> bool:
    """Whether the catalogue has the deployment serve this."""
    return (row.training_job_id, row.checkpoint) == (checkpoint.training_job_id, checkpoint.checkpoint)


async def conclude(session: AsyncSession, run_id: str, outcome: str, reason: str) -> None:
    """Note what came of the run."""
    run = await locked(session, run_id)
    run.outcome, run.reason = outcome, reason


async def locked(session: AsyncSession, run_id: str) -> PipelineRun:
    """The run as it is now, which nobody else changes during this transaction."""
    return await session.get_one(PipelineRun, run_id, with_for_update={"key_share": True}, populate_existing=True)
