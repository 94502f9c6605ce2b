"""deploy_checkpoint: make sure the engine is up, load the adapter, probe it."""

from prefect import flow

from tasks.deploying import load_adapter, probe, wait_for_engine
from tasks.registering import deployment


@flow(name="deploy_checkpoint")
async def deploy_checkpoint(deployment_id: str) -> None:
    """Have a deployment answer on its engine.

    Args:
        deployment_id: The deployment, such as `dp-…`.
    """
    await deployment(deployment_id)
    engine = await wait_for_engine(deployment_id)
    await load_adapter(deployment_id, engine)
    await probe(deployment_id, engine)
