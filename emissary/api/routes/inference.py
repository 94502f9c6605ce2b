"""Inference: requests are passed on to the engine that holds the model."""

from typing import Any

from fastapi.responses import Response

from emissary.api.auth import CurrentCaller
from emissary.api.inference_proxy import pass_on
from emissary.api.routing import keyed_router
from emissary.schemas.completions import ChatCompletionObject, CompletionObject
from emissary.schemas.inference import ChatCompletionRequest, CompletionRequest

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
    return await pass_on("/v1/chat/completions", body, body.model, caller)


@router.post(
    "/v1/completions",
    operation_id="getCompletionsFromDeployment",
    summary="Completions",
    response_model=CompletionObject,
    responses=_EVENTS,
)
async def completions(body: CompletionRequest, caller: CurrentCaller) -> Response:
    """Continue a text; `"stream": true` sends server-sent events."""
    return await pass_on("/v1/completions", body, body.model, caller)
