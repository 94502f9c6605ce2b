"""The built-in engine's HTTP server: private, called by the platform only."""

import asyncio
import hashlib
import hmac
import logging
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Literal

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from emissary.errors import EmissaryError, InvalidInput, NotFound, Unauthorized
from emissary.schemas.inference import ChatCompletionRequest, CompletionRequest, Sampling
from emissary.schemas.pipelines import RequestFigures
from emissary.serving.batching import Batcher
from emissary.serving.decoding import GenerationRequest, GenerationResult
from emissary.serving.generation import Generator
from emissary.serving.measuring import Figures, Measure, count_for
from emissary.serving.openai_answers import Answer, envelope
from emissary.serving.pooled import PooledModel
from emissary.serving.pooled_batching import PooledBatcher
from emissary.serving.predictions import add_predictions

logger = logging.getLogger(__name__)

DEFAULT_MAX_TOKENS = 256
OPERATIONS = {
    "text-generation": "/v1/chat/completions or /v1/completions",
    "classification": "/v1/classification",
    "regression": "/v1/regression or /v1/classification",
    "embedding": "/v1/embeddings",
}
"""What models of each task type are called by."""


class AdapterRequest(BaseModel):
    """POST /adapters."""

    name: str = Field(pattern=r"^[^\x00-\x1f/]{1,200}$", description="Name that requests call the adapter by.")
    artifact: str | None = Field(
        default=None, description="Key of the adapter in the artifact store; none for the base model itself."
    )


def create_engine_app(
    batcher: Batcher | PooledBatcher,
    generator: Generator | PooledModel,
    *,
    base_model: str,
    token: str,
    fetch: Callable[[str], Path],
) -> FastAPI:
    """The engine's application: `generator` behind `batcher`, its base model called `base_model`.

    It has the operations of the task type that the two are for; the others' are answered 400.

    `fetch` gives the local folder of an adapter's artifact. `app.state.load(name, artifact)` serves a name as
    POST /adapters does, `app.state.unload(name)` serves it no longer, and `app.state.last_access()` is the UNIX time
    of the last request. Every route but /health asks for `Authorization: Bearer <token>`. Errors are {"status",
    "error", "code"}.
    """
    app = FastAPI(title="Emissary engine", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Measure)
    app.add_middleware(_RequireToken, token=token)
    _add_error_handlers(app)
    access = {"last": int(time.time()), "requests": 0}
    served: dict[str, str | None] = {base_model: None}  # name that requests use → adapter, None for the base model
    figures = {base_model: Figures()}

    def last_access() -> int:
        if batcher.in_flight:
            access["last"] = int(time.time())
        return access["last"]

    def load(name: str, artifact: str | None) -> None:
        if name == base_model:
            raise InvalidInput(f"name: {name!r} is the base model's name; choose another.")
        if artifact is not None:
            generator.load_adapter(name, fetch(artifact))
        elif name in generator.adapters:
            generator.unload_adapter(name)
        figures[name] = Figures()
        served[name] = None if artifact is None else name

    def unload(name: str) -> None:
        if name == base_model or name not in served:
            raise NotFound(f"This engine serves no {name!r} that could be unloaded.")
        if served.pop(name) is not None:
            generator.unload_adapter(name)
        figures.pop(name, None)

    app.state.load, app.state.unload, app.state.last_access = load, unload, last_access

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {
            "status": "ok",
            "base_model": base_model,
            "adapters": generator.adapters,
            "last_access": last_access(),
            "requests": access["requests"],
            "in_flight": batcher.in_flight,
        }

    @app.post("/adapters", status_code=201)
    async def load_adapter(body: AdapterRequest) -> dict[str, Any]:
        await asyncio.to_thread(load, body.name, body.artifact)
        return {"name": body.name, "adapters": generator.adapters}

    @app.delete("/adapters/{name}", status_code=204)
    async def unload_adapter(name: str) -> None:
        unload(name)

    @app.get("/requests/{name}")
    async def requests(name: str) -> RequestFigures:
        if name not in figures:
            raise NotFound(f"This engine serves no {name!r}.")
        return figures[name].summary()

    def adapter(model: str) -> str | None:
        if model not in served:
            raise NotFound(f"model: this engine serves no {model!r}; it serves {', '.join(served)}.")
        access.update(last=int(time.time()), requests=access["requests"] + 1)
        count_for(figures[model])
        return served[model]

    if isinstance(batcher, PooledBatcher) and isinstance(generator, PooledModel):
        add_predictions(app, batcher, generator, adapter)
        task_type: str = generator.task_type
    elif isinstance(batcher, Batcher) and isinstance(generator, Generator):
        _add_completions(app, batcher, generator, adapter, base_model)
        task_type = "text-generation"
    else:
        raise TypeError(f"{type(batcher).__name__} does not run {type(generator).__name__}.")

    @app.post("/v1/{operation:path}")
    async def unsuited(operation: str) -> None:
        raise InvalidInput(
            f"model: this model is for {task_type}; call it by POST {OPERATIONS[task_type]}, not /v1/{operation}."
        )

    return app


