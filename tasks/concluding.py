"""The last step of a pipeline's run."""

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed

from emissary.schemas.decisions import Outcome
from emissary.store import pipeline_runs
from emissary.store.tables import PipelineRun
from tasks.attempt import require_lease
from tasks.catalogue import in_catalogue
from tasks.reporting import reported


@task(task_run_name="record-outcome", cache_policy=NO_CACHE)
async def _record(run: PipelineRun, outcome: Outcome, reason: str) -> None:
    require_lease()
    await in_catalogue(pipeline_runs.conclude, run.id, outcome, reason)
    await reported()


async def conclude(run: PipelineRun, outcome: Outcome, reason: str) -> State:
    """Note what came of the run, wait until Prefect shows everything, and return the state that it ends in."""
    await _record(run, outcome, reason)
    return Completed(name=outcome, message=reason)
