"""Deployments of a project."""

from fastapi import Request, Response

from emissary.api import ending, flow_schedules, hub_check, submit
from emissary.api.auth import CurrentCaller, OwnedProject
from emissary.api.paging import WantedPage, link_next
from emissary.api.routing import keyed_router
from emissary.errors import InvalidInput
from emissary.schemas.deployments import DeploymentCreate, DeploymentDetail, DeploymentMetadata, DeploymentSummary
from emissary.schemas.engines import InactiveTimeout, ResourceManagement
from emissary.store import deployments, engines
from emissary.store.database import transaction

router = keyed_router("Deployments", "/v1/projects/{project_id}/deployments")


def _management(body: DeploymentCreate) -> ResourceManagement:
    if body.schedule is not None:
        return ResourceManagement(management_type="schedule", management_config=body.schedule)
    if body.inactive_timeout is not None:
        return ResourceManagement(management_config=InactiveTimeout(inactive_duration=body.inactive_timeout))
    return ResourceManagement()


@router.post("", status_code=201, operation_id="createDeployment", summary="Create deployment")
async def create_deployment(project: OwnedProject, body: DeploymentCreate, caller: CurrentCaller) -> DeploymentSummary:
    """Serve a checkpoint under a name, on an engine that fits."""
    if body.checkpoint == 0:
        await hub_check.check_base_model("training_job_id", body.training_job_id)
    async with transaction() as session:
        deployment = await deployments.create(
            session,
            project,
            training_job_id=body.training_job_id,
            checkpoint=body.checkpoint,
            name=body.name,
            description=body.description,
            engine=None,
            management=_management(body).model_dump(),
            capture=body.capture,
            user_id=caller.user_id,
        )
    await submit.submit(deployment.engine)
    await submit.submit(deployment)
    if body.schedule is not None:
        await flow_schedules.update()
    return DeploymentSummary.model_validate(deployment)


@router.get("", operation_id="listDeployments", summary="List deployments")
async def list_deployments(
    project: OwnedProject, page: WantedPage, request: Request, response: Response
) -> list[DeploymentSummary]:
    """The project's deployments, the newest first."""
    async with transaction() as session:
        rows = await deployments.list_all(session, project.id, page)
    link_next(request, response, page, [row.id for row in rows])
    return [DeploymentSummary.model_validate(row) for row in rows]


@router.get("/{deployment_id}", operation_id="retrieveDeploymentById", summary="Retrieve deployment")
async def retrieve_deployment(project: OwnedProject, deployment_id: str) -> DeploymentDetail:
    """A deployment with what it serves."""
    async with transaction() as session:
        row = await deployments.get(session, deployment_id, project.id)
        metadata = await deployments.metadata(session, row)
    return DeploymentDetail(
        id=row.id,
        name=row.name,
        status=row.status,
        task_type=row.task_type,
        metadata=DeploymentMetadata(**metadata),
        description=row.description,
        base_model=row.base_model,
        training_id=row.training_job_id,
        checkpoint=row.checkpoint,
        engine_id=row.engine_id,
        error=row.error,
        capture=row.capture,
        capture_lost=row.capture_lost,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


@router.post(
    "/{deployment_id}/reactivate",
    status_code=204,
    operation_id="reactivateDeploymentById",
    summary="Reactivate deployment",
)
async def reactivate_deployment(project: OwnedProject, deployment_id: str) -> None:
    """Start the engine of a deactivated deployment; 400 unless it is Deactivated."""
    async with transaction() as session:
        deployment = await deployments.get(session, deployment_id, project.id)
        if deployment.status != "Deactivated":
            raise InvalidInput(f"The deployment {deployment_id} is {deployment.status}, not Deactivated.")
        engine = await engines.lock(session, deployment.engine_id)
        if engine.status == "Inactive":
            await engines.restart(session, engine)
    await submit.submit(engine)


@router.delete("/{deployment_id}", status_code=204, operation_id="deleteDeploymentById", summary="Delete deployment")
async def delete_deployment(project: OwnedProject, deployment_id: str) -> None:
    """Stop serving it, and remove its traffic; the engine goes on. A training job that needs it as its judge fails."""
    async with transaction() as session:
        deployment = await deployments.get(session, deployment_id, project.id)
    await ending.terminate(deployment, deployment.engine)
