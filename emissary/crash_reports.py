"""Tells Prefect of runs whose process died: of none that has come to another process or state by then."""

import logging
import signal
from collections.abc import Callable

import anyio
import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.runner._state_proposer import StateProposer
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Crashed

from emissary import out_of_memory

logger = logging.getLogger(__name__)

_AGAIN_SECONDS = 1.0
_KILLED = f"status code: {-signal.SIGKILL:d}."
_NO_MEMORY = "Out of memory: the kernel ended the process, since the machine had no memory left."


class CrashReports(StateProposer):
    """What Prefect's executor reports a crash to; `identity` gives that of the process, "" before there is one.

    Nothing is reported any more once the worker `is_leaving`, which gives its runs back.
    """

    def __init__(self, client: PrefectClient, identity: Callable[[], str], is_leaving: Callable[[], bool]) -> None:
        super().__init__(client=client)
        self._identity, self._is_leaving = identity, is_leaving

    async def propose_crashed(self, flow_run: FlowRun, message: str) -> State | None:
        """Report it as soon as Prefect answers; returns the state, None where nothing was reported."""
        if _KILLED in message and out_of_memory.killed_lately():
            message = _NO_MEMORY
        while not self._is_leaving():
            try:
                # Asked again by Prefect's client it would come late, and after no look at the run.
                with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
                    return await self._report(flow_run, Crashed(message=message))
            except ObjectNotFound:
                return None
            except (httpx.TransportError, PrefectHTTPStatusError) as error:
                logger.warning("%s crashed; Prefect is told later: %s", flow_run.id, str(error) or type(error).__name__)
            await anyio.sleep(_AGAIN_SECONDS)
        return None

    async def _report(self, flow_run: FlowRun, crashed: State) -> State | None:
        now = await self._client.read_flow_run(flow_run.id)
        # The run has the process that it had when it was claimed until this one's is noted.
        is_its_own = now.infrastructure_pid in (flow_run.infrastructure_pid, self._identity())
        if not is_its_own or now.state is None or now.state.type not in (StateType.PENDING, StateType.RUNNING):
            return None
        await self._client.set_flow_run_state(flow_run.id, crashed)
        return crashed
