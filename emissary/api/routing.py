"""How every operation with a key begins: authenticate before the body is read, and answer a repeated request once."""

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError

from emissary.api import idempotency
from emissary.api.auth import KEY_SCHEMES, authenticate
from emissary.schemas.dry_runs import TrainingJobPlan

DryRun = Annotated[bool, Query(description="Create nothing, and answer 200 with what the job would be and take.")]
DRY_RUN_ANSWER: dict[int | str, dict[str, Any]] = {200: {"model": TrainingJobPlan, "description": "Of a dry run."}}


class _Route(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        creates = self.status_code == 201

        async def authenticated(request: Request) -> Response:
            request.state.caller = await authenticate(request)
            # The parts of a form are separated by random characters, so an upload says itself what it consists of.
            is_form = request.headers.get("content-type", "").startswith("multipart/")
            once = creates and idempotency.HEADER in request.headers and not is_form
            if once and not _is_dry_run(request):
                return await idempotency.answer_once(request, await request.body(), partial(handle, request))
            return await handle(request)

        return authenticated


def _is_dry_run(request: Request) -> bool:
    """Whether the request asks for a dry run, which creates nothing: its answer must not stand for a creation."""
    try:
        return TypeAdapter(bool).validate_python(request.query_params.get("dry_run", "false"))
    except ValidationError:
        return False  # it is refused


def keyed_router(tag: str, prefix: str = "") -> APIRouter:
    """A router whose operations need a key; those that create (201) take an Idempotency-Key."""
    return APIRouter(prefix=prefix, tags=[tag], route_class=_Route, dependencies=KEY_SCHEMES)


def also_as(media_type: str, example: str) -> dict[int | str, dict[str, Any]]:
    """Tells the document that an operation has a second form of its answer, text of this type."""
    return {200: {"content": {media_type: {"schema": {"type": "string"}, "example": example}}}}
