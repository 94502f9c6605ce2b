"""The state of flow runs, written to the rows they belong to.

From Prefect's event stream within milliseconds, and by a sweep for what the stream missed. The sweep alone restarts
runs that crashed, under a lock, so that several API processes do not do it twice.
"""

import asyncio
import logging
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State, StateType
from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventFilter, EventNameFilter
from prefect.states import Failed, Scheduled
from sqlalchemy import select, text, update

from emissary.api.submit import PREFECT_AWAY, submit_waiting
from emissary.store import engines, job_events
from emissary.store.database import transaction
from emissary.store.tables import Deployment, Engine, FlowBacked, TrainingJob

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 2.0
MOST_CRASHES = 3
# The worker proposes Crashed a second time about two seconds after the first, over whatever was set meanwhile.
CRASH_SETTLES = timedelta(seconds=5)
_SWEEP_LOCK = 7_266_002
_LIVE: dict[type[FlowBacked], frozenset[str]] = {
    TrainingJob: frozenset({"Pending", "Running", "Testing"}),
    Engine: frozenset({"Creating", "Active"}),
    Deployment: frozenset({"Pending", "Deploying"}),
}
_WORDS: dict[type[FlowBacked], dict[str, str]] = {
    TrainingJob: {
        "SCHEDULED": "Pending",
        "PENDING": "Pending",
        "PAUSED": "Pending",
        "RUNNING": "Running",
        "RUNNING/Testing": "Testing",
        "COMPLETED": "Success",
        "FAILED": "Failed",
        "FAILED/TimedOut": "TimedOut",
        "CANCELLING": "Cancelled",
        "CANCELLED": "Cancelled",
    },
    Engine: {
        "SCHEDULED": "Creating",
        "PENDING": "Creating",
        "PAUSED": "Creating",
        "RUNNING": "Creating",
        "RUNNING/Active": "Active",
        "COMPLETED": "Inactive",
        "FAILED": "Inactive",
        "CANCELLING": "Inactive",
        "CANCELLED": "Inactive",
    },
    Deployment: {
        "SCHEDULED": "Pending",
        "PENDING": "Pending",
        "PAUSED": "Pending",
        "RUNNING": "Deploying",
        "COMPLETED": "Deployed",
        "FAILED": "Failed",
        "FAILED/TimedOut": "TimedOut",
        "CANCELLING": "Cancelled",
        "CANCELLED": "Cancelled",
    },
}


def status_word(kind: type[FlowBacked], state_type: str, state_name: str) -> str | None:
    """The API's word for a flow run's state; None for Crashed, which the sweep decides on."""
    words = _WORDS[kind]
    return words.get(f"{state_type}/{state_name}", words.get(state_type))


def error_sentence(message: str | None) -> str:
    """What a failed run says, without the frame that Prefect puts around it."""
    if not message:
        return "The run failed without saying why; its log in the Prefect UI may tell more."
    return re.sub(r"^Flow run encountered an exception: (?:[\w.]*\.)?\w+: ", "", message)


def crash_sentence(message: str | None) -> str:
    """Why a process died, and what to do."""
    if message and re.search(r"status code: -9\b", message):
        return (
            "The process was killed (signal 9), most often because the machine ran out of memory. Lower "
            "per_device_train_batch_size or max_length, or run it on a machine with more memory, and create it again."
        )
    return f"The process died {MOST_CRASHES} times. {message or ''} Its log in the Prefect UI may tell more.".replace(
        "  ", " "
    )


async def apply(flow_run_id: UUID, state_type: str, state_name: str, message: str | None) -> None:
    """Write the state of a flow run to the row it belongs to, if there is one that is live."""
    async with transaction() as session:
        for kind, live in _LIVE.items():
            status = status_word(kind, state_type, state_name)
            if status is None:
                continue
            values: dict[str, Any] = {"status": status}
            if state_type == "FAILED":
                values["error"] = error_sentence(message)
            changed = await session.scalar(
                update(kind)
                .where(kind.flow_run_id == flow_run_id, kind.status.in_(live), kind.status != status)
                .values(**values)
                .returning(kind.id)
            )
            if changed and kind is Engine:
                await engines.record_start(session, changed, status)
                await engines.deployments_follow(session, changed, status)
            if changed and kind is TrainingJob:
                await job_events.record_end(session, changed, status, values.get("error"))


async def follow_events() -> None:
    """Apply every state that Prefect's event stream tells of, for ever; reconnects when the stream breaks."""
    wanted = EventFilter(event=EventNameFilter(prefix=["prefect.flow-run."]))
    broken = False
    while True:
        try:
            async with get_events_subscriber(filter=wanted) as events:
                broken = False
                async for event in events:
                    state = event.payload.get("validated_state") or {}
                    if "type" in state:
                        flow_run_id = UUID(event.resource.id.rpartition(".")[2])
                        await apply(flow_run_id, state["type"], state["name"], state.get("message"))
        except asyncio.CancelledError:
            raise
        except Exception as error:
            if not broken:
                logger.warning("Prefect's event stream broke off (%s); the sweep goes on, reconnecting", error)
            broken = True
            await asyncio.sleep(1)


async def sweep_for_ever() -> None:
    """Submit what waits, and set right what the event stream missed, every two seconds."""
    while True:
        try:
            await sweep()
        except PREFECT_AWAY as error:
            logger.warning("Prefect cannot be reached (%s); trying again", error)
        except Exception:
            logger.exception("The sweep failed; trying again")
        await asyncio.sleep(SWEEP_SECONDS)


async def sweep() -> None:
    """One round, unless another API process is at it."""
    async with transaction() as lock:
        if not await lock.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _SWEEP_LOCK}):
            return
        await submit_waiting()
        rows: dict[UUID, tuple[type[FlowBacked], int]] = {}
        async with transaction() as session:
            for kind, live in _LIVE.items():
                query = select(kind.flow_run_id, kind.crashes).where(
                    kind.status.in_(live), kind.flow_run_id.is_not(None)
                )
                rows.update({run: (kind, crashes) for run, crashes in (await session.execute(query)).tuples() if run})
        if not rows:
            return
        async with get_client() as client:
            runs = await client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=list(rows))))
            for run in runs:
                if run.state is None:
                    continue
                if run.state.type == StateType.CRASHED:
                    await _crashed(client, run.id, run.state, *rows[run.id])
                else:
                    await apply(run.id, run.state.type.value, run.state.name or "", run.state.message)


async def _crashed(
    client: PrefectClient, flow_run_id: UUID, state: State, kind: type[FlowBacked], crashes: int
) -> None:
    if datetime.now(UTC) - state.timestamp < CRASH_SETTLES:
        return
    async with transaction() as session:
        await session.execute(update(kind).where(kind.flow_run_id == flow_run_id).values(crashes=crashes + 1))
    if crashes + 1 < MOST_CRASHES:
        again: State = Scheduled(name="AwaitingRetry", message=f"Restarted after its process died: {state.message}")
        await client.set_flow_run_state(flow_run_id, again, force=True)
    else:
        await client.set_flow_run_state(flow_run_id, Failed(message=crash_sentence(state.message)), force=True)
