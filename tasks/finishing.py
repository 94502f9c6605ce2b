"""The last step of a training job."""

import anyio
from prefect import task
from prefect.cache_policies import NO_CACHE

from emissary.store.tables import TrainingJob
from tasks.event_files import keep_event_file
from tasks.job_artifacts import Progress
from tasks.reporting import reported
from tasks.trainer_states import forget


@task(task_run_name="finish", cache_policy=NO_CACHE)
async def finish(job: TrainingJob) -> None:
    """Keep the curves with all scores, remove what only a resumption would need, and wait until Prefect shows
    everything.
    """
    await keep_event_file(job.id)
    await anyio.to_thread.run_sync(forget, job.id)
    await Progress(job.id).update(100)
    await reported()
