"""Ending an engine by its schedule."""

from datetime import UTC, datetime

from prefect import runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.states import Cancelling

from emissary import schedules
from emissary.store import engines
from tasks.catalogue import in_catalogue


@task(task_run_name="end-outside-schedule", cache_policy=NO_CACHE)
async def end_outside_schedule(engine_id: str) -> str:
    """Cancel the engine's flow run unless it has none, or a window is open (a run that comes late); says what it did.

    Raises NotFound.
    """
    engine = await in_catalogue(engines.get, engine_id)
    if engine.status == "Inactive" or engine.flow_run_id is None:
        return f"The engine {engine_id} has ended already."
    if schedules.is_open(schedules.of_engine(engine.resource_management_config), this_moment()):
        return f"A window of the engine {engine_id} is open; it goes on."
    async with get_client() as client:
        await client.set_flow_run_state(engine.flow_run_id, Cancelling())
    return f"The engine {engine_id} is ended until its next window."


def this_moment() -> datetime:
    """Now, or when this run was due by the clock of Prefect's server, where that runs ahead of this machine's."""
    now = datetime.now(UTC)
    due: datetime | None = runtime.flow_run.scheduled_start_time
    return now if due is None else max(now, due)
