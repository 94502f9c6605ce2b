"""Who is calling: `X-API-Key`, or `Authorization: Bearer` as OpenAI's clients send it."""

from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer

from emissary.errors import Forbidden, Unauthorized
from emissary.store import deployments, engines, pipelines, projects, subscriptions, users
from emissary.store.database import transaction
from emissary.store.pipeline_tables import Pipeline, Subscription
from emissary.store.tables import Deployment, Engine, Project
from emissary.store.users import Caller

_SAFE_METHODS = ("GET", "HEAD")


async def authenticate(request: Request) -> Caller:
    """The caller, by the request's key. Raises Unauthorized without a valid one, Forbidden where its role stops."""
    key = request.headers.get("x-api-key")
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if not key and scheme.lower() == "bearer":
        key = credentials.strip()
    if not key:
        raise Unauthorized("There is no API key in the request; send it as X-API-Key or as Bearer token.")
    async with transaction() as session:
        caller = await users.authenticate(session, key)
    if caller.role == "read-only" and request.method not in _SAFE_METHODS:
        raise Forbidden("The key is read-only; use one with the role member or admin for this.")
    return caller


def _caller(request: Request) -> Caller:
    """The caller that the route has authenticated before it read the body."""
    caller: Caller = request.state.caller
    return caller


def _admin(caller: "CurrentCaller") -> Caller:
    if caller.role != "admin":
        raise Forbidden("Only a key with the role admin may do this.")
    return caller


def _by_bearer(request: Request) -> bool:
    return not request.headers.get("x-api-key")


async def _project(project_id: str, caller: "CurrentCaller") -> Project:
    async with transaction() as session:
        return await projects.get(session, project_id, caller.organization_id)


async def _engine(engine_id: str, caller: "CurrentCaller") -> Engine:
    async with transaction() as session:
        return await engines.get(session, engine_id, caller.organization_id)


async def _pipeline(project: "OwnedProject", pipeline_id: str) -> Pipeline:
    async with transaction() as session:
        return await pipelines.get(session, pipeline_id, project.id)


async def _subscription(project: "OwnedProject", subscription_id: str) -> Subscription:
    async with transaction() as session:
        return await subscriptions.get(session, subscription_id, project.id)


async def _deployment(project: "OwnedProject", deployment_id: str) -> Deployment:
    async with transaction() as session:
        return await deployments.get(session, deployment_id, project.id)


CurrentCaller = Annotated[Caller, Depends(_caller)]
"""Who is calling."""

AdminCaller = Annotated[Caller, Depends(_admin)]
"""Who is calling, refused unless an admin."""

OwnedProject = Annotated[Project, Depends(_project)]
"""The path's project, which the caller's organization owns; 404 for another's."""

OwnedEngine = Annotated[Engine, Depends(_engine)]
"""The path's engine, which the caller's organization owns; 404 for another's."""

OwnedPipeline = Annotated[Pipeline, Depends(_pipeline)]
"""The path's pipeline, of the path's project, which the caller's organization owns; 404 for another's."""

OwnedSubscription = Annotated[Subscription, Depends(_subscription)]
"""The path's subscription, of the path's project, which the caller's organization owns; 404 for another's."""

OwnedDeployment = Annotated[Deployment, Depends(_deployment)]
"""The path's deployment with its engine, of the path's project, which the caller's organization owns; 404 for
another's.
"""

ByBearer = Annotated[bool, Depends(_by_bearer)]
"""Whether the key came as Bearer token, so most likely from a client of OpenAI's."""

KEY_SCHEMES = [
    Security(APIKeyHeader(name="X-API-Key", auto_error=False)),
    Security(HTTPBearer(auto_error=False)),
]
"""Tells the API's document how to send a key."""
