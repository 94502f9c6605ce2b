"""Queries of deployments."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import joinedload

from emissary import base_models
from emissary.errors import InvalidInput, NotFound
from emissary.ids import new_id
from emissary.schemas.engines import ResourceManagement
from emissary.store import engines, training_jobs
from emissary.store.pages import Page, page
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
    inactive_seconds: int | None,
    user_id: str,
) -> Deployment:
    """A new deployment, Pending, on `engine` or else on one that fits, which is made when there is none.

    Raises InvalidInput for an unknown job, base model or checkpoint, a name in use, or an engine of another base model.
    """
    base_model, task_type, job_id, number, default_name = await _source(session, project, training_job_id, checkpoint)
    if base_models.catalogue().get(name or ""):
        raise InvalidInput(f"name: {name!r} is the name of a base model; choose another.")
    if engine is None:
        engine = await engines.find_usable(session, project.organization_id, base_model, task_type)
    if engine is None:
        management: dict[str, Any] = ResourceManagement.model_validate(
            {"management_config": {"inactive_duration": inactive_seconds} if inactive_seconds else {}}
        ).model_dump()
        engine = await engines.create(
            session,
            organization_id=project.organization_id,
            name=None,
            base_model=base_model,
            task_type=task_type,
            management=management,
            user_id=user_id,
        )
    elif (engine.base_model, engine.task_type) != (base_model, task_type):
        raise InvalidInput(
            f"training_id: the engine {engine.id} serves {engine.base_model} for {engine.task_type}, "
            f"not {base_model} for {task_type}."
        )
    elif engine.status == "Inactive":
        await engines.restart(session, engine)
    deployment = Deployment(
        id=new_id("dp"),
        organization_id=project.organization_id,
        project_id=project.id,
        name=name or default_name,
        description=description,
        base_model=base_model,
        task_type=task_type,
        training_job_id=job_id,
        checkpoint=number,
        engine=engine,
        status="Pending",
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
    session: AsyncSession, project: Project, training_job_id: str, checkpoint: int | str
) -> tuple[str, str, str | None, int, str]:
    """(base model, task type, job id, checkpoint number, default name) of what is to be deployed."""
    if checkpoint == 0 and training_job_id in base_models.catalogue():
        entry = base_models.get(training_job_id)
        return training_job_id, entry.task_types[0], None, 0, f"{training_job_id}-base"
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
    return job.base_model, job.task_type, job.id, number, f"{job.name}-checkpoint-{number}"


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
    return (await session.scalars(page(query, Deployment, wanted))).all()


async def find_callable(session: AsyncSession, organization_id: str, model: str) -> tuple[Engine, str]:
    """The engine that answers for `model` and the name it knows it by.

    `model` is the name or id of a live deployment of the organization, or a base model that one of its engines holds.
    Raises NotFound when there is no such model.
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
        return deployment.engine, deployment.id
    if (entry := base_models.catalogue().get(model)) is not None:
        base = select(Engine).where(
            Engine.organization_id == organization_id,
            Engine.base_model == model,
            Engine.task_type == entry.task_types[0],  # what it does untrained
            Engine.status == "Active",
        )
        engine = (await session.scalars(base.limit(1))).first()
        if engine is not None:
            return engine, model
        raise NotFound(f"model: no engine with the base model {model!r} is active; create one with POST /v1/engines.")
    raise NotFound(f"model: there is no deployment or base model {model!r}.")
