"""Calls to an engine's private server."""

import httpx

from emissary.errors import EmissaryError, Unavailable
from emissary.schemas.pipelines import RequestFigures
from emissary.secret_files import signing_key
from emissary.serving.token import engine_token
from emissary.settings import settings
from emissary.store.tables import Engine

# A long answer may take minutes on a CPU; an engine that is gone refuses the connection at once.
_TIMEOUT = httpx.Timeout(600.0, connect=5.0)


def connect(engine: Engine, answer_as: str | None = None) -> httpx.AsyncClient:
    """A client of the engine's server. Raises Unavailable, saying what to do, when the engine does not serve now."""
    if engine.status != "Active" or engine.endpoint is None:
        waits = "is starting; try again in a minute" if engine.status == "Creating" else "is not running; reactivate it"
        raise Unavailable(f"The engine {engine.id} {waits}.")
    token = engine_token(signing_key(settings()).get_secret_value(), engine.id)
    headers = {"Authorization": f"Bearer {token}"} | ({"X-Answer-As": answer_as} if answer_as else {})
    return httpx.AsyncClient(base_url=engine.endpoint, headers=headers, timeout=_TIMEOUT, trust_env=False)


async def unload(engine: Engine, name: str) -> None:
    """Have a running engine forget a deployment; nothing to do where it does not run."""
    if engine.status != "Active" or engine.endpoint is None:
        return
    async with connect(engine) as client:
        try:
            response = await client.delete(f"/adapters/{name}")
        except httpx.ConnectError:
            return  # its process has died; the next one loads what is there then
        except httpx.TransportError as error:
            raise Unavailable(f"The engine {engine.id} does not answer; try again.") from error
    if response.status_code not in (204, 404):
        raise EmissaryError(f"The engine {engine.id} could not unload {name}: {response.text}")


async def figures(engine: Engine, name: str) -> RequestFigures | None:
    """What the engine has counted of the requests to a deployment; None where it does not serve it now."""
    if engine.status != "Active" or engine.endpoint is None:
        return None
    async with connect(engine) as client:
        try:
            response = await client.get(f"/requests/{name}")
        except httpx.TransportError:
            return None
    return RequestFigures.model_validate(response.json()) if response.is_success else None
