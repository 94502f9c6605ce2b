"""The API's application."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import Depends, FastAPI, Request

from emissary.api import projection
from emissary.api.body_limit import BodyLimit
from emissary.api.errors import add_error_handlers
from emissary.api.routes import (
    datasets,
    deployments,
    engines,
    files,
    health,
    inference,
    models,
    predictions,
    projects,
    testing_functions,
    training_jobs,
)
from emissary.errors import InvalidInput, NotFound
from emissary.store.database import dispose


@asynccontextmanager
async def _lifespan(_app: FastAPI) -> AsyncIterator[None]:
    followers = [asyncio.create_task(projection.follow_events()), asyncio.create_task(projection.sweep_for_ever())]
    try:
        yield
    finally:
        for follower in followers:
            follower.cancel()
        await asyncio.gather(*followers, return_exceptions=True)
        await dispose()


def _without_nul(request: Request) -> None:
    """PostgreSQL's text has no NUL, so nothing there is has one in its id."""
    if any("\0" in str(value) for value in request.path_params.values()):
        raise NotFound(f"There is nothing at {request.url.path}.")
    for name, value in request.query_params.items():
        if "\0" in value:
            raise InvalidInput(f"{name}: must not contain NUL characters.")


def create_app() -> FastAPI:
    """The application with all its routes."""
    app = FastAPI(
        title="Emissary Pipelines",
        version=version("emissary-pipelines"),
        description="Fine-tune, test, deploy and call models of your own.",
        lifespan=_lifespan,
        dependencies=[Depends(_without_nul)],
    )
    app.add_middleware(BodyLimit)
    add_error_handlers(app)
    for module in (
        health,
        models,
        projects,
        datasets,
        training_jobs,
        engines,
        deployments,
        inference,
        predictions,
        testing_functions,
        files,
    ):
        app.include_router(module.router)
    return app
