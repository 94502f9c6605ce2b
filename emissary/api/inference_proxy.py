"""Passes a request on to the engine that holds the model."""

import httpx
from fastapi.responses import Response
from pydantic import BaseModel

from emissary.errors import Unavailable
from emissary.serving import client as engine_client
from emissary.store import deployments
from emissary.store.database import transaction
from emissary.store.users import Caller


async def pass_on(path: str, body: BaseModel, model: str, caller: Caller) -> Response:
    """The answer of the caller's deployment or base model `model` at its engine's `path` to `body`, in which `model`
    is replaced by the name that the engine knows.

    Raises NotFound for an unknown model, Unavailable where no engine answers.
    """
    async with transaction() as session:
        engine, name = await deployments.find_callable(session, caller.organization_id, model)
    async with engine_client.connect(engine, answer_as=model) as client:
        try:
            response = await client.post(path, json=body.model_dump(exclude_none=True) | {"model": name})
        except httpx.TransportError as error:
            raise Unavailable(f"The engine {engine.id} does not answer ({error}); try again.") from error
    return Response(response.content, response.status_code, media_type=response.headers.get("content-type"))
