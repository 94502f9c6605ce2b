"""One shape for every error answer: {"status", "error", "code"}."""

import json
import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from psycopg.errors import ForeignKeyViolation
from sqlalchemy.exc import IntegrityError, InterfaceError, OperationalError
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from emissary.errors import EmissaryError, Unavailable

logger = logging.getLogger(__name__)
_DATABASE_SECONDS = 5
_KIND = "source="
_VARIANTS = ("constrained", "literal", "function-", "list[", _KIND)
_CODES = {401: "unauthorized", 404: "object_not_found", 405: "method_not_allowed", 413: "too_large"}


def error_response(
    status: int, error: str, code: str, headers: dict[str, str] | None = None, details: dict[str, Any] | None = None
) -> JSONResponse:
    """The envelope of one error, with further fields where there are `details`."""
    return JSONResponse({"status": status, "error": error, "code": code} | (details or {}), status, headers=headers)


def field_sentence(error: RequestValidationError) -> str:
    """The first problem of an invalid request, naming the field; how many more there are."""
    problems = error.errors()
    first = problems[0]
    family = [problem for problem in problems if _field(problem) == _field(first)]
    # Of a field that may be of several types each has its problem. That of the type that was meant is within the value.
    first = max(family, key=lambda problem: (not problem["type"].endswith("_type"), len(problem["loc"])))
    if first["type"] == "json_invalid":
        place = json.JSONDecodeError(first["ctx"]["error"], str(error.body), int(first["loc"][-1]))
        return f"The body is not valid JSON: {place.msg} at line {place.lineno}, column {place.colno}."
    where = _path(first)
    message = first["msg"].removeprefix("Value error, ").replace(" after validation,", ",")
    if first["type"] == "extra_forbidden":
        message = "there is no such field"
    others = len({_field(problem) for problem in problems}) - 1
    more = f" ({others} more {'field' if others == 1 else 'fields'} to correct)" if others else ""
    # A sentence may begin with a word in capitals, such as a part of a recurrence rule.
    first_letter = message[0] if message[:2].isupper() else message[0].lower()
    return f"{where or 'The body'}: {first_letter}{message[1:]}{more}."


def _path(problem: dict[str, Any]) -> str:
    """The dotted path of the field."""
    path = [str(part) for part in problem["loc"][1:]]  # the first is body, path, query or header
    if problem["type"] == "unknown_source":
        path.append(problem["ctx"]["field"])
    return ".".join(part for part in path if not _is_variant(part))


def _field(problem: dict[str, Any]) -> tuple[str, ...]:
    """The path of the field; of one that may be of several types up to there."""
    path = [str(part) for part in problem["loc"][1:]]
    ends = (number for number, part in enumerate(path) if _is_variant(part) and not part.startswith(_KIND))
    return tuple(path[: next(ends, len(path))])


def _is_variant(part: str) -> bool:
    """Whether pydantic names a type that it tried, which is no part of the path: `checkpoint` may be a number or a
    word.
    """
    return part in ("int", "str") or part.startswith(_VARIANTS)


def _allowed(request: Request) -> set[str]:
    """The methods of all operations at the request's path; Starlette names those of the first one alone."""
    paths = request.app.openapi()["paths"]
    matching = [template for template in paths if compile_path(template)[0].match(request.url.path)]
    fewest = min((template.count("{") for template in matching), default=0)  # `…/uploads` is not `…/{dataset_id}`
    return {method.upper() for template in matching if template.count("{") == fewest for method in paths[template]}


def add_error_handlers(app: FastAPI) -> None:
    """Makes `app` answer every 4xx and 5xx with the envelope."""

    @app.exception_handler(EmissaryError)
    async def expected(_request: Request, error: EmissaryError) -> JSONResponse:
        headers = {}
        if error.retry_after is not None:
            headers["Retry-After"] = str(error.retry_after)
        if error.status == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = "Bearer"
        return error_response(error.status, str(error), error.code, headers, error.details)

    @app.exception_handler(IntegrityError)
    async def raced(request: Request, error: IntegrityError) -> JSONResponse:
        if not isinstance(error.orig, ForeignKeyViolation):
            return await unexpected(request, error)
        sentence = "Another request changed what this one is about at the same time; look again and repeat it."
        return error_response(409, sentence, "conflict")

    @app.exception_handler(InterfaceError)
    @app.exception_handler(OperationalError)
    async def away(request: Request, error: OperationalError | InterfaceError) -> JSONResponse:
        logger.warning("%s %s: the catalogue cannot be reached (%s)", request.method, request.url.path, error.orig)
        sentence = (
            f"The catalogue's database cannot be reached now; repeat the request in about {_DATABASE_SECONDS} s. What "
            "it asks for may have been done all the same; with an Idempotency-Key it is not done twice."
        )
        return await expected(request, Unavailable(sentence, retry_after=_DATABASE_SECONDS))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        sentence = field_sentence(error)
        if error.body and isinstance(error.body, bytes):  # of another kind than JSON, so it was not parsed
            kind = request.headers.get("content-type")
            found = f"is of the type {kind}" if kind else "has no type"
            sentence = f"The body {found}; send JSON with the header `Content-Type: application/json`."
        return error_response(400, sentence, "invalid_input")

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        sentence = str(error.detail)
        if sentence == HTTPStatus(error.status_code).phrase:
            sentence = f"{sentence}: {request.method} {request.url.path}. The operations are listed at /docs."
        code = _CODES.get(error.status_code, "invalid_input" if error.status_code < 500 else "internal_error")
        headers = dict(error.headers or {})
        if error.status_code == 405 and (allowed := _allowed(request)):
            headers["Allow"] = ", ".join(sorted(allowed))
        return error_response(error.status_code, sentence, code, headers)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return error_response(500, "The API failed on this request; its log says why.", "internal_error")
