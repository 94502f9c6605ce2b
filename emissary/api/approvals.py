"""Has the runs that were suspended until a person answered go on once that has happened, or their time is over."""

import logging
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.states import Scheduled

from emissary.api.prefect_client import PREFECT_AWAY, prefect_client, refusal_logged
from emissary.store import approvals
from emissary.store.database import transaction
from emissary.store.pipeline_tables import PipelineRun

logger = logging.getLogger(__name__)


async def resume(row: PipelineRun) -> None:
    """Have the run go on that was answered just now; where Prefect is away, the sweep has it."""
    if row.flow_run_id is None:
        return
    try:
        async with prefect_client() as client:
            await _resume(client, row.flow_run_id)
    except PREFECT_AWAY as error:
        logger.warning("%s goes on once Prefect can be reached: %s", row.id, str(error) or type(error).__name__)


async def resume_answered(client: PrefectClient) -> None:
    """Have all runs go on that wait for nothing more. Raises what `PREFECT_AWAY` names."""
    async with transaction() as session:
        rows = await approvals.answered(session)
    for row in rows:
        if row.flow_run_id is not None:
            with refusal_logged(row.id):
                await _resume(client, row.flow_run_id)


async def _resume(client: PrefectClient, flow_run_id: UUID) -> None:
    state = (await client.read_flow_run(flow_run_id)).state
    # A run that is not suspended yet is resumed by a later sweep; two processes are kept apart by their lease.
    if state is not None and state.is_paused():
        await client.set_flow_run_state(flow_run_id, Scheduled(name="Resuming"))
