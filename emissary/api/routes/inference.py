"""Inference: requests are passed on to the engine that holds the model."""

from typing import Any

import httpx
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.background import BackgroundTask

from emissary.api.auth import CurrentCaller
from emissary.api.routing import keyed_router
from emissary.errors import Unavailable
from emissary.schemas.completions import ChatCompletionObject, CompletionObject
from emissary.schemas.inference import ChatCompletionRequest, CompletionRequest, Sampling
from emissary.serving import client as engine_client
from emissary.store import deployments
from emissary.store.database import transaction
from emissary.store.users import Caller

router = keyed_router("Inference")
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}, "description": "The answer, whole or streamed."}
}


@router.post(
    "/v1/chat/completions",
    operation_id="getChatCompletions",
    summary="Chat Completions",
    response_model=ChatCompletionObject,
    responses=_EVENTS,
)
async def chat_completions(body: ChatCompletionRequest, caller: CurrentCaller) -> Response:
    """Answer a chat; `"stream": true` sends server-sent events."""
    return await _pass_on("/v1/chat/completions", body, caller)


@router.post(
    "/v1/completions",
    operation_id="getCompletionsFromDeployment",
    summary="Completions",
    response_model=CompletionObject,
    responses=_EVENTS,
)
async def completions(body: CompletionRequest, caller: CurrentCaller) -> Response:
    """Continue a text; `"stream": true` sends server-sent events."""
    return await _pass_on("/v1/completions", body, caller)


async def _pass_on(path: str, body: Sampling, caller: Caller) -> Response:
    async with transaction() as session:
        engine, served_name = await deployments.find_callable(session, caller.organization_id, body.model)
    client = engine_client.connect(engine, answer_as=body.model)
    request = client.build_request("POST", path, json=body.model_dump(exclude_none=True) | {"model": served_name})
    try:
        response = await client.send(request, stream=bool(body.stream))
    except httpx.TransportError as error:
        await client.aclose()
        raise Unavailable(f"The engine {engine.id} does not answer ({error}); try again.") from error
    if response.headers.get("content-type", "").startswith("text/event-stream"):

        async def close() -> None:
            await response.aclose()
            await client.aclose()

        return StreamingResponse(
            response.aiter_raw(),
            media_type="text/event-stream",
            background=BackgroundTask(close),
            headers={"Cache-Control": "no-cache"},
        )
    await response.aread()
    await client.aclose()
    return JSONResponse(response.json(), response.status_code)
