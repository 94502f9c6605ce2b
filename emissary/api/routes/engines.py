"""Inference engines: create, list, retrieve, deploy on, delete."""

from fastapi import Request, Response

from emissary.api import ending, flow_schedules, hub_check, submit
from emissary.api.auth import CurrentCaller, OwnedEngine
from emissary.api.paging import WantedPage, link_next
from emissary.api.routing import keyed_router
from emissary.errors import InvalidInput
from emissary.schemas.deployments import DeploymentSummary
from emissary.schemas.engines import (
    EngineCreate,
    EngineDeploy,
    EngineDetail,
    EngineSummary,
    EngineUndeploy,
    ResourceManagement,
)
from emissary.store import deployments, engines, projects
from emissary.store.database import transaction
from emissary.store.tables import Engine, FlowBacked

router = keyed_router("Inference Engines", "/v1/engines")


def _summary(engine: Engine, deployment_counts: int) -> EngineSummary:
    return EngineSummary(
        id=engine.id,
        name=engine.name,
        status=engine.status,
        base_model=engine.base_model,
        task_type=engine.task_type,
        deployment_counts=deployment_counts,
        created_at=engine.created_at,
    )


@router.post("", status_code=201, operation_id="createEngine", summary="Create Inference Engine")
async def create_engine(body: EngineCreate, caller: CurrentCaller) -> EngineSummary:
    """A new engine; it is Active once its base model is loaded, by a schedule in the schedule's windows."""
    await hub_check.check_base_model("base_model", body.base_model)
    async with transaction() as session:
        engine = await engines.create(
            session,
            organization_id=caller.organization_id,
            name=body.name,
            base_model=body.base_model,
            task_type=body.task_type,
            management=body.resource_management_config.model_dump(),
            user_id=caller.user_id,
        )
    await submit.submit(engine)
    if body.resource_management_config.management_type == "schedule":
        await flow_schedules.update()
    return _summary(engine, 0)


@router.get("", operation_id="listEngines", summary="List Inference Engines")
async def list_engines(
    caller: CurrentCaller,
    page: WantedPage,
    request: Request,
    response: Response,
    base_model: str | None = None,
    task_type: str | None = None,
) -> list[EngineSummary]:
    """The organization's engines, the newest first."""
    async with transaction() as session:
        found = await engines.list_all(
            session, caller.organization_id, page, base_model=base_model, task_type=task_type
        )
    link_next(request, response, page, [engine.id for engine, _ in found])
    return [_summary(engine, count) for engine, count in found]


@router.get("/{engine_id}", operation_id="getEngine", summary="Retrieve Inference Engine")
async def retrieve_engine(engine: OwnedEngine) -> EngineDetail:
    """An engine with its deployments."""
    async with transaction() as session:
        served = await engines.deployments(session, engine.id)
    return EngineDetail(
        id=engine.id,
        name=engine.name,
        status=engine.status,
        base_model=engine.base_model,
        task_type=engine.task_type,
        deployments=[DeploymentSummary.model_validate(row) for row in served],
        last_access_timestamp=engine.last_access_at or engine.created_at,
        resource_management_config=ResourceManagement.model_validate(engine.resource_management_config),
        error=engine.error,
        created_at=engine.created_at,
    )


@router.post("/{engine_id}/deploy", status_code=201, operation_id="deployOnEngine", summary="Deploy on Engine")
async def deploy_on_engine(engine: OwnedEngine, body: EngineDeploy, caller: CurrentCaller) -> DeploymentSummary:
    """Serve a checkpoint on this engine, which is started when it has ended."""
    async with transaction() as session:
        deployment = await deployments.create(
            session,
            await projects.get(session, body.project_id, caller.organization_id),
            training_job_id=body.training_id,
            checkpoint=body.checkpoint,
            name=body.name,
            description=None,
            engine=engine,
            capture=body.capture,
            user_id=caller.user_id,
        )
    await submit.submit(deployment.engine)
    await submit.submit(deployment)
    return DeploymentSummary.model_validate(deployment)


@router.post(
    "/{engine_id}/undeploy", status_code=204, operation_id="unDeployFromEngine", summary="Undeploy from Engine"
)
async def undeploy_from_engine(engine: OwnedEngine, body: EngineUndeploy) -> None:
    """Stop serving a deployment."""
    async with transaction() as session:
        found = [row for row in await engines.deployments(session, engine.id) if row.name == body.deployment_name]
    if not found:
        raise InvalidInput(f"deployment_name: the engine {engine.id} has no deployment {body.deployment_name!r}.")
    await ending.terminate(found[0], engine)


@router.post(
    "/{engine_id}/reactivate", status_code=204, operation_id="reactivateEngineById", summary="Reactivate Engine"
)
async def reactivate_engine(engine: OwnedEngine) -> None:
    """Start an engine that has ended, with the deployments it had; 400 unless it is Inactive."""
    async with transaction() as session:
        engine = await engines.lock(session, engine.id)
        if engine.status != "Inactive":
            raise InvalidInput(f"The engine {engine.id} is {engine.status} already.")
        await engines.restart(session, engine)
    await submit.submit(engine)


@router.post(
    "/{engine_id}/deactivate", status_code=204, operation_id="deactivateEngineById", summary="Deactivate Engine"
)
async def deactivate_engine(engine: OwnedEngine) -> None:
    """End an engine's run; 400 unless it is Active."""
    if engine.status != "Active":
        raise InvalidInput(f"The engine {engine.id} is {engine.status}, not Active.")
    await ending.cancel_run(engine)


@router.delete("/{engine_id}", status_code=204, operation_id="deleteEngineById", summary="Delete Inference Engine")
async def delete_engine(engine: OwnedEngine) -> None:
    """End an engine for good, and delete its deployments with it."""
    async with transaction() as session:
        served = await engines.deployments(session, engine.id)
    running: list[FlowBacked] = [row for row in served if row.status in ("Pending", "Deploying")]
    for row in [*running, *([] if engine.status == "Inactive" else [engine])]:
        await ending.cancel_run(row)
    async with transaction() as session:
        await engines.delete(session, engine.id)
    if engine.resource_management_config["management_type"] == "schedule":
        await flow_schedules.update()
