"""The API's application."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache, partial
from importlib.metadata import version

from fastapi import Depends, FastAPI, Request

from emissary.api import (
    capturing,
    deleting,
    flow_schedules,
    job_event_feed,
    package_sets,
    projection,
    sending,
    sweeping,
)
from emissary.api.body_limit import BodyLimit
from emissary.api.document import document
from emissary.api.errors import add_error_handlers
from emissary.api.routes import (
    datasets,
    deployments,
    engines,
    files,
    grpo_jobs,
    health,
    inference,
    keys,
    models,
    pipeline_runs,
    pipelines,
    predictions,
    projects,
    subscriptions,
    testing_functions,
    traffic,
    training_job_events,
    training_job_files,
    training_job_logs,
    training_job_pushes,
    training_job_runs,
    training_jobs,
    uploads,
    webhook_deliveries,
    webhooks,
)
from emissary.errors import InvalidInput, NotFound
from emissary.store.database import dispose


@asynccontextmanager
async def _lifespan(_app: FastAPI) -> AsyncIterator[None]:
    work = (
        projection.follow_events(),
        sweeping.sweep_for_ever(),
        flow_schedules.keep_for_ever(),
        deleting.clear_for_ever(),
        package_sets.clear_for_ever(),
        job_event_feed.listen(),
        sending.send_for_ever(),
        capturing.write_for_ever(),
    )
    followers = [asyncio.create_task(each) for each in work]
    try:
        yield
    finally:
        for follower in followers:
            follower.cancel()
        await asyncio.gather(*followers, return_exceptions=True)
        await dispose()


def _understood(request: Request) -> None:
    """PostgreSQL's text has no NUL, so nothing there is has one in its id; no query parameter has several values."""
    if any("\0" in str(value) for value in request.path_params.values()):
        raise NotFound(f"There is nothing at {request.url.path}.")
    for name, value in request.query_params.items():
        if "\0" in value:
            raise InvalidInput(f"{name}: must not contain NUL characters.")
        if len(request.query_params.getlist(name)) > 1:
            raise InvalidInput(f"{name}: it is given more than once; give it once.")


def create_app() -> FastAPI:
    """The application with all its routes."""
    app = FastAPI(
        title="Emissary Pipelines",
        version=version("emissary-pipelines"),
        description="Fine-tune, test, deploy and call models of your own.",
        lifespan=_lifespan,
        dependencies=[Depends(_understood)],
        generate_unique_id_function=lambda route: route.name,
        redirect_slashes=False,  # an address with one more is unknown, as any other
    )
    app.add_middleware(BodyLimit)
    add_error_handlers(app)
    for module in (
        health,
        models,
        projects,
        uploads,
        datasets,
        grpo_jobs,
        training_jobs,
        training_job_runs,
        training_job_events,
        training_job_files,
        training_job_pushes,
        training_job_logs,
        engines,
        deployments,
        traffic,
        pipelines,
        pipeline_runs,
        webhooks,
        webhook_deliveries,
        subscriptions,
        inference,
        predictions,
        keys,
        testing_functions,
        files,
    ):
        app.include_router(module.router)
    app.include_router(uploads.part_router)
    app.openapi = cache(partial(document, app))  # type: ignore[method-assign]
    return app
