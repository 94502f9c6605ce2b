"""The row that a flow run works for: given by the API, or registered by the run itself when started in Prefect.

The run takes the row's lease with it, so that a process that worked for the row before does not go on.
"""

from datetime import UTC, datetime
from uuid import UUID

from prefect import runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.errors import InvalidInput, NotFound
from emissary.schemas.engines import EngineCreate
from emissary.schemas.grpo_jobs import GrpoJobCreate
from emissary.schemas.pipelines import PipelineRunCreate, Trigger
from emissary.schemas.training_jobs import TrainingJobCreate
from emissary.store import (
    datasets,
    deployments,
    engines,
    grpo_jobs,
    job_events,
    pipeline_runs,
    pipelines,
    training_jobs,
)
from emissary.store.pipeline_tables import PipelineRun
from emissary.store.tables import Dataset, Deployment, Engine, Project, TrainingJob
from emissary.store.users import ensure_user
from tasks import attempt, labelling
from tasks.catalogue import in_catalogue
from tasks.stopping import this_moment


@task(task_run_name="training-job", cache_policy=NO_CACHE)
async def training_job(
    training_job_id: str | None, project_id: str | None, request: TrainingJobCreate | None
) -> TrainingJob:
    """The job of `training_job_id`; without one, a job of this run's own in `project_id`, as `request` says."""
    job, token = await in_catalogue(_training_job, training_job_id, project_id, request)
    attempt.begin(job.id, token, job)
    labelling.show_row(job)
    return job


async def _training_job(
    session: AsyncSession, training_job_id: str | None, project_id: str | None, request: TrainingJobCreate | None
) -> tuple[TrainingJob, int]:
    if training_job_id is None:
        training_job_id = await _registered(session, project_id, request)
    job = await training_jobs.get(session, training_job_id)
    _require_own(job)
    job.started_at = job.started_at or datetime.now(UTC)
    # Where the answer to a commit was lost, this is done again, and the attempt begins once all the same.
    if not await attempt.has_lease(session, job.id):
        await job_events.record_start(session, training_job_id)
    return job, await attempt.take_lease(session, job.id)


async def _registered(session: AsyncSession, project_id: str | None, request: TrainingJobCreate | None) -> str:
    """The job that this run registered, now or before it was killed."""
    run_id = UUID(runtime.flow_run.get_id())
    training_job_id = await session.scalar(select(TrainingJob.id).where(TrainingJob.flow_run_id == run_id))
    if training_job_id is not None:
        return training_job_id
    if project_id is None or request is None:
        raise InvalidInput("Give project_id and request (or the training_job_id of an existing job).")
    user = await ensure_user(session, "prefect")
    project = await session.get(Project, project_id)
    if project is None:
        raise InvalidInput(f"project_id: there is no project {project_id!r}.")
    if isinstance(request, GrpoJobCreate):
        job = await grpo_jobs.create(session, project, request, user.id)
    else:
        job = await training_jobs.create(session, project, request, user.id)
    job.flow_run_id = run_id
    return job.id


@task(task_run_name="engine", cache_policy=NO_CACHE)
async def engine(engine_id: str | None, request: EngineCreate | None) -> Engine | None:
    """The engine of `engine_id`, which this run serves from now on; without one, an engine of its own, as `request`
    says. None where another run serves it already, or its schedule has it ended now.
    """
    row, token = await in_catalogue(_engine, engine_id, request)
    if row is not None:
        attempt.begin(row.id, token)
        labelling.show_row(row)
    return row


async def _engine(
    session: AsyncSession, engine_id: str | None, request: EngineCreate | None
) -> tuple[Engine | None, int]:
    run_id = UUID(runtime.flow_run.get_id())
    if engine_id is None:
        engine_id = await session.scalar(select(Engine.id).where(Engine.flow_run_id == run_id))
    if engine_id is None:
        if request is None:
            raise InvalidInput("Give request (or the engine_id of an existing engine).")
        user = await ensure_user(session, "prefect")
        made = await engines.create(
            session,
            organization_id=user.organization_id,
            name=request.name,
            base_model=request.base_model,
            task_type=request.task_type,
            management=request.resource_management_config.model_dump(),
            user_id=user.id,
        )
        engine_id = made.id
    row = await engines.adopt(session, engine_id, run_id, this_moment())
    return row, 0 if row is None else await attempt.take_lease(session, row.id)


