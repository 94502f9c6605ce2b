"""Passes a request on to the engine that holds the model, started when it has ended, and its answer back."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel

from emissary.api import capturing, cold_start
from emissary.api.capturing import Recording
from emissary.errors import Unavailable
from emissary.serving import client as engine_client
from emissary.settings import settings
from emissary.store.database import transaction
from emissary.store.tables import Engine
from emissary.store.users import Caller


async def pass_on(path: str, body: BaseModel, model: str, caller: Caller) -> Response:
    """The answer, whole or as server-sent events, of the caller's deployment or base model `model` at its engine's
    `path` to `body`, in which `model` is replaced by the name that the engine knows.

    Raises NotFound for an unknown model, Unavailable where no engine answers within the hold of a cold start.
    """
    deadline = time.monotonic() + settings().cold_start_hold
    dead: str | None = None
    again = False
    while True:
        hold = max(deadline - time.monotonic(), 0.0)
        target = await cold_start.ready(caller.organization_id, model, hold, dead)
        content = body.model_dump(exclude_none=True) | {"model": target.name}
        recording = capturing.begin(path, target, content)
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(engine_client.connect(target.engine, answer_as=model))
            try:
                response = await stack.enter_async_context(client.stream("POST", path, json=content))
                media_type = response.headers.get("content-type", "")
                if not media_type.startswith("text/event-stream"):
                    answer = await response.aread()
                    if recording is not None and response.is_success:
                        recording.add(answer)
                        recording.end()
                    return Response(answer, response.status_code, media_type=media_type)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                dead = target.engine.endpoint  # its process has died: it is about to be started again elsewhere
                continue
            except httpx.TransportError as error:
                # It ended before it answered. The next one is asked, but not a third: it may be the request's doing.
                if again:
                    raise await _ended(target.engine) from error
                again, dead = True, target.engine.endpoint
                continue
            events = _relay(target.engine, response, stack.pop_all(), recording)
            return StreamingResponse(
                events, response.status_code, media_type="text/event-stream", headers={"Cache-Control": "no-cache"}
            )


async def _relay(
    engine: Engine, response: httpx.Response, connection: AsyncExitStack, recording: Recording | None
) -> AsyncIterator[bytes]:
    """The events as they come; an error is the last one when the engine dies on the way."""
    async with connection:
        try:
            async for part in response.aiter_raw():
                if recording is not None:
                    recording.add(part)
                yield part
        except httpx.TransportError:
            error = await _ended(engine)
            envelope = {"status": error.status, "error": str(error), "code": error.code}
            yield f"\n\ndata: {json.dumps(envelope)}\n\n".encode()
        finally:
            # Also where the client leaves with the last event, without waiting for the end of the connection.
            if recording is not None:
                recording.end_stream()


async def _ended(engine: Engine) -> Unavailable:
    async with transaction() as session:
        seconds = await cold_start.retry_after(session, engine)
    return Unavailable(
        f"The engine {engine.id} ended while it answered; send the request again in about {seconds} s.",
        retry_after=seconds,
    )
