"""deploy_checkpoint: make sure the engine is up, load the adapter, probe it."""

from prefect import flow

from tasks.deploying import deploy
from tasks.registering import deployment


@flow(name="deploy_checkpoint")
async def deploy_checkpoint(deployment_id: str) -> None:
    """Have a deployment answer on its engine.

    Args:
        deployment_id: The deployment, such as `dp-…`.
    """
    await deployment(deployment_id)
    await deploy(deployment_id)