@task(task_run_name="deployment", cache_policy=NO_CACHE)
async def deployment(deployment_id: str) -> Deployment:
    """The deployment that this run brings about."""
    row, token = await in_catalogue(_deployment, deployment_id)
    attempt.begin(row.id, token)
    labelling.show_row(row)
    return row


async def _deployment(session: AsyncSession, deployment_id: str) -> tuple[Deployment, int]:
    row = await deployments.get(session, deployment_id)
    _require_own(row)
    return row, await attempt.take_lease(session, row.id)


@task(task_run_name="dataset", cache_policy=NO_CACHE)
async def dataset(dataset_id: str, test_dataset_id: str | None) -> Dataset:
    """The dataset whose profile this run makes; a run started in Prefect becomes the dataset's own.

    Raises NotFound, also for a `test_dataset_id` that is not of the same project; InvalidInput while another run is
    at it.
    """
    row, token = await in_catalogue(_dataset, dataset_id, test_dataset_id)
    attempt.begin(row.id, token)
    labelling.show_row(row)
    return row


async def _dataset(session: AsyncSession, dataset_id: str, test_dataset_id: str | None) -> tuple[Dataset, int]:
    # Locked, so that no lease is taken for a dataset that is being deleted.
    row = await session.get(Dataset, dataset_id, with_for_update={"key_share": True})
    if row is None:
        raise NotFound(f"dataset_id: there is no dataset {dataset_id!r}.")
    if test_dataset_id is not None:
        await datasets.get(session, row.project_id, test_dataset_id)
    datasets.adopt(row, UUID(runtime.flow_run.get_id()))
    return row, await attempt.take_lease(session, row.id)


@task(task_run_name="pipeline-run", cache_policy=NO_CACHE)
async def pipeline_run(pipeline_id: str, pipeline_run_id: str | None, request: PipelineRunCreate | None) -> PipelineRun:
    """The pipeline's run of `pipeline_run_id`; without one, a run of its own for this flow run, as `request` says."""
    context = FlowRunContext.get()
    scheduled = bool(context and context.flow_run and context.flow_run.auto_scheduled)
    row, token = await in_catalogue(_pipeline_run, pipeline_id, pipeline_run_id, request, scheduled)
    attempt.begin(row.id, token)
    labelling.show_row(row)
    return row


async def _pipeline_run(
    session: AsyncSession,
    pipeline_id: str,
    pipeline_run_id: str | None,
    request: PipelineRunCreate | None,
    scheduled: bool,
) -> tuple[PipelineRun, int]:
    run_id = UUID(runtime.flow_run.get_id())
    if pipeline_run_id is None:
        pipeline_run_id = await session.scalar(select(PipelineRun.id).where(PipelineRun.flow_run_id == run_id))
    if pipeline_run_id is None:
        pipeline = await pipelines.get(session, pipeline_id)
        trigger: Trigger = "schedule" if scheduled else "request"
        run = await pipeline_runs.create(session, pipeline, trigger, pipeline.created_by, request)
        run.flow_run_id = run_id
        await session.flush()
        return run, await attempt.take_lease(session, run.id)
    run = await pipeline_runs.get(session, pipeline_run_id, pipeline_id)
    _require_own(run)
    return run, await attempt.take_lease(session, run.id)


def _require_own(row: TrainingJob | Deployment | PipelineRun) -> None:
    """Raises InvalidInput where another run works for the row, whose process would end if this one took its lease."""
    if row.flow_run_id not in (None, UUID(runtime.flow_run.get_id())):
        raise InvalidInput(
            f"{row.id} belongs to the flow run {row.flow_run_id}. A job goes on by POST …/training-jobs/{{id}}/resume; "
            "a new one is created by the API, or by this flow's form with no id in it."
        )
