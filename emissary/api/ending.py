"""Ends what runs for an engine or a deployment: the flow run in Prefect, the adapter on the engine."""

from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling

from emissary.api import projection
from emissary.api.submit import PREFECT_AWAY
from emissary.errors import Unavailable
from emissary.serving import client as engine_client
from emissary.store.database import transaction
from emissary.store.tables import Deployment, Engine, FlowBacked


async def cancel_run(row: FlowBacked) -> None:
    """Have Prefect cancel the row's flow run, and show it as cancelled. Raises Unavailable when Prefect is away."""
    if row.flow_run_id is None:
        return
    state: State[Any] = Cancelling()
    try:
        async with get_client() as client:
            await client.set_flow_run_state(row.flow_run_id, state)
    except ObjectNotFound:
        pass  # somebody deleted the run in Prefect, so nothing runs
    except PREFECT_AWAY as error:
        raise Unavailable(f"Prefect cannot be reached, so {row.id} cannot be ended now; try again soon.") from error
    await projection.apply(row.flow_run_id, state.type.value, state.name or "", None)


async def terminate(deployment: Deployment, engine: Engine) -> None:
    """Stop serving a deployment: its name is free, a run that is still deploying it ends, the engine unloads it.

    Raises Unavailable when Prefect or the engine does not answer; it may be called again then.
    """
    deploying = deployment.status in ("Pending", "Deploying")
    async with transaction() as session:
        (await session.get_one(Deployment, deployment.id)).status = "Terminated"
    if deploying:
        await cancel_run(deployment)
    await engine_client.unload(engine, deployment.id)
