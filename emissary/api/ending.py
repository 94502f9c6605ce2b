"""Ends what runs for a row: its flow run in Prefect, a deployment's adapter on its engine.

A cancelled job or pipeline run, and a deployment that is terminated before it is deployed, have ended in the catalogue
first. That Prefect has still to be told is noted by their `state_at` being null, so it is told once it can be reached.
"""

import logging
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Cancelling
from sqlalchemy import select, update

from emissary.api import projection
from emissary.api.prefect_client import PREFECT_AWAY, prefect_client, refusal_logged
from emissary.errors import Unavailable
from emissary.serving import client as engine_client
from emissary.store import flow_run_labels, leases, traffic
from emissary.store.database import transaction
from emissary.store.pipeline_tables import PipelineRun
from emissary.store.tables import Deployment, Engine, FlowBacked, TrainingJob

logger = logging.getLogger(__name__)

CANCELLED: dict[type[FlowBacked], frozenset[str]] = {
    TrainingJob: frozenset({"Cancelled"}),
    PipelineRun: frozenset({"Cancelled"}),
    Deployment: frozenset({"Terminated", "Cancelled"}),
}
"""Status of rows for which nothing should run any more, whatever Prefect says."""


def ending_state(state: State[Any]) -> State[Any]:
    """The state by which a run in `state` is ended: nobody would carry out Cancelling for one that has no process."""
    return Cancelled() if state.type in (StateType.SCHEDULED, StateType.PAUSED) else Cancelling()


async def end_run(client: PrefectClient, flow_run_id: UUID) -> State[Any] | None:
    """Have a run end that has not ended; returns its state now, None when it was deleted in Prefect."""
    try:
        state = (await client.read_flow_run(flow_run_id)).state
        if state is None or state.is_final() or state.type == StateType.CANCELLING:
            return state
        await client.set_flow_run_state(flow_run_id, ending_state(state))
        return (await client.read_flow_run(flow_run_id)).state  # it may have ended by itself just before
    except ObjectNotFound:
        return None


async def cancel_run(row: FlowBacked) -> None:
    """Have Prefect cancel the row's flow run, and show it as cancelled. Raises Unavailable when Prefect is away."""
    if row.flow_run_id is None:
        return
    try:
        async with prefect_client() as client:
            state = await end_run(client, row.flow_run_id)
    except PREFECT_AWAY as error:
        raise Unavailable(f"Prefect cannot be reached, so {row.id} cannot be ended now; try again soon.") from error
    if state is None:
        state = Cancelled()  # it was deleted in Prefect
    await projection.apply(row.flow_run_id, state.type.value, state.name or "", state.message, state.timestamp)


async def end_cancelled(row: FlowBacked) -> None:
    """Have the run of a row end that is cancelled in the catalogue.

    Where Prefect is away, the run's process loses its lease, by which it ends as well, and the sweep tells Prefect.
    """
    try:
        async with prefect_client() as client:
            await _carry_out(client, row)
    except PREFECT_AWAY as error:
        logger.warning("%s is cancelled; Prefect, which cannot be reached, is told later: %s", row.id, error)
        async with transaction() as session:
            await leases.revoke(session, row.id)


async def carry_out_cancels(client: PrefectClient) -> None:
    """End the runs of rows that were cancelled while Prefect was away. Raises what `PREFECT_AWAY` names."""
    rows: list[FlowBacked] = []
    async with transaction() as session:
        for kind, cancelled in CANCELLED.items():
            query = select(kind).where(kind.status.in_(cancelled), kind.state_at.is_(None))
            rows.extend((await session.scalars(query)).all())
    for row in rows:
        with refusal_logged(row.id):
            await _carry_out(client, row)


async def _carry_out(client: PrefectClient, row: FlowBacked) -> None:
    flow_run_id = row.flow_run_id or await _submitted_unnoticed(client, row)
    state = None if flow_run_id is None else await end_run(client, flow_run_id)
    if flow_run_id is not None and state is not None and state.is_final() and state.type != StateType.CANCELLED:
        # It ended otherwise in the moment before, and the row, of which Cancelled was said, stays that.
        await client.set_flow_run_state(flow_run_id, Cancelled(), force=True)
    at = datetime.now(UTC) if state is None else state.timestamp
    kind = type(row)
    async with transaction() as session:
        await session.execute(
            update(kind)
            .where(kind.id == row.id, kind.attempt == row.attempt, kind.state_at.is_(None))
            .values(state_at=at, flow_run_id=flow_run_id)
        )


async def _submitted_unnoticed(client: PrefectClient, row: FlowBacked) -> UUID | None:
    """The run of a row without one: Prefect may have made it, but answered too late."""
    named = FlowRunFilter(name=FlowRunFilterName(any_=[flow_run_labels.name(row)]))
    runs = await client.read_flow_runs(flow_run_filter=named, limit=1)
    return runs[0].id if runs else None


async def terminate(deployment: Deployment, engine: Engine) -> None:
    """Stop serving a deployment: its name is free, its traffic is removed, a run that is still deploying it ends, the
    engine unloads it.

    Raises Unavailable when the engine does not answer; it may be called again then.
    """
    async with transaction() as session:
        row = await session.get_one(Deployment, deployment.id, with_for_update={"key_share": True})
        deploying = row.status in projection.LIVE[Deployment]
        row.status = "Terminated"
        await traffic.delete_all(session, row.id)
        if deploying:
            row.state_at = None
    if deploying:
        await end_cancelled(row)
    await engine_client.unload(engine, deployment.id)
