"""Turns rows into Prefect flow runs: each row once, now or, when Prefect is away, later by the sweep.

A row is committed before it is submitted, and its id and attempt are the flow run's idempotency key: asking twice
gives the same flow run.
"""

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.api.prefect_client import PREFECT_AWAY, prefect_client, refusal_logged
from emissary.store import flow_run_labels
from emissary.store.database import after_commit, transaction
from emissary.store.pipeline_tables import PipelineRun
from emissary.store.tables import Dataset, Deployment, Engine, FlowBacked, TrainingJob

logger = logging.getLogger(__name__)

WAITING: dict[type[FlowBacked], str] = {
    TrainingJob: "Pending",
    Engine: "Creating",
    Deployment: "Pending",
    Dataset: "Pending",
    PipelineRun: "Pending",
}
"""Kinds of rows that are submitted, and the status in which they wait for it."""
PREPARING_AT_ONCE = 2
"""Of how many datasets the profile is made at once; others wait for the sweep. Nothing else waits for profiles."""


def _flow(row: FlowBacked) -> tuple[str, dict[str, Any]]:
    """(flow deployment, parameters) of the run that brings the row about."""
    match row:
        case TrainingJob():
            flow = "train_grpo" if row.training_technique == "GRPO" else "train_sft"
            return f"{flow}/{flow}", {"training_job_id": row.id}
        case Engine():
            return "serve_engine/serve_engine", {"engine_id": row.id}
        case Deployment():
            return "deploy_checkpoint/deploy_checkpoint", {"deployment_id": row.id}
        case Dataset():
            return "prepare_dataset/prepare_dataset", {"dataset_id": row.id}
        case PipelineRun():
            return "retrain/retrain", {"pipeline_id": row.pipeline_id, "pipeline_run_id": row.id}
    raise TypeError(f"{type(row).__name__} rows have no flow")


async def submit(row: FlowBacked) -> None:
    """Create the flow run of a row that waits for one, once the row is committed, and note its id on it.

    Where Prefect is away the row is left for the sweep.
    """
    if row.flow_run_id is not None or row.status != WAITING[type(row)]:
        return
    await after_commit(partial(_submit_now, row))


async def _submit_now(row: FlowBacked) -> None:
    try:
        async with prefect_client() as client:
            await _submit(client, row)
    except PREFECT_AWAY as error:
        logger.warning("%s waits for Prefect, which cannot be reached: %s", row.id, str(error) or type(error).__name__)


async def _submit(client: PrefectClient, row: FlowBacked) -> None:
    name, parameters = _flow(row)
    async with transaction() as session:
        tags = await flow_run_labels.tags(session, row)
    flow_deployment = await client.read_deployment_by_name(name)
    run = await client.create_flow_run_from_deployment(
        flow_deployment.id,
        parameters=parameters,
        name=flow_run_labels.name(row),
        tags=tags,
        idempotency_key=f"{row.id}:{row.attempt}",
    )
    await _note(row, run.id)


async def _note(row: FlowBacked, flow_run_id: UUID) -> None:
    async with transaction() as session:
        kind = type(row)
        # No state of this run is applied yet. A row that was cancelled meanwhile shows by that that its run is to end.
        await session.execute(
            update(kind)
            .where(kind.id == row.id, kind.attempt == row.attempt, kind.flow_run_id.is_(None))
            .values(flow_run_id=flow_run_id, state_at=None)
        )
    row.flow_run_id = flow_run_id


async def submit_waiting() -> None:
    """Submit every row that waits without a flow run. Raises what `PREFECT_AWAY` names."""
    rows: list[FlowBacked] = []
    async with transaction() as session:
        for kind, status in WAITING.items():
            limit = await _free_for_datasets(session) if kind is Dataset else None
            query = select(kind).where(kind.flow_run_id.is_(None), kind.status == status)
            query = query.order_by(text("created_at")).limit(limit)
            found: Sequence[Any] = (await session.scalars(query)).all()
            rows.extend(found)
    if rows:
        async with prefect_client(None) as client:
            for row in rows:
                with refusal_logged(row.id):
                    await _submit(client, row)


async def _free_for_datasets(session: AsyncSession) -> int:
    live = Dataset.flow_run_id.is_not(None) & Dataset.status.in_(("Pending", "Running"))
    busy = await session.scalar(select(func.count()).where(live))
    return max(0, PREPARING_AT_ONCE - (busy or 0))
