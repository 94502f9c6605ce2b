"""The state of flow runs, written to the rows they belong to, from Prefect's event stream within milliseconds.

What the stream misses, the sweep (`sweeping.py`) sets right.
"""

import asyncio
import logging
import re
from datetime import datetime
from uuid import UUID

from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventFilter, EventNameFilter
from sqlalchemy import select

from emissary.store import engines, job_events, pipeline_runs
from emissary.store.database import transaction
from emissary.store.pipeline_tables import PipelineRun
from emissary.store.tables import Dataset, Deployment, Engine, FlowBacked, TrainingJob

logger = logging.getLogger(__name__)

LIVE: dict[type[FlowBacked], frozenset[str]] = {
    TrainingJob: frozenset({"Pending", "Running", "Testing"}),
    Engine: frozenset({"Creating", "Active"}),
    Deployment: frozenset({"Pending", "Deploying"}),
    Dataset: frozenset({"Pending", "Running"}),
    PipelineRun: frozenset({"Pending", "Running"}),
}
"""Kinds of rows, and the status in which a row follows its flow run; in any other it has ended, and that is final."""
_PLAIN = {
    "SCHEDULED": "Pending",
    "PENDING": "Pending",
    "PAUSED": "Pending",
    "RUNNING": "Running",
    "COMPLETED": "Success",
    "FAILED": "Failed",
    "CANCELLING": "Cancelled",
    "CANCELLED": "Cancelled",
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
    Dataset: _PLAIN,
    PipelineRun: _PLAIN,
}


def status_word(kind: type[FlowBacked], state_type: str, state_name: str) -> str | None:
    """The API's word for a flow run's state; None for Crashed, which the sweep decides on."""
    words = _WORDS[kind]
    return words.get(f"{state_type}/{state_name}", words.get(state_type))


def error_sentence(message: str | None) -> str:
    """What a failed run says, without the frame that Prefect puts around it."""
    if not message:
        return "The run failed without saying why; its log in the Prefect UI may tell more."
    if timed_out := re.fullmatch(r"Flow run failed due to timeout: TimeoutError\((['\"])(.+)\1\)", message):
        return timed_out[2]
    return re.sub(r"^Flow run encountered an exception: (?:[\w.]*\.)?\w+: ", "", message)


async def apply(flow_run_id: UUID, state_type: str, state_name: str, message: str | None, at: datetime) -> None:
    """Write the state in which a flow run is since `at` to the row it belongs to, if there is one that is live.

    A state older than the one applied last is not applied: events and the sweep may tell of them in any order.
    """
    async with transaction() as session:
        for kind, live in LIVE.items():
            status = status_word(kind, state_type, state_name)
            mine = select(kind).where(kind.flow_run_id == flow_run_id, kind.status.in_(live))
            row = await session.scalar(mine.with_for_update(key_share=True))
            if row is None or status is None or (row.state_at is not None and row.state_at >= at):
                continue
            changed, row.status, row.state_at = row.status != status, status, at
            if state_type == "FAILED":
                row.error = error_sentence(message)
            await session.flush()
            if changed and isinstance(row, Engine):
                await engines.record_start(session, row.id, status)
                await engines.deployments_follow(session, row.id, status)
            if changed and isinstance(row, TrainingJob):
                await job_events.record_end(session, row.id, status, row.error)
            if changed and isinstance(row, PipelineRun) and status == "Cancelled":
                await pipeline_runs.cancel_job(session, row)


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
                    at = event.resource.get("prefect.state-timestamp")
                    if "type" in state and at:
                        flow_run_id = UUID(event.resource.id.rpartition(".")[2])
                        moment = datetime.fromisoformat(at)
                        await apply(flow_run_id, state["type"], state["name"], state.get("message"), moment)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            if not broken:
                logger.warning("Prefect's event stream broke off (%s); the sweep goes on, reconnecting", error)
            broken = True
            await asyncio.sleep(1)
