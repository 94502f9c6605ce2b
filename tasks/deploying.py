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
# An engine waits up to ten minutes for an artifact store that is away, and says so then.
_LOAD_TIMEOUT = httpx.Timeout(700.0, connect=5.0)
_MOST_BREAKS = 3
"""How many engines in a row may die while they load a checkpoint."""
_SILENT_SECONDS = 180.0
"""How long an engine that is said to be Active may not answer."""
_PROBES: dict[str, tuple[str, dict[str, Any]]] = {
    "text-generation": ("/v1/completions", {"prompt": "Hello", "max_tokens": 1}),
    "classification": ("/v1/classification", {"input": "Hello"}),
    "regression": ("/v1/regression", {"input": "Hello"}),
    "embedding": ("/v1/embeddings", {"input": "Hello"}),
}


async def deploy(deployment_id: str) -> None:
    """Have the deployment answer on its engine; where that dies meanwhile, on the one that takes its place.

    Raises EmissaryError where the deployment or the engine is gone, the engine refuses, or none answers.
    """
    broke_off: dict[str | None, float] = {}
    while True:
        engine = await wait_for_engine(deployment_id)
        try:
            await load_adapter(deployment_id, engine)
            await probe(deployment_id, engine)
            return
        except httpx.TransportError as error:
            sentence = f"The engine {engine.id} does not answer; look at its log in the Prefect UI, then deploy again."
            await wait_for_another(engine, broke_off, sentence, error)


async def wait_for_another(
    engine: Engine, broke_off: dict[str | None, float], sentence: str, error: httpx.TransportError
) -> None:
    """Wait a moment after the engine did not answer: its process has most likely died, which is found out soon; then
    another one is waited for.

    `broke_off` has when each endpoint did so first, this one too from now on. Raises EmissaryError with the `sentence`
    behind the third of them, or where one is said to be Active for minutes and does not answer.
    """
    since = broke_off.setdefault(engine.endpoint, time.monotonic())
    if len(broke_off) == _MOST_BREAKS or time.monotonic() - since > _SILENT_SECONDS:
        raise EmissaryError(sentence) from error
    await asyncio.sleep(1)


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


@task(task_run_name="load-adapter", cache_policy=NO_CACHE)
async def load_adapter(deployment_id: str, engine: Engine) -> None:
    """Have the engine serve the deployment under its id. Raises EmissaryError where it refuses, httpx.TransportError
    where it does not answer.
    """
    deployment = _check_live(await in_catalogue(deployments.get, deployment_id))
    await load(deployment_id, engine, await in_catalogue(artifact_of, deployment))
    deployment = await in_catalogue(deployments.get, deployment_id)
    if deployment.status in GONE:  # removed meanwhile, perhaps before there was anything to unload
        await engine_client.unload(engine, deployment_id)
    _check_live(deployment)


@task(task_run_name="probe", cache_policy=NO_CACHE)
async def probe(deployment_id: str, engine: Engine) -> None:
    """Have the deployment answer one small request; wait until Prefect shows everything. Raises as `load_adapter`."""
    await ask(deployment_id, engine)
    await reported()


async def load(deployment_id: str, engine: Engine, artifact: str | None) -> None:
    """Have the engine serve the artifact (None: its base model) under the deployment's id. Raises as `load_adapter`."""
    async with engine_client.connect(engine) as client:
        body = {"name": deployment_id, "artifact": artifact}
        _check(await client.post("/adapters", json=body, timeout=_LOAD_TIMEOUT))


async def ask(deployment_id: str, engine: Engine) -> None:
    """`probe` outside a run of the deployment's own. Raises as `load_adapter`."""
    path, body = _PROBES[engine.task_type]
    async with engine_client.connect(engine) as client:
        _check(await client.post(path, json={"model": deployment_id} | body, headers=PROBE))


def _check_live(deployment: Deployment) -> Deployment:
    if deployment.status in GONE:
        raise Unavailable(f"The deployment {deployment.id} is {deployment.status}.")
    return deployment


def _check(response: httpx.Response) -> None:
    """Raises EmissaryError with what the engine said against it."""
    if response.is_error:
        raise EmissaryError(f"The engine refused: {response.json().get('error', response.text)}")
