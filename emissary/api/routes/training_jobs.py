"""Training jobs: create, follow, delete, and their checkpoints."""

from typing import Annotated

from fastapi import Query, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from emissary.api import deleting, dry_runs, hub_check, links, submit
from emissary.api.auth import CurrentCaller, OwnedProject
from emissary.api.paging import Limit, WantedPage, link_next
from emissary.api.routing import DRY_RUN_ANSWER, DryRun, keyed_router
from emissary.schemas.datasets import DatasetSummary
from emissary.schemas.decisions import DecidedRun
from emissary.schemas.fields import IN_DIGITS
from emissary.schemas.training_jobs import (
    LossPoint,
    RewardPoint,
    TestResults,
    TrainingJobCheckpoint,
    TrainingJobCreate,
    TrainingJobDetail,
    TrainingJobSummary,
)
from emissary.store import leftovers, pipeline_runs, training_jobs
from emissary.store.database import transaction
from emissary.store.pages import Page
from emissary.store.tables import Checkpoint, TrainingJob
from emissary.tracking.facts import values_of

router = keyed_router("Training Jobs", "/v1/projects/{project_id}/training-jobs")


def summary(job: TrainingJob) -> TrainingJobSummary:
    """A job, loaded with its datasets, as lists show it."""
    shown = {name: getattr(job, name) for name in TrainingJobSummary.model_fields if hasattr(job, name)}
    return TrainingJobSummary(train_dataset_name=job.train_dataset.name, reward=job.reward_functions, **shown)


def _detail(job: TrainingJob, made_by: DecidedRun | None) -> TrainingJobDetail:
    return TrainingJobDetail(
        **summary(job).model_dump(),
        description=job.description,
        train_dataset=DatasetSummary.model_validate(job.train_dataset),
        test_dataset=DatasetSummary.model_validate(job.test_dataset) if job.test_dataset else None,
        train_test_split_ratio=job.train_test_split_ratio,
        training_loss=[(RewardPoint if "reward" in point else LossPoint)(**point) for point in job.training_loss],
        training_metrics=dict(values_of(max(job.training_loss, key=lambda point: point["step"], default={}))),
        hyper_parameters=job.hyper_parameters,
        timeout_seconds=job.timeout_seconds,
        best_checkpoint=job.best_checkpoint,
        push_to_hub=job.push_to_hub,
        pushed_to_hub=job.pushed_to_hub,
        error=job.error,
        flow_run_id=str(job.flow_run_id) if job.flow_run_id else None,
        pipeline_run=made_by,
    )


@router.post(
    "",
    status_code=201,
    operation_id="createTrainingJob",
    summary="Create SFT training job",
    response_model=TrainingJobSummary,
    responses=DRY_RUN_ANSWER,
)
async def create_training_job(
    project: OwnedProject, body: TrainingJobCreate, caller: CurrentCaller, dry_run: DryRun = False
) -> TrainingJobSummary | Response:
    """Checks everything, keeps the job, and has it run; with `dry_run` says what it would be and take instead."""
    await hub_check.check_job(body)
    if dry_run:
        async with transaction() as session:
            job = await training_jobs.composed(session, project, body, caller.user_id)
        return JSONResponse((await dry_runs.plan(job)).model_dump())
    async with transaction() as session:
        job = await training_jobs.create(session, project, body, caller.user_id)
    await submit.submit(job)
    return summary(job)


@router.get("", operation_id="listTrainingJobs", summary="List training jobs")
async def list_training_jobs(
    project: OwnedProject, page: WantedPage, request: Request, response: Response
) -> list[TrainingJobSummary]:
    """The project's jobs, the newest first."""
    async with transaction() as session:
        jobs = await training_jobs.list_all(session, project.id, page)
    link_next(request, response, page, [job.id for job in jobs])
    return [summary(job) for job in jobs]


@router.get("/{training_job_id}", operation_id="retrieveTrainingJobById", summary="Retrieve training job")
async def retrieve_training_job(project: OwnedProject, training_job_id: str) -> TrainingJobDetail:
    """A job with its status, progress and loss."""
    async with transaction() as session:
        job = await training_jobs.get(session, training_job_id, project.id)
        return _detail(job, await pipeline_runs.of_job(session, job.id))


@router.delete(
    "/{training_job_id}", status_code=204, operation_id="deleteTrainingJobById", summary="Delete training job"
)
async def delete_training_job(
    project: OwnedProject,
    training_job_id: str,
    force: Annotated[bool, Query(description="Also where other jobs, which have ended, started from it.")] = False,
) -> None:
    """Removes an ended job with its checkpoints and files; 400 while it runs, is deployed, or a running job starts
    from it; unless forced, also where an ended one did.
    """
    async with transaction() as session:
        job = await training_jobs.get(session, training_job_id, project.id)
    if job.status in training_jobs.TERMINAL and job.flow_run_id is not None:
        await deleting.end_runs([job.flow_run_id])  # one that was cancelled just now may still be writing
    async with transaction() as session:
        job = await training_jobs.get(session, training_job_id, project.id)
        await training_jobs.delete(session, job, force=force)
        left = [leftovers.of_training_job(training_job_id)]
        await leftovers.add(session, left)
    await deleting.clear(left)


@router.get("/{training_job_id}/checkpoints", operation_id="listCheckpoints", summary="List checkpoints")
async def list_checkpoints(
    project: OwnedProject,
    training_job_id: str,
    request: Request,
    response: Response,
    limit: Limit = None,
    after: Annotated[
        int, Query(ge=0, lt=2**31, description="Number of the last checkpoint before the page."), IN_DIGITS
    ] = 0,
) -> list[TrainingJobCheckpoint]:
    """The job's complete checkpoints with their scores."""
    async with transaction() as session:
        job = await training_jobs.get(session, training_job_id, project.id)
        rows = await training_jobs.checkpoints(session, training_job_id, limit=limit, after=after)
    link_next(request, response, Page(limit), [row.number for row in rows])
    return await run_in_threadpool(lambda: [_checkpoint(job, row) for row in rows])


def _checkpoint(job: TrainingJob, row: Checkpoint) -> TrainingJobCheckpoint:
    results, plots = None, {}
    if row.results_artifact is not None and row.scores is not None:
        name, report = f"{job.name}-checkpoint-{row.number}", row.report or {}
        results = TestResults(
            general_test_result=links.sign(row.results_artifact, "results.csv", f"{name}-results.csv"),
            general_test_result_parquet=links.sign(row.results_artifact, "results.parquet", f"{name}-results.parquet"),
            aggregated_test_result={function: f"{score:.6g}" for function, score in row.scores.items()},
            metrics=report.get("metrics", {}),
            class_metrics=report.get("class_metrics"),
            test_summary=report.get("test_summary"),
        )
        plots = {
            plot: links.sign(row.results_artifact, f"{plot}.png", f"{name}-{plot}.png")
            for plot in report.get("plots", [])
        }
    return TrainingJobCheckpoint(
        checkpoint=row.number,
        model_download_url=links.sign(row.artifact, None, f"{job.name}-checkpoint-{row.number}.zip"),
        test_results=results,
        plots=plots,
        train_loss=row.train_loss,
        test_loss=row.test_loss,
        is_best=row.number == job.best_checkpoint,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
