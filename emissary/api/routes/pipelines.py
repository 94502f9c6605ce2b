"""Pipelines of a project."""

from fastapi import Request, Response

from emissary.api import deleting, flow_schedules, hub_check, overlap_check, pipeline_schedules, source_check
from emissary.api.auth import CurrentCaller, OwnedPipeline, OwnedProject
from emissary.api.paging import WantedPage, link_next
from emissary.api.routing import keyed_router
from emissary.schemas.pipelines import PipelineCreate, PipelineDetail, PipelineReplace, PipelineSummary
from emissary.store import pipelines
from emissary.store.database import transaction
from emissary.store.pipeline_tables import Pipeline
from emissary.store.tables import Project

router = keyed_router("Pipelines", "/v1/projects/{project_id}/pipelines")


def _detail(row: Pipeline) -> PipelineDetail:
    return PipelineDetail(
        **row.config, id=row.id, created_by=row.created_by, created_at=row.created_at, updated_at=row.updated_at
    )


async def _check(project: Project, body: PipelineCreate) -> None:
    await pipeline_schedules.check(body.schedule)
    await hub_check.check_job(body.job("ds-"))
    await source_check.check(body.gather, project.organization_id)
    await overlap_check.check(project.id, body)


@router.post("", status_code=201, operation_id="createPipeline", summary="Create pipeline")
async def create_pipeline(project: OwnedProject, body: PipelineCreate, caller: CurrentCaller) -> PipelineDetail:
    """Checks everything with the data there is now, and has the pipeline run by its schedule."""
    await _check(project, body)
    async with transaction() as session:
        row = await pipelines.create(session, project, body, caller.user_id)
    await flow_schedules.update()
    return _detail(row)


@router.get("", operation_id="listPipelines", summary="List pipelines")
async def list_pipelines(
    project: OwnedProject, page: WantedPage, request: Request, response: Response
) -> list[PipelineSummary]:
    """The project's pipelines, the newest first."""
    async with transaction() as session:
        rows = await pipelines.list_all(session, project.id, page)
    link_next(request, response, page, [row.id for row in rows])
    return [PipelineSummary.model_validate(row) for row in rows]


@router.get("/{pipeline_id}", operation_id="retrievePipelineById", summary="Retrieve pipeline")
async def retrieve_pipeline(pipeline: OwnedPipeline) -> PipelineDetail:
    """A pipeline with all that was given."""
    return _detail(pipeline)


@router.put("/{pipeline_id}", operation_id="updatePipelineById", summary="Change pipeline")
async def update_pipeline(
    project: OwnedProject, pipeline: OwnedPipeline, body: PipelineReplace, caller: CurrentCaller
) -> PipelineDetail:
    """Checked as a new one is; a run that has begun to train goes on as it was."""
    await _check(project, body)
    async with transaction() as session:
        row = await pipelines.replace(session, project, pipeline.id, body, caller.user_id)
    await flow_schedules.update()
    return _detail(row)


@router.delete("/{pipeline_id}", status_code=204, operation_id="deletePipelineById", summary="Delete pipeline")
async def delete_pipeline(project: OwnedProject, pipeline_id: str) -> None:
    """Removes it with its schedule, webhooks and runs; jobs, datasets and deployment stay. 400 while a run is on."""
    async with transaction() as session:
        left = await pipelines.delete(session, project, pipeline_id)
    await flow_schedules.update()
    await deleting.clear(left)


@router.post("/{pipeline_id}/pause", status_code=204, operation_id="pausePipelineById", summary="Pause pipeline")
async def pause_pipeline(project: OwnedProject, pipeline_id: str) -> None:
    """Suspends its schedule and triggers; it can still be run, also by webhook."""
    await _pause(project, pipeline_id, True)


@router.post("/{pipeline_id}/unpause", status_code=204, operation_id="unpausePipelineById", summary="Unpause pipeline")
async def unpause_pipeline(project: OwnedProject, pipeline_id: str) -> None:
    """Has its schedule and triggers go on; what they missed is not made up for."""
    await _pause(project, pipeline_id, False)


async def _pause(project: OwnedProject, pipeline_id: str, paused: bool) -> None:
    async with transaction() as session:
        await pipelines.pause(session, project, pipeline_id, paused)
    await flow_schedules.update()
