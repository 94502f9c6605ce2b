"""How every operation with a key begins: authenticate before the body is read, and answer a repeated request once."""

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute

from emissary.api import idempotency
from emissary.api.auth import KEY_SCHEMES, authenticate


class _Route(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        creates = self.status_code == 201

        async def authenticated(request: Request) -> Response:
            request.state.caller = await authenticate(request)
            # The parts of a form are separated by random characters, so an upload says itself what it consists of.
            is_form = request.headers.get("content-type", "").startswith("multipart/")
            if creates and idempotency.HEADER in request.headers and not is_form:
                return await idempotency.answer_once(request, await request.body(), partial(handle, request))
            return await handle(request)

        return authenticated


def keyed_router(tag: str, prefix: str = "") -> APIRouter:
    """A router whose operations need a key; those that create (201) take an Idempotency-Key."""
    return APIRouter(prefix=prefix, tags=[tag], route_class=_Route, dependencies=KEY_SCHEMES)


def also_as(media_type: str, example: str) -> dict[int | str, dict[str, Any]]:
    """Tells the document that an operation has a second form of its answer, text of this type."""
    return {200: {"content": {media_type: {"schema": {"type": "string"}, "example": example}}}}
