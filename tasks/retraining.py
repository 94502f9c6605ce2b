"""A pipeline's run waiting: for its turn, and for the training job that it made."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from emissary.errors import EmissaryError
from emissary.store import pipeline_runs, pipelines, training_jobs
from emissary.store.pipeline_tables import PipelineRun
from emissary.store.tables import TrainingJob
from tasks.attempt import end_if_interrupted
from tasks.catalogue import in_catalogue

_LONGEST_WAIT_SECONDS = 5.0
T = TypeVar("T")


@task(task_run_name="turn", cache_policy=NO_CACHE)
async def turn(run: PipelineRun) -> str | None:
    """Wait until no earlier run of the pipeline is on. A run by schedule does not wait, nor go on while the pipeline is
    paused: for it this says why it is skipped.
    """
    if run.gathered is not None:
        return None  # it had its turn before it was killed or suspended
    if run.trigger == "schedule":
        if (await in_catalogue(pipelines.get, run.pipeline_id)).paused:
            return "The pipeline is paused."
        earlier = await in_catalogue(pipeline_runs.earlier, run)
        return None if earlier is None else f"The run {earlier.id} has not ended."

    async def free() -> bool:
        return await in_catalogue(pipeline_runs.has_its_turn, run.id)

    await _until(free, bool)
    return None


@task(task_run_name="train", cache_policy=NO_CACHE)
async def train(run: PipelineRun) -> TrainingJob:
    """The run's training job, once it has succeeded; it is made as over the API, and the API's sweep has it run.

    Raises InvalidInput where it cannot be made, EmissaryError with the job's reason where it ends otherwise.
    """
    job_id = await in_catalogue(pipeline_runs.start_job, run.id)
    get_run_logger().info("The training job %s", job_id)

    async def look() -> TrainingJob:
        return await in_catalogue(training_jobs.get, job_id)

    job = await _until(look, lambda found: found.status in training_jobs.TERMINAL)
    if job.status != "Success":
        raise EmissaryError(f"The training job {job.id} is {job.status}. {job.error or ''}".rstrip())
    return job


async def _until(look: Callable[[], Awaitable[T]], done: Callable[[T], bool]) -> T:
    """What `look()` finds once that is `done`, looked for less and less often."""
    wait = 0.2
    while True:
        end_if_interrupted()
        found = await look()
        if done(found):
            return found
        await asyncio.sleep(wait)
        wait = min(1.5 * wait, _LONGEST_WAIT_SECONDS)
