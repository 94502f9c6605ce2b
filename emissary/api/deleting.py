"""What deleting does outside the catalogue: first the runs end, and after the rows are gone, what they left is removed.

Rows go in one transaction, which also notes what is left elsewhere. So a deletion that breaks off has either not
happened, and can be repeated, or is completed by `clear_for_ever`.
"""

import asyncio
import logging
import shutil
import time
from collections.abc import Collection, Sequence
from datetime import timedelta
from uuid import UUID

from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import TERMINAL_STATES, StateType
from starlette.concurrency import run_in_threadpool

from emissary.api.ending import ending_state
from emissary.api.prefect_client import PREFECT_AWAY, prefect_client
from emissary.errors import Unavailable
from emissary.serving import client as engine_client
from emissary.settings import settings
from emissary.store import leftovers, prepared
from emissary.store.artifacts import artifact_store
from emissary.store.database import transaction
from emissary.store.tables import Engine, Leftover

logger = logging.getLogger(__name__)

# A process has 30 seconds to end itself before Prefect's worker kills it.
_END_SECONDS = 60.0
_LOOK_SECONDS = 0.3
_CLEAR_SECONDS = 10.0
SETTLED = timedelta(seconds=60)
"""After this time nothing writes any more what belongs to a deleted thing."""


async def end_runs(flow_run_ids: Collection[UUID]) -> None:
    """Cancel the flow runs that have not ended, and wait until they have.

    Raises Unavailable when Prefect cannot be reached, or when a run has not ended after a minute.
    """
    if not flow_run_ids:
        return
    live = FlowRunFilter(
        id=FlowRunFilterId(any_=list(flow_run_ids)),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(set(StateType) - TERMINAL_STATES))),
    )
    deadline = time.monotonic() + _END_SECONDS
    try:
        async with prefect_client(None) as client:
            while runs := await client.read_flow_runs(flow_run_filter=live):
                if time.monotonic() > deadline:
                    raise Unavailable(f"The run {runs[0].name} is cancelled but has not ended yet; try again soon.")
                for run in runs:
                    if run.state is not None and run.state.type != StateType.CANCELLING:
                        await client.set_flow_run_state(run.id, ending_state(run.state))
                await asyncio.sleep(_LOOK_SECONDS)
    except PREFECT_AWAY as error:
        raise Unavailable("Prefect cannot be reached, so nothing was deleted; try again soon.") from error


async def clear(left: Sequence[Leftover]) -> None:
    """Remove what deleted things left: files, and adapters on engines. `clear_for_ever` does again what fails."""
    for leftover in left:
        try:
            await _clear(leftover)
        except Exception as error:
            logger.warning("%s is deleted, but not all that it left (%s); trying again", leftover.id, error)


async def give_up(coming: Leftover) -> None:
    """Remove what was stored for a thing that has not come; `clear_for_ever` does it later where this fails."""
    try:
        async with transaction() as session:
            if await leftovers.is_left(session, coming):
                await _clear(coming)
                await leftovers.has_come(session, coming)
    except Exception as error:
        logger.warning("What was stored for %s is removed later (%s)", coming.id, error)


async def _clear(leftover: Leftover) -> None:
    store = artifact_store()
    for key in leftover.artifacts:
        if key.startswith(f"{prepared.FOLDER}/"):
            async with transaction() as session:
                if await prepared.is_left(session, key):
                    await run_in_threadpool(store.delete, key)
        else:
            await run_in_threadpool(store.delete, key)
    await run_in_threadpool(shutil.rmtree, settings().home / "work" / leftover.id, ignore_errors=True)
    if leftover.engine_id is not None:
        async with transaction() as session:
            engine = await session.get(Engine, leftover.engine_id)
        if engine is not None:
            await engine_client.unload(engine, leftover.id)


async def clear_for_ever() -> None:
    """Go through what deleted things left, and publishers that were killed, every ten seconds."""
    while True:
        try:
            await clear_settled()
            await run_in_threadpool(artifact_store().clear_drafts)
        except Exception as error:
            logger.warning("Leftovers of deleted things could not be removed (%s); trying again", error)
        await asyncio.sleep(_CLEAR_SECONDS)


async def clear_settled(older_than: timedelta = SETTLED) -> None:
    """Remove what was left by things deleted longer ago, and forget it. Raises what a removal raises.

    `clear` did so already, unless it broke off; what a dying run wrote after that goes now.
    """
    while True:
        async with transaction() as session:
            leftover = await leftovers.take_one(session, older_than)
            if leftover is None:
                return
            await _clear(leftover)
            await session.delete(leftover)
