"""Runs of a pipeline."""

from datetime import UTC, datetime

from fastapi import Request, Response

from emissary.api import ending, submit
from emissary.api.approvals import resume
from emissary.api.auth import CurrentCaller, OwnedPipeline
from emissary.api.paging import WantedPage, link_next
from emissary.api.routing import keyed_router
from emissary.schemas.pipelines import (
    PipelineRunApproval,
    PipelineRunCreate,
    PipelineRunDetail,
    PipelineRunRejection,
    PipelineRunSummary,
)
from emissary.store import approvals, pipeline_runs
from emissary.store.database import transaction
from emissary.store.pipeline_tables import Pipeline, PipelineRun
from emissary.store.users import Caller

router = keyed_router("Pipelines", "/v1/projects/{project_id}/pipelines/{pipeline_id}/runs")


def _summary(row: PipelineRun) -> PipelineRunSummary:
    shown = {name: getattr(row, name) for name in PipelineRunSummary.model_fields}
    if row.status == "Failed":
        shown |= {"outcome": "Failed", "reason": row.error}
    if waits_for := approvals.waits(row):
        until = datetime.fromtimestamp(waits_for.until, UTC)
        shown["reason"] = f"It passed the gate and waits for a person's approval until {until:%Y-%m-%d %H:%M} UTC."
    return PipelineRunSummary(**shown)


def _detail(row: PipelineRun) -> PipelineRunDetail:
    return PipelineRunDetail(
        **_summary(row).model_dump(),
        datasets=[entry["id"] for entry in row.gathered or []],
        train_dataset_id=row.train_dataset_id,
        decision=row.decision,
        trigger_id=row.trigger_id,
        approval=row.approval,
        promotion=row.promotion,
        flow_run_id=str(row.flow_run_id) if row.flow_run_id else None,
    )


@router.post("", status_code=201, operation_id="createPipelineRun", summary="Run pipeline")
async def create_pipeline_run(
    pipeline: OwnedPipeline, caller: CurrentCaller, body: PipelineRunCreate | None = None
) -> PipelineRunSummary:
    """Runs it now, also while it is paused; behind a run that has not ended."""
    async with transaction() as session:
        row = await pipeline_runs.create(session, pipeline, "request", caller.user_id, body)
    await submit.submit(row)
    return _summary(row)


@router.get("", operation_id="listPipelineRuns", summary="List pipeline runs")
async def list_pipeline_runs(
    pipeline: OwnedPipeline, page: WantedPage, request: Request, response: Response
) -> list[PipelineRunSummary]:
    """The pipeline's runs, the newest first."""
    async with transaction() as session:
        rows = await pipeline_runs.list_all(session, pipeline.id, page)
    link_next(request, response, page, [row.id for row in rows])
    return [_summary(row) for row in rows]


@router.get("/{pipeline_run_id}", operation_id="retrievePipelineRunById", summary="Retrieve pipeline run")
async def retrieve_pipeline_run(pipeline: OwnedPipeline, pipeline_run_id: str) -> PipelineRunDetail:
    """A run with what it used and what the gate decided."""
    async with transaction() as session:
        return _detail(await pipeline_runs.get(session, pipeline_run_id, pipeline.id))


@router.post(
    "/{pipeline_run_id}/cancel", status_code=204, operation_id="cancelPipelineRunById", summary="Cancel pipeline run"
)
async def cancel_pipeline_run(pipeline: OwnedPipeline, pipeline_run_id: str) -> None:
    """Stops the run and its training job; what is deployed stays. 400 when it has ended already."""
    async with transaction() as session:
        row = await pipeline_runs.cancel(session, await pipeline_runs.get(session, pipeline_run_id, pipeline.id))
    await ending.end_cancelled(row)


@router.post(
    "/{pipeline_run_id}/approve",
    operation_id="approvePipelineRunById",
    summary="Approve what a pipeline run is to deploy",
)
async def approve_pipeline_run(
    pipeline: OwnedPipeline, pipeline_run_id: str, caller: CurrentCaller, body: PipelineRunApproval | None = None
) -> PipelineRunDetail:
    """Has the run go on and deploy. 400 where it does not wait for that, or the deployment was changed meanwhile."""
    return await _answer(pipeline, pipeline_run_id, caller, True, None if body is None else body.reason)


@router.post(
    "/{pipeline_run_id}/reject", operation_id="rejectPipelineRunById", summary="Reject what a pipeline run is to deploy"
)
async def reject_pipeline_run(
    pipeline: OwnedPipeline, pipeline_run_id: str, caller: CurrentCaller, body: PipelineRunRejection
) -> PipelineRunDetail:
    """Has the run end as NotPromoted; what is deployed stays. 400 where it does not wait for that."""
    return await _answer(pipeline, pipeline_run_id, caller, False, body.reason)


async def _answer(
    pipeline: Pipeline, pipeline_run_id: str, caller: Caller, approved: bool, reason: str | None
) -> PipelineRunDetail:
    async with transaction() as session:
        row = await pipeline_runs.get(session, pipeline_run_id, pipeline.id)
        await approvals.answer(session, row, caller.user_id, approved, reason)
    await resume(row)
    return _detail(row)
