"""What a flow run says of itself while it works."""

from functools import partial
from uuid import UUID

from prefect import runtime
from prefect.client.orchestration import get_client
from prefect.states import Running

from tasks.reporting import report


def enter(name: str) -> None:
    """Go on as Running under another name, such as `Testing`; the projection shows it as the resource's status."""
    report("The state", partial(_enter, UUID(runtime.flow_run.get_id()), name))


async def _enter(flow_run_id: UUID, name: str) -> None:
    async with get_client() as client:
        await client.set_flow_run_state(flow_run_id, Running(name=name))
