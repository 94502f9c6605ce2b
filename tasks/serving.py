"""An engine's life inside its flow run: load, serve, end when idle."""

import asyncio
import math
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import uvicorn
from fastapi import FastAPI
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.errors import Unavailable
from emissary.secret_files import signing_key
from emissary.serving.batching import Batcher
from emissary.serving.generation import Generator
from emissary.serving.pooled import PooledModel
from emissary.serving.pooled_batching import PooledBatcher
from emissary.serving.server import create_engine_app
from emissary.serving.token import engine_token
from emissary.settings import settings
from emissary.store import deployments, engines, judges
from emissary.store.artifacts import artifact_store
from emissary.store.tables import Checkpoint, Deployment, Engine
from tasks.attempt import must_save, must_stop
from tasks.catalogue import in_catalogue
from tasks.patience import patiently

_LOOK_SECONDS = 1.0
_RECORD_SECONDS = 15.0
_SERVED = ("Deployed", "Deactivated", "Reactivating")


@task(task_run_name="load-base-model", cache_policy=NO_CACHE)
async def load_generator(model_dir: Path, task_type: str) -> Generator | PooledModel:
    """The base model, loaded for the task type."""
    return await anyio.to_thread.run_sync(load_model, model_dir, task_type)


def load_model(model_dir: Path, task_type: Any) -> Generator | PooledModel:
    """The base model in `model_dir`, loaded for the task type."""
    return Generator(model_dir) if task_type == "text-generation" else PooledModel(model_dir, task_type)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: a SIGTERM is Prefect's to end the run with, and with it the server."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals as they are."""
        yield


@asynccontextmanager
async def serving(engine: Engine, generator: Generator | PooledModel) -> AsyncIterator[FastAPI]:
    """Serve `generator` on a free port, with all adapters that the engine had, and tell the catalogue where."""
    store = artifact_store()
    batcher = Batcher(generator) if isinstance(generator, Generator) else PooledBatcher(generator)
    token = engine_token(signing_key(settings()).get_secret_value(), engine.id)
    app = create_engine_app(
        batcher,
        generator,
        base_model=engine.base_model,
        token=token,
        fetch=lambda key: patiently(store.folder, key),
    )
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = _Server(uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=9))
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        running = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            restored = await _restore(engine, app)
            await in_catalogue(engines.set_endpoint, engine.id, endpoint)
            await _catch_up(engine, app, restored)
            yield app
        finally:
            await in_catalogue(engines.clear_endpoint, engine.id, endpoint)
            server.should_exit = True
            await running
            await asyncio.to_thread(batcher.close)


async def _restore(engine: Engine, app: FastAPI) -> dict[str, str | None]:
    """Load what the engine served before it ended; one that cannot be loaded is Failed. Returns what was loaded: name
    to artifact.
    """
    served = [row for row in await in_catalogue(engines.deployments, engine.id) if row.status in _SERVED]
    artifacts = {row.id: await in_catalogue(artifact_of, row) for row in served}
    return {name: artifact for name, artifact in artifacts.items() if await _loaded(app, name, artifact)}


async def _loaded(app: FastAPI, name: str, artifact: str | None) -> bool:
    """Load it, or else make its deployment Failed; whether it is loaded. Raises Unavailable without the store."""
    try:
        await asyncio.to_thread(app.state.load, name, artifact)
    except Unavailable:
        raise  # nothing is wrong with the adapter: the engine can start again when the store is back
    except Exception as error:
        get_run_logger().exception("%s could not be loaded", name)
        await in_catalogue(deployments.fail, name, f"Its adapter could not be loaded again: {error}")
        return False
    return True


async def _catch_up(engine: Engine, app: FastAPI, restored: dict[str, str | None]) -> None:
    """Unload what was removed, and load what was replaced, while it was being restored, before anybody knew where to
    ask for that.
    """
    live = {row.id: row for row in await in_catalogue(engines.deployments, engine.id)}
    for name, artifact in restored.items():
        if name not in live:
            app.state.unload(name)
        elif (now := await in_catalogue(artifact_of, live[name])) != artifact:
            await _loaded(app, name, now)


async def artifact_of(session: AsyncSession, deployment: Deployment) -> str | None:
    """The key of the deployment's adapter; None when it serves the base model."""
    if deployment.checkpoint == 0:
        return None
    row = await session.get_one(Checkpoint, (deployment.training_job_id, deployment.checkpoint))
    return str(row.artifact)


@task(task_run_name="serve", cache_policy=NO_CACHE)
async def until_idle(engine: Engine, app: FastAPI) -> str:
    """Wait until no request came for the engine's inactive duration and no job needs it as its judge, or the run is to
    stop; says so. By a schedule it goes on until the end of the window, when `stop_engine` cancels the run.
    """
    limit = engine.resource_management_config["management_config"].get("inactive_duration", math.inf)
    log = get_run_logger()
    recorded = needed = 0.0
    until = "the end of its schedule's window" if math.isinf(limit) else f"{limit} s without a request"
    log.info("Serving %s until %s", engine.base_model, until)
    while not (must_stop() or must_save()):
        last = max(app.state.last_access(), needed)
        if time.time() - last >= limit:
            if not await in_catalogue(judges.engine_in_use, engine.id):
                return f"No request for {limit} s."
            needed = time.time()
        if time.time() - recorded >= _RECORD_SECONDS:
            recorded = time.time()
            await in_catalogue(engines.record_access, engine.id, last)
        await asyncio.sleep(_LOOK_SECONDS)
    return "The engine is to stop."
