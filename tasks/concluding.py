"""The last step of a pipeline's run."""

from typing import cast

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed

from emissary.schemas.decisions import Outcome
from emissary.store import pipeline_runs, subscription_deliveries
from emissary.store.pipeline_tables import PipelineRun
from tasks.attempt import require_lease
from tasks.catalogue import in_catalogue
from tasks.reporting import reported


@task(task_run_name="record-outcome-and-notify", cache_policy=NO_CACHE)
async def _record(run: PipelineRun, outcome: Outcome, reason: str) -> None:
    require_lease()
    # With the outcome the database writes what subscriptions are told, so neither is there without the other.
    await in_catalogue(pipeline_runs.conclude, run.id, outcome, reason)
    told = await in_catalogue(subscription_deliveries.told_of, run.id)
    get_run_logger().info("%s: %s Subscriptions told of the run: %s", outcome, reason, ", ".join(told) or "none")
    await reported()


async def conclude(run: PipelineRun, outcome: Outcome, reason: str) -> State:
    """Note what came of the run, by which subscriptions are told, wait until Prefect shows everything, and return the
    state that it ends in.
    """
    await _record(run, outcome, reason)
    return Completed(name=outcome, message=reason)


async def concluded(run: PipelineRun) -> State | None:
    """The end of a run that was killed behind its outcome, which stays; None where it has none yet."""
    return await conclude(run, cast(Outcome, run.outcome), run.reason or "") if run.outcome else None
