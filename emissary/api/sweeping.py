"""The sweep: every two seconds it submits what waits, sets right what the event stream missed, and ends what should
not run.

One API process does it at a time, under a lock in the catalogue. It alone restarts runs that crashed.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Failed, Scheduled
from sqlalchemy import select, text

from emissary.api import projection
from emissary.api.approvals import resume_answered
from emissary.api.crashes import crash_sentence, restart_after
from emissary.api.dead_runs import end_what_should_not_run, is_still, timed_out
from emissary.api.ending import carry_out_cancels
from emissary.api.late_crashes import settle_crashes
from emissary.api.prefect_client import PREFECT_AWAY, prefect_client, refusal_logged
from emissary.api.projection import LIVE
from emissary.api.silences import Silences
from emissary.api.submit import submit_waiting
from emissary.store import job_runs, leases
from emissary.store.database import transaction
from emissary.store.tables import FlowBacked

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 2.0
_SWEEP_LOCK = 7_266_002
_PATIENCE_SECONDS = 30.0
_PAGE = 200  # as many runs as Prefect's API gives at once


async def sweep_for_ever() -> None:
    """Sweep every two seconds."""
    silences = Silences()
    while True:
        try:
            await sweep(silences)
        except PREFECT_AWAY as error:
            logger.warning("Prefect cannot be reached (%s); trying again", str(error) or type(error).__name__)
        except Exception:
            logger.exception("The sweep failed; trying again")
        await asyncio.sleep(SWEEP_SECONDS)


async def sweep(silences: Silences) -> None:
    """One round, unless another API process is at it."""
    async with transaction() as lock:
        if not await lock.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _SWEEP_LOCK}):
            return
        await submit_waiting()
        async with prefect_client(_PATIENCE_SECONDS) as client:
            await carry_out_cancels(client)
            live = await _live_rows()
            states = await _states(client, list(live))
            for run_id in live.keys() - states.keys():
                with refusal_logged(run_id):
                    await _deleted(client, run_id, live[run_id])
            for run_id, state in states.items():
                if state.type == StateType.CRASHED:
                    with refusal_logged(run_id):
                        await _crashed(client, run_id, state, live[run_id])
                else:
                    await projection.apply(run_id, state.type.value, state.name or "", state.message, state.timestamp)
            await resume_answered(client)
            await settle_crashes(client)
            await end_what_should_not_run(client, silences)


async def _live_rows() -> dict[UUID, type[FlowBacked]]:
    found: dict[UUID, type[FlowBacked]] = {}
    async with transaction() as session:
        for kind, live in LIVE.items():
            query = select(kind.flow_run_id).where(kind.status.in_(live), kind.flow_run_id.is_not(None))
            found.update({run: kind for run in await session.scalars(query) if run is not None})
    return found


async def _states(client: PrefectClient, run_ids: Sequence[UUID]) -> dict[UUID, State]:
    found: dict[UUID, State] = {}
    for start in range(0, len(run_ids), _PAGE):
        page = FlowRunFilter(id=FlowRunFilterId(any_=list(run_ids[start : start + _PAGE])))
        runs = await client.read_flow_runs(flow_run_filter=page)
        found.update({run.id: run.state for run in runs if run.state is not None})
    return found


async def _deleted(client: PrefectClient, flow_run_id: UUID, kind: type[FlowBacked]) -> None:
    """Fail the row of a run that is gone from Prefect, and end its process, which can report to nobody."""
    with suppress(ObjectNotFound):
        await client.read_flow_run(flow_run_id)
        return
    async with transaction() as session:
        row = await session.scalar(select(kind).where(kind.flow_run_id == flow_run_id, kind.status.in_(LIVE[kind])))
        if row is not None:
            await leases.revoke(session, row.id)
    message = "Its flow run was deleted in Prefect; a training job goes on when it is resumed."
    await projection.apply(flow_run_id, StateType.FAILED.value, "Failed", message, datetime.now(UTC))


async def _crashed(client: PrefectClient, flow_run_id: UUID, state: State, kind: type[FlowBacked]) -> None:
    """Have a run that crashed begin again, or fail where it has crashed too often or its time is over."""
    async with transaction() as session:
        mine = select(kind).where(kind.flow_run_id == flow_run_id, kind.status.in_(LIVE[kind]))
        row = await session.scalar(mine.with_for_update(key_share=True))
        if row is None:
            return
        if row.state_at is None or row.state_at < state.timestamp:  # else this crash is counted already
            row.crashes, row.state_at = row.crashes + 1, state.timestamp
        late = await job_runs.overdue(session, [flow_run_id], timedelta(0))
        wait = restart_after(row.crashes)
        then: State
        if flow_run_id in late:
            then = timed_out(late[flow_run_id])
        elif wait is None:
            then = Failed(message=crash_sentence(row, state.message))
        else:
            message = f"Restarted after its process died: {state.message}"
            then = Scheduled(scheduled_time=datetime.now(UTC) + wait, name="AwaitingRetry", message=message)
    if await is_still(client, flow_run_id, state):
        await client.set_flow_run_state(flow_run_id, then, force=True)
