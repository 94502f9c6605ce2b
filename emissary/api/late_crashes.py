"""Crashed runs that no live row leads to: those that had ended before, since who reports a crash may say it again when
no answer comes; and those that crashed before they had a row, or never have one.
"""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import State, StateType
from prefect.states import Cancelled, Completed, Failed, Scheduled

from emissary.api.crashes import restart_after
from emissary.api.dead_runs import is_orphan, is_ours, is_still, rows_of
from emissary.api.prefect_client import refusal_logged
from emissary.api.projection import LIVE
from emissary.store.database import transaction
from emissary.store.tables import FlowBacked

LOOK_BACK = timedelta(minutes=10)


async def settle_crashes(client: PrefectClient) -> None:
    """Have Prefect say again how a run ended, and one without a row begin again, as often as one that has a row.

    Raises what `PREFECT_AWAY` names.
    """
    having = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.CRASHED])),
        end_time=FlowRunFilterEndTime(after_=datetime.now(UTC) - LOOK_BACK),
    )
    runs = {run.id: (run, run.state) for run in await client.read_flow_runs(flow_run_filter=having) if run.state}
    async with transaction() as session:
        rows = await rows_of(session, runs)
        lone = [run for run_id, (run, _) in runs.items() if run_id not in rows and is_ours(run)]
        again = [run.id for run in lone if not await is_orphan(session, run)]
    for run_id, row in rows.items():
        with refusal_logged(row.id):
            if row.status not in LIVE[type(row)] and await is_still(client, run_id, runs[run_id][1]):
                await client.set_flow_run_state(run_id, _end(row), force=True)
    for run_id in again:
        with refusal_logged(run_id):
            await _begin_again(client, run_id, runs[run_id][1])


async def _begin_again(client: PrefectClient, flow_run_id: UUID, state: State) -> None:
    states = await client.read_flow_run_states(flow_run_id)
    wait = restart_after(sum(one.type == StateType.CRASHED for one in states))
    if wait is not None and await is_still(client, flow_run_id, state):
        message = f"Restarted after its process died: {state.message}"
        again: State = Scheduled(scheduled_time=datetime.now(UTC) + wait, name="AwaitingRetry", message=message)
        await client.set_flow_run_state(flow_run_id, again, force=True)


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
