"""Queries of deployments."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import joinedload

from emissary import base_models, schedules
from emissary.errors import InvalidInput, NotFound
from emissary.ids import new_id
from emissary.schemas.traffic import Capture
from emissary.store import engines, training_jobs
from emissary.store.pages import Page, fetch
from emissary.store.tables import GONE, Checkpoint, Deployment, Engine, Project


async def create(
    session: AsyncSession,
    project: Project,
    *,
    training_job_id: str,
    checkpoint: int | str,
    name: str | None,
    description: str | None,
    engine: Engine | None,
    management: dict[str, Any] | None = None,
    capture: Capture | None = None,
    user_id: str,
) -> Deployment:
    """A new deployment on `engine`, or else on one that fits and has `management`, which is made when there is none.

    It is Pending, its engine being started where it has ended; or Deactivated where the engine's schedule has it ended
    now. Raises InvalidInput for an unknown job, base model or checkpoint, a name in use, or an engine of another base
    model.
    """
    source = await _source(session, project, training_job_id, checkpoint, engine)
    base_model, task_type, job_id, number, source_name = source
    if base_models.catalogue().get(name or ""):
        raise InvalidInput(f"name: {name!r} is the name of a base model; choose another.")
    if engine is not None:
        engine = await engines.lock(session, engine.id)
        if (engine.base_model, engine.task_type) != (base_model, task_type):
            raise InvalidInput(
                f"training_id: the engine {engine.id} serves {engine.base_model} for {engine.task_type}, "
                f"not {base_model} for {task_type}."
            )
    else:
        assert management is not None
        organization_id = project.organization_id
        engine = await engines.find_usable(session, organization_id, base_model, task_type, management)
        engine = engine or await engines.create(
            session,
            organization_id=organization_id,
            name=f"{source_name}-engine",
            base_model=base_model,
            task_type=task_type,
            management=management,
            user_id=user_id,
        )
    if engine.status == "Inactive":
        schedule = schedules.of_engine(engine.resource_management_config)
        if schedules.is_open(schedule, datetime.now(UTC)):
            await engines.restart(session, engine)
    deployment = Deployment(
        id=new_id("dp"),
        organization_id=project.organization_id,
        project_id=project.id,
        name=name or (f"{source_name}-checkpoint-{number}" if job_id else f"{source_name}-base"),
        description=description,
        base_model=base_model,
        task_type=task_type,
        training_job_id=job_id,
        checkpoint=number,
        engine=engine,
        capture=None if capture is None else capture.model_dump(),
        status="Deactivated" if engine.status == "Inactive" else "Pending",
        created_by=user_id,
    )
    session.add(deployment)
    try:
        await session.flush()
    except IntegrityError as error:
        if "deployments_live_name" not in str(error.orig):
            raise
        raise InvalidInput(f"name: there is a deployment {deployment.name!r} already; choose another name.") from error
    return deployment


async def _source(
    session: AsyncSession, project: Project, training_job_id: str, checkpoint: int | str, engine: Engine | None
) -> tuple[str, str, str | None, int, str]:
    """(base model, task type, job id, checkpoint number, name of the job or base model) of what is to be deployed."""
    if checkpoint == 0 and (entry := base_models.find(training_job_id)) is not None:
        fits = engine is not None and engine.task_type in entry.untrained_tasks
        task_type = engine.task_type if engine is not None and fits else entry.untrained_tasks[0]
        return entry.name, task_type, None, 0, entry.short_name
    try:
        job = await training_jobs.get(session, training_job_id, project.id)
    except NotFound as error:
        raise InvalidInput(f"training_job_id: {error}") from error
    if checkpoint == "best":
        if job.best_checkpoint is None:
            raise InvalidInput(
                f"checkpoint: no best checkpoint of {job.id} is known (status {job.status}); wait until it is tested, "
                "or name a number."
            )
        number = job.best_checkpoint
    else:
        number = int(checkpoint)
    if not number and job.task_type in ("classification", "regression"):
        raise InvalidInput(
            f"checkpoint: 0 is the base model, which has not learnt any {job.task_type}; deploy a trained checkpoint."
        )
    if number and await session.get(Checkpoint, (job.id, number)) is None:
        there = ", ".join(str(row.number) for row in await training_jobs.checkpoints(session, job.id)) or "none yet"
        raise InvalidInput(f"checkpoint: {job.id} has no checkpoint {number}; complete are: {there}.")
    return job.base_model, job.task_type, job.id, number, job.name


async def get(session: AsyncSession, deployment_id: str, project_id: str | None = None) -> Deployment:
    """The deployment with its engine, of `project_id` where given. Raises NotFound."""
    deployment = await session.get(Deployment, deployment_id, options=[joinedload(Deployment.engine)])
    if deployment is None or (project_id is not None and deployment.project_id != project_id):
        raise NotFound(
            f"There is no deployment {deployment_id!r}" + (f" in project {project_id!r}." if project_id else ".")
        )
    return deployment


async def metadata(session: AsyncSession, deployment: Deployment) -> dict[str, Any]:
    """What else there is to know of a deployment: for classification, its labels."""
    if deployment.task_type != "classification" or deployment.training_job_id is None:
        return {}
    job = await training_jobs.get(session, deployment.training_job_id)
    return {"labels": job.train_dataset.report["labels"]}


async def list_all(session: AsyncSession, project_id: str, wanted: Page) -> Sequence[Deployment]:
    """The project's deployments, the newest first."""
    query = select(Deployment).where(Deployment.project_id == project_id)
    return [row for (row,) in await fetch(session, query, Deployment, wanted)]


