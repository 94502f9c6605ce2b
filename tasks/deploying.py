"""Loading a checkpoint's adapter on an engine."""

import asyncio
import time
from typing import Any

import httpx
from prefect import task
from prefect.cache_policies import NO_CACHE

from emissary.errors import EmissaryError, Unavailable
from emissary.serving import client as engine_client
from emissary.serving.measuring import PROBE
from emissary.store import deployments, engines
from emissary.store.tables import GONE, Deployment, Engine
from tasks.attempt import end_if_interrupted
from tasks.catalogue import in_catalogue
from tasks.reporting import reported
from tasks.serving import artifact_of

# A base model that is fetched first may be many gigabytes.
ENGINE_DEADLINE_SECONDS = 3600.0
_PROBES: dict[str, tuple[str, dict[str, Any]]] = {
    "text-generation": ("/v1/completions", {"prompt": "Hello", "max_tokens": 1}),
    "classification": ("/v1/classification", {"input": "Hello"}),
    "regression": ("/v1/regression", {"input": "Hello"}),
    "embedding": ("/v1/embeddings", {"input": "Hello"}),
}


@task(task_run_name="wait-for-engine", cache_policy=NO_CACHE)
async def wait_for_engine(deployment_id: str) -> Engine:
    """The deployment's engine once it is Active. Raises Unavailable when it ends or takes over an hour."""
    deadline = time.monotonic() + ENGINE_DEADLINE_SECONDS
    while time.monotonic() < deadline:
        end_if_interrupted()
        deployment = await in_catalogue(deployments.get, deployment_id)
        engine = await in_catalogue(engines.get, deployment.engine_id)
        _check_live(deployment)
        if engine.status == "Active" and engine.endpoint:
            return engine
        if engine.status == "Inactive":
            raise Unavailable(
                f"The engine {engine.id} ended before it could be deployed on. {engine.error or ''}".rstrip()
            )
        await asyncio.sleep(0.2)
    raise Unavailable(f"The engine {engine.id} was not Active within {ENGINE_DEADLINE_SECONDS:.0f} s.")


@task(task_run_name="load-adapter", cache_policy=NO_CACHE, retries=3, retry_delay_seconds=2)
async def load_adapter(deployment_id: str, engine: Engine) -> None:
    """Have the engine serve the deployment under its id."""
    deployment = _check_live(await in_catalogue(deployments.get, deployment_id))
    artifact = await in_catalogue(artifact_of, deployment)
    async with engine_client.connect(engine) as client:
        checked(await client.post("/adapters", json={"name": deployment_id, "artifact": artifact}))
    deployment = await in_catalogue(deployments.get, deployment_id)
    if deployment.status in GONE:  # removed meanwhile, perhaps before there was anything to unload
        await engine_client.unload(engine, deployment_id)
    _check_live(deployment)


@task(task_run_name="probe", cache_policy=NO_CACHE, retries=1, retry_delay_seconds=2)
async def probe(deployment_id: str, engine: Engine) -> None:
    """Have the deployment answer one small request, and wait until Prefect shows everything."""
    await ask(deployment_id, engine)
    await reported()


async def ask(deployment_id: str, engine: Engine) -> None:
    """The same outside a run of the deployment's own. Raises EmissaryError where it does not answer."""
    path, body = _PROBES[engine.task_type]
    async with engine_client.connect(engine) as client:
        checked(await client.post(path, json={"model": deployment_id} | body, headers=PROBE))


def _check_live(deployment: Deployment) -> Deployment:
    if deployment.status in GONE:
        raise Unavailable(f"The deployment {deployment.id} is {deployment.status}.")
    return deployment


def checked(response: httpx.Response) -> None:
    """Raises EmissaryError with what the engine said against it."""
    if response.is_error:
        raise EmissaryError(f"The engine refused: {response.json().get('error', response.text)}")
