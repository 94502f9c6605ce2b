"""Queries of what judges ask: deployments and their engines."""

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.errors import InvalidInput
from emissary.judges import Judge
from emissary.store import deployments
from emissary.store.tables import GONE, Deployment, Project, TestingFunction, TrainingJob

_SHOWN_LABELS = 20


async def settle(session: AsyncSession, organization_id: str, wanted: Judge) -> Judge:
    """`wanted`, whose `deployment_id` may be a name, with the id of that deployment of the organization.

    Raises InvalidInput where there is none, it neither classifies nor is a regression, or the label does not fit it.
    """
    query = select(Deployment).where(
        Deployment.organization_id == organization_id,
        or_(Deployment.id == wanted.deployment_id, Deployment.name == wanted.deployment_id),
        Deployment.status.not_in(GONE),
    )
    deployment = (await session.scalars(query.limit(1))).first()
    if deployment is None:
        raise InvalidInput(f"judge.deployment_id: there is no deployment {wanted.deployment_id!r}.")
    if deployment.task_type == "regression" and wanted.label is not None:
        raise InvalidInput(
            f"judge.label: the deployment {deployment.name!r} is a regression, whose number is the score; leave it out."
        )
    if deployment.task_type == "classification":
        labels = (await deployments.metadata(session, deployment))["labels"]
        if wanted.label not in labels:
            there = ", ".join(labels[:_SHOWN_LABELS]) + (", …" if len(labels) > _SHOWN_LABELS else "")
            given = "give one" if wanted.label is None else f"{wanted.label[:60]!r} is not one"
            raise InvalidInput(f"judge.label: {given} of the labels of the deployment {deployment.name!r}: {there}.")
    elif deployment.task_type != "regression":
        raise InvalidInput(
            f"judge.deployment_id: the deployment {deployment.name!r} is for {deployment.task_type}; a judge is one "
            "for classification or regression."
        )
    return wanted.model_copy(update={"deployment_id": deployment.id})


async def engine_in_use(session: AsyncSession, engine_id: str) -> bool:
    """Whether a deployment on the engine judges for a job that tests now, or trains on rewards."""
    query = (
        select(TrainingJob.id)
        .join(Project, Project.id == TrainingJob.project_id)
        .join(
            TestingFunction,
            (TestingFunction.organization_id == Project.organization_id)
            & TrainingJob.test_functions.has_key(TestingFunction.name),
        )
        .join(Deployment, Deployment.id == TestingFunction.judge["deployment_id"].astext)
        .where(
            Deployment.engine_id == engine_id,
            or_(
                TrainingJob.status == "Testing",
                (TrainingJob.status == "Running") & (TrainingJob.training_technique == "GRPO"),
            ),
        )
    )
    return await session.scalar(query.limit(1)) is not None
