"""What a training job leaves beside its checkpoints."""

from starlette.concurrency import run_in_threadpool

from emissary.api import links
from emissary.api.auth import OwnedProject
from emissary.api.routing import keyed_router
from emissary.errors import NotFound
from emissary.schemas.training_jobs import EventFile
from emissary.store import training_jobs
from emissary.store.artifacts import artifact_store
from emissary.store.database import transaction
from emissary.store.tables import TrainingJob

router = keyed_router("Training Jobs", "/v1/projects/{project_id}/training-jobs/{training_job_id}")


@router.get(
    "/tensorboard", operation_id="retrieveTrainingJobTensorBoardById", summary="Retrieve a training job's event file"
)
async def retrieve_event_file(project: OwnedProject, training_job_id: str) -> EventFile:
    """The job's curves and scores for TensorBoard, renewed with each checkpoint; 404 before the first one."""
    async with transaction() as session:
        job = await training_jobs.get(session, training_job_id, project.id)
    return EventFile(download_url=await run_in_threadpool(_link, job))


def _link(job: TrainingJob) -> str:
    keys = artifact_store().keys(f"training-jobs/{job.id}/tensorboard")
    if not keys:
        raise NotFound(f"The job {job.id} has no event file yet; it gets one with its first checkpoint.")
    return links.sign(max(keys), None, f"{job.name}-tensorboard.zip")
