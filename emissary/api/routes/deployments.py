"""Deployments of a project."""

from fastapi import APIRouter

from emissary.api import submit
from emissary.api.auth import CurrentUser
from emissary.errors import InvalidInput
from emissary.schemas.deployments import DeploymentCreate, DeploymentDetail, DeploymentSummary
from emissary.serving import client as engine_client
from emissary.store import deployments, engines, projects
from emissary.store.database import transaction

router = APIRouter(prefix="/v1/projects/{project_id}/deployments", tags=["Deployments"])


@router.post("", status_code=201, operation_id="createDeployment", summary="Create deployment")
async def create_deployment(project_id: str, body: DeploymentCreate, user: CurrentUser) -> DeploymentSummary:
    """Serve a checkpoint under a name, on an engine that fits."""
    async with transaction() as session:
        deployment = await deployments.create(
            session,
            await projects.get(session, project_id),
            training_job_id=body.training_job_id,
            checkpoint=body.checkpoint,
            name=body.name,
            description=body.description,
            engine=None,
            inactive_seconds=body.inactive_timeout,
            user_id=user.id,
        )
    if deployment.engine.flow_run_id is None:
        await submit.submit(deployment.engine)
    await submit.submit(deployment)
    return DeploymentSummary.model_validate(deployment)


@router.get("", operation_id="listDeployments", summary="List deployments")
async def list_deployments(project_id: str, _user: CurrentUser) -> list[DeploymentSummary]:
    """The project's deployments, the newest first."""
    async with transaction() as session:
        await projects.get(session, project_id)
        return [DeploymentSummary.model_validate(row) for row in await deployments.list_all(session, project_id)]


@router.get("/{deployment_id}", operation_id="retrieveDeploymentById", summary="Retrieve deployment")
async def retrieve_deployment(project_id: str, deployment_id: str, _user: CurrentUser) -> DeploymentDetail:
    """A deployment with what it serves."""
    async with transaction() as session:
        row = await deployments.get(session, deployment_id, project_id)
    return DeploymentDetail(
        id=row.id,
        name=row.name,
        status=row.status,
        task_type=row.task_type,
        description=row.description,
        base_model=row.base_model,
        training_id=row.training_job_id,
        checkpoint=row.checkpoint,
        engine_id=row.engine_id,
        error=row.error,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


@router.post(
    "/{deployment_id}/reactivate",
    status_code=204,
    operation_id="reactivateDeploymentById",
    summary="Reactivate deployment",
)
async def reactivate_deployment(project_id: str, deployment_id: str, _user: CurrentUser) -> None:
    """Start the engine of a deactivated deployment; 400 unless it is Deactivated."""
    async with transaction() as session:
        deployment = await deployments.get(session, deployment_id, project_id)
        if deployment.status != "Deactivated":
            raise InvalidInput(f"The deployment {deployment_id} is {deployment.status}, not Deactivated.")
        if deployment.engine.status == "Inactive":
            await engines.restart(session, deployment.engine)
    await submit.submit(deployment.engine)


@router.delete("/{deployment_id}", status_code=204, operation_id="deleteDeploymentById", summary="Delete deployment")
async def delete_deployment(project_id: str, deployment_id: str, _user: CurrentUser) -> None:
    """Stop serving it; the engine goes on."""
    async with transaction() as session:
        deployment = await deployments.get(session, deployment_id, project_id)
        deployment.status = "Terminated"
    await engine_client.unload(deployment.engine, deployment.id)