async def list_callable(session: AsyncSession, organization_id: str) -> Sequence[Deployment]:
    """The organization's deployments that answer, or will once their engine is back, the newest first."""
    query = select(Deployment).where(
        Deployment.organization_id == organization_id,
        Deployment.status.in_(("Deployed", "Deactivated", "Reactivating")),
    )
    return (await session.scalars(query.order_by(Deployment.created_at.desc()))).all()


@dataclass(frozen=True)
class Target:
    """What answers for a model name: an engine, the name it knows the model by, and whether it has it loaded; whether
    and how what it answers is kept.
    """

    engine: Engine
    name: str
    loaded: bool
    capture: Capture | None = None


async def find_callable(session: AsyncSession, organization_id: str, model: str) -> Target:
    """What answers for `model`: the name or id of a live deployment of the organization, or a base model that one of
    its engines serves, the running ones first. Raises NotFound when there is no such model.
    """
    query = (
        select(Deployment)
        .where(
            Deployment.organization_id == organization_id,
            (Deployment.name == model) | (Deployment.id == model),
            Deployment.status.not_in(GONE),
        )
        .options(joinedload(Deployment.engine))
    )
    deployment = (await session.scalars(query.limit(1))).first()
    if deployment is not None:
        loaded = deployment.status == "Deployed" and _is_up(deployment.engine)
        capture = None if deployment.capture is None else Capture.model_validate(deployment.capture)
        return Target(deployment.engine, deployment.id, loaded, capture)
    if (entry := base_models.find(model)) is not None:
        base = select(Engine).where(
            Engine.organization_id == organization_id,
            Engine.base_model == model,
            Engine.task_type.in_(entry.untrained_tasks),
        )
        # Of those that have ended, one with a timeout first: it starts at any time.
        management_type = Engine.resource_management_config["management_type"].astext
        ordered = base.order_by(Engine.status, management_type, Engine.created_at)
        engine = (await session.scalars(ordered.limit(1))).first()
        if engine is not None:
            return Target(engine, model, _is_up(engine))
        raise NotFound(f"model: no engine serves the base model {model!r}; create one with POST /v1/engines.")
    raise NotFound(f"model: there is no deployment or base model {model!r}.")


def _is_up(engine: Engine) -> bool:
    return engine.status == "Active" and engine.endpoint is not None


async def fail(session: AsyncSession, deployment_id: str, sentence: str) -> None:
    """Note why a deployment cannot be served; its name is free again."""
    await session.execute(
        update(Deployment).where(Deployment.id == deployment_id).values(status="Failed", error=sentence)
    )
