"""What a flow run says of itself while it works."""

from prefect import runtime
from prefect.client.orchestration import get_client
from prefect.states import Running


async def enter(name: str) -> None:
    """Go on as Running under another name, such as `Testing`; the projection shows it as the resource's status."""
    async with get_client() as client:
        await client.set_flow_run_state(runtime.flow_run.get_id(), Running(name=name))
