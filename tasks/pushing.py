"""The last step of a training job or a pipeline's run, where one is asked for: the model pushed to the hub.

A push that fails fails nothing else: it is told, and can be done again over the API.
"""

import anyio.to_thread
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from sqlalchemy.ext.asyncio import AsyncSession

from emissary import hub_push
from emissary.errors import EmissaryError
from emissary.schemas.hub_pushes import PushedToHub, PushToHub
from emissary.store import hub_pushes, job_events, pipelines
from emissary.store.pipeline_tables import PipelineRun
from emissary.store.tables import TrainingJob
from tasks.attempt import end_if_interrupted, require_lease
from tasks.catalogue import in_catalogue


@task(task_run_name="push-to-hub", cache_policy=NO_CACHE)
async def push_to_hub(job: TrainingJob) -> None:
    """Push the job's best checkpoint where it asks for that; the job's events say what came of it."""
    if job.push_to_hub is None:
        return
    wanted = PushToHub.model_validate(job.push_to_hub)
    try:
        await _push(job.id, wanted)
    except EmissaryError as error:
        get_run_logger().warning("%s", error)
        about = {"about": "push_to_hub", "repo": wanted.repo}
        message = f"The model was not pushed to {wanted.repo}, all else is done; push it later. {error}"
        await in_catalogue(job_events.record, job.id, "warning", about, message=message)


@task(task_run_name="push-to-hub", cache_policy=NO_CACHE)
async def push_promoted(run: PipelineRun, job: TrainingJob) -> str:
    """Push what the run has promoted where its pipeline asks for that; says what came of it, in a sentence."""
    wanted = pipelines.config(await in_catalogue(pipelines.get, run.pipeline_id)).train.push_to_hub
    if wanted is None:
        return ""
    try:
        pushed = await _push(job.id, wanted)
    except EmissaryError as error:
        get_run_logger().warning("%s", error)
        return f"It was not pushed to {wanted.repo}: {error}"
    return f"It was pushed to {pushed.url}."


async def _push(job_id: str, wanted: PushToHub) -> PushedToHub:
    what = await in_catalogue(hub_pushes.pushable, job_id)
    pushed = await anyio.to_thread.run_sync(hub_push.push, what, wanted)
    end_if_interrupted()
    require_lease()
    await in_catalogue(_record, job_id, pushed)
    get_run_logger().info("Pushed checkpoint %d to %s", pushed.checkpoint, pushed.url)
    return pushed


async def _record(session: AsyncSession, job_id: str, pushed: PushedToHub) -> None:
    await hub_pushes.record(session, job_id, pushed)
    details = pushed.model_dump(exclude={"at"})
    await job_events.record(session, job_id, "pushed", details)
