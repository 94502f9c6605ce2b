"""The row that a flow run works for: given by the API, or registered by the run itself when started in Prefect."""

from uuid import UUID

from prefect import runtime, task
from prefect.cache_policies import NO_CACHE
from sqlalchemy import select

from emissary.errors import InvalidInput
from emissary.schemas.engines import EngineCreate
from emissary.schemas.grpo_jobs import GrpoJobCreate
from emissary.schemas.training_jobs import TrainingJobCreate
from emissary.store import engines, grpo_jobs, job_events, training_jobs
from emissary.store.database import transaction
from emissary.store.tables import Engine, Project, TrainingJob
from emissary.store.users import ensure_user
from tasks.stopping import this_moment


@task(task_run_name="training-job", cache_policy=NO_CACHE)
async def training_job(
    training_job_id: str | None, project_id: str | None, request: TrainingJobCreate | None
) -> TrainingJob:
    """The job of `training_job_id`; without one, a job of this run's own in `project_id`, as `request` says."""
    async with transaction() as session:
        if training_job_id is None:
            run_id = UUID(runtime.flow_run.get_id())
            found = select(TrainingJob.id).where(TrainingJob.flow_run_id == run_id)
            training_job_id = await session.scalar(found)
            if training_job_id is None:
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
                training_job_id = job.id
        await job_events.record_start(session, training_job_id)
        return await training_jobs.get(session, training_job_id)


@task(task_run_name="engine", cache_policy=NO_CACHE)
async def engine(engine_id: str | None, request: EngineCreate | None) -> Engine | None:
    """The engine of `engine_id`, which this run serves from now on; without one, an engine of its own, as `request`
    says. None where another run serves it already, or its schedule has it ended now.
    """
    run_id = UUID(runtime.flow_run.get_id())
    async with transaction() as session:
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
        return await engines.adopt(session, engine_id, run_id, this_moment())
