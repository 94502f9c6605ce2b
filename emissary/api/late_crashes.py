"""Runs of which somebody said Crashed behind their end: who reports a crash says it again when no answer comes."""

from datetime import UTC, datetime, timedelta

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import State, StateType
from prefect.states import Cancelled, Completed, Failed

from emissary.api.dead_runs import is_still, rows_of
from emissary.api.projection import LIVE
from emissary.store.database import transaction
from emissary.store.tables import FlowBacked

LOOK_BACK = timedelta(minutes=10)


async def correct_late_crashes(client: PrefectClient) -> None:
    """Have Prefect say again how such a run ended. Raises what `PREFECT_AWAY` names."""
    having = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.CRASHED])),
        end_time=FlowRunFilterEndTime(after_=datetime.now(UTC) - LOOK_BACK),
    )
    states = {run.id: run.state for run in await client.read_flow_runs(flow_run_filter=having) if run.state}
    async with transaction() as session:
        rows = await rows_of(session, states)
    for run_id, row in rows.items():
        if row.status not in LIVE[type(row)] and await is_still(client, run_id, states[run_id]):
            await client.set_flow_run_state(run_id, _end(row), force=True)


def _end(row: FlowBacked) -> State:
    """The state in which the run of a row ended that has ended."""
    match row.status:
        case "Failed":
            return Failed(message=row.error)
        case "TimedOut":
            return Failed(name="TimedOut", message=row.error)
        case "Cancelled" | "Terminated":
            return Cancelled()
        case "Inactive" if row.error:
            return Failed(message=row.error)
    return Completed()