def _add_completions(
    app: FastAPI, batcher: Batcher, generator: Generator, adapter: Callable[[str], str | None], base_model: str
) -> None:
    """Add the operations of text generation; `adapter` gives the adapter of a request's `model`."""
    identity = f"{base_model} {generator.model.dtype} {generator.model.num_parameters()}"
    fingerprint = f"fp_{hashlib.sha256(identity.encode()).hexdigest()[:10]}"

    @app.post("/v1/chat/completions")
    async def chat_completions(body: ChatCompletionRequest, request: Request) -> Response:
        chosen = adapter(body.model)
        messages = [message.model_dump() for message in body.messages]
        prompt = await asyncio.to_thread(generator.chat_prompt, messages)
        return await answer("chat", body, chosen, prompt, request)

    @app.post("/v1/completions")
    async def completions(body: CompletionRequest, request: Request) -> Response:
        chosen = adapter(body.model)
        prompt = await asyncio.to_thread(generator.text_prompt, body.prompt)
        return await answer("text", body, chosen, prompt, request)

    async def answer(
        kind: Literal["chat", "text"], body: Sampling, chosen: str | None, prompt: list[int], request: Request
    ) -> Response:
        wanted = GenerationRequest(
            prompt_ids=prompt,
            adapter=chosen,
            max_new_tokens=body.token_limit or DEFAULT_MAX_TOKENS,
            temperature=1.0 if body.temperature is None else body.temperature,
            top_p=1.0 if body.top_p is None else body.top_p,
            top_k=body.top_k or 0,
            stop=body.stop_strings,
            seed=body.seed,
        )
        frame = Answer(kind, request.headers.get("x-answer-as", body.model), fingerprint)
        if body.stream:
            events = frame.events(batcher.stream(wanted), body.include_usage)
            return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        result = await _while_connected(request, batcher.submit(wanted))
        if result is None:
            return Response(status_code=499)  # nobody reads it
        return JSONResponse(frame.whole(result))


async def _while_connected(request: Request, work: Coroutine[Any, Any, GenerationResult]) -> GenerationResult | None:
    """The result of `work`, or None, with `work` cancelled, when the client goes away first."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task, watch = asyncio.create_task(work), asyncio.create_task(gone())
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        task.cancel()
        watch.cancel()


class _RequireToken:
    """Answers 401 to whoever does not send the token, before anything of the request is read."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != "/health":
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, self._expected):
                error = Unauthorized("The engine's token is missing or wrong; send it as Bearer.")
                await JSONResponse(envelope(error), error.status)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(EmissaryError)
    async def expected(_request: Request, error: EmissaryError) -> JSONResponse:
        return JSONResponse(envelope(error), error.status)

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        problems = (
            f"{'.'.join(str(part) for part in problem['loc'] if part != 'body') or 'body'}: {problem['msg']}"
            for problem in error.errors()
        )
        return await expected(_request, InvalidInput(f"The request is not valid. {'; '.join(problems)}."))

    @app.exception_handler(HTTPException)
    async def routing(_request: Request, error: HTTPException) -> JSONResponse:
        code = {404: "object_not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_input")
        body = {"status": error.status_code, "error": str(error.detail), "code": code}
        return JSONResponse(body, error.status_code)

    @app.exception_handler(Exception)
    async def unexpected(_request: Request, error: Exception) -> JSONResponse:
        logger.error("The engine failed on a request", exc_info=error)
        return JSONResponse(envelope(EmissaryError("The engine failed; its log says why.")), 500)
