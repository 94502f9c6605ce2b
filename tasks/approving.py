"""Waiting for a person's word on what passed the gate, with no process meanwhile: Prefect suspends the run.

It is resumed by being scheduled again, by the API or in Prefect's UI, and then finds in its row what was done.
The catalogue has the answer; one that was given to Prefect, as the input of the resumed run, is noted there first.
"""

import asyncio
import logging
from datetime import UTC, datetime
from uuid import UUID, uuid4

import httpx
from prefect import runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import Pause, PrefectHTTPStatusError
from prefect.input import RunInput
from prefect.input.actions import aread_flow_run_input
from prefect.input.run_input import keyset_from_base_key
from prefect.states import Suspended
from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.schemas.pipelines import Approval
from emissary.store import approvals
from emissary.store.pipeline_tables import PipelineRun
from emissary.store.users import ensure_user
from tasks.attempt import end_if_interrupted, require_lease
from tasks.catalogue import in_catalogue
from tasks.reporting import reported

logger = logging.getLogger(__name__)

_KEYS = keyset_from_base_key("approval")
_LONGEST_WAIT_SECONDS = 5.0


class Answer(RunInput):
    """What Prefect's UI asks when the run is resumed there."""

    approve: bool = Field(description="Whether to deploy it.")
    reason: str = Field(default="", max_length=2000, description="Why; it is kept with the run.")


async def refusal(run: PipelineRun) -> str | None:
    """Why what passed the gate is not to be deployed; None where it is, or the pipeline asks nobody.

    Ends the process where nobody has answered yet, by raising Prefect's Pause.
    """
    wait = 0.2
    while (asked := await in_catalogue(approvals.ask, run.id)) is not None:
        if asked.approved is not None:
            return None if asked.approved else _refused(asked)
        try:
            if (answer := await _answer_in_prefect()) is not None:
                require_lease()
                await in_catalogue(_note, run.id, answer)
                continue
            await reported()
            await _suspend(asked)
        except (httpx.TransportError, PrefectHTTPStatusError) as error:
            logger.warning("The run waits for approval in its process, for Prefect cannot suspend it: %s", error)
        end_if_interrupted()
        await asyncio.sleep(wait)
        wait = min(1.5 * wait, _LONGEST_WAIT_SECONDS)
    return None


def _refused(asked: Approval) -> str:
    return f"It passed the gate, and was not approved. {asked.reason or ''}".rstrip()


async def _answer_in_prefect() -> Answer | None:
    given = await aread_flow_run_input(_KEYS["response"])
    return None if given is None else Answer.model_validate(given)


async def _note(session: AsyncSession, run_id: str, answer: Answer) -> None:
    user = await ensure_user(session, "prefect")
    await approvals.answer_unless_answered(session, run_id, user.id, answer.approve, answer.reason or None)


async def _suspend(asked: Approval) -> None:
    """Raises Pause once Prefect has suspended the run. Prefect may refuse, where the run is being cancelled."""
    flow_run_id = UUID(runtime.flow_run.get_id())
    until = datetime.fromtimestamp(asked.until, UTC)
    # A key of its own each time: Prefect suspends by the same one once only. Its time-out would fail the run.
    suspended: State = Suspended(
        pause_key=str(uuid4()),
        message=f"It passed the gate and waits for a person's approval until {until:%Y-%m-%d %H:%M} UTC.",
        state_details={"run_input_keyset": _KEYS},
    )
    async with get_client() as client:
        try:
            await Answer.asave(_KEYS, flow_run_id)  # first: without it nobody could resume the run in the UI
        except PrefectHTTPStatusError as error:
            if error.response.status_code != httpx.codes.CONFLICT:  # it is there from the time before
                raise
        await client.set_flow_run_state(flow_run_id, suspended)
        state = (await client.read_flow_run(flow_run_id)).state
    if state is not None and state.is_paused():
        raise Pause(state=state)
