"""The run of a training job: cancel it, or go on with another."""

from emissary.api import ending, submit
from emissary.api.auth import OwnedProject
from emissary.api.routing import keyed_router
from emissary.store import job_runs
from emissary.store.database import transaction

router = keyed_router("Training Jobs", "/v1/projects/{project_id}/training-jobs/{training_job_id}")


@router.post("/cancel", status_code=204, operation_id="cancelTrainingJobById", summary="Cancel training job")
async def cancel_training_job(project: OwnedProject, training_job_id: str) -> None:
    """Stops the job; complete checkpoints stay. 400 when it has ended already."""
    async with transaction() as session:
        job = await job_runs.cancel(session, project, training_job_id)
    await ending.end_cancelled(job)


@router.post("/resume", status_code=204, operation_id="resumeTrainingJobById", summary="Resume training job")
async def resume_training_job(project: OwnedProject, training_job_id: str) -> None:
    """Goes on with a job that is Failed, TimedOut or Cancelled, from its last checkpoint; 400 when it cannot."""
    async with transaction() as session:
        job = await job_runs.resume(session, project, training_job_id)
    await submit.submit(job)
