"""GRPO training jobs: create; everything else is as for any training job."""

from fastapi import Response
from fastapi.responses import JSONResponse

from emissary.api import dry_runs, hub_check, submit
from emissary.api.auth import CurrentCaller, OwnedProject
from emissary.api.routes.training_jobs import summary
from emissary.api.routing import DRY_RUN_ANSWER, DryRun, keyed_router
from emissary.schemas.grpo_jobs import GrpoJobCreate
from emissary.schemas.training_jobs import TrainingJobSummary
from emissary.store import grpo_jobs
from emissary.store.database import transaction

router = keyed_router("Training Jobs", "/v1/projects/{project_id}/training-jobs/grpo")


@router.post(
    "",
    status_code=201,
    operation_id="createGRPOTrainingJob",
    summary="Create GRPO training job",
    response_model=TrainingJobSummary,
    responses=DRY_RUN_ANSWER,
)
async def create_grpo_training_job(
    project: OwnedProject, body: GrpoJobCreate, caller: CurrentCaller, dry_run: DryRun = False
) -> TrainingJobSummary | Response:
    """Checks everything, keeps the job, and has it run; with `dry_run` says what it would be and take instead."""
    await hub_check.check_job(body)
    if dry_run:
        async with transaction() as session:
            job = await grpo_jobs.composed(session, project, body, caller.user_id)
        return JSONResponse((await dry_runs.plan(job)).model_dump())
    async with transaction() as session:
        job = await grpo_jobs.create(session, project, body, caller.user_id)
    await submit.submit(job)
    return summary(job)
