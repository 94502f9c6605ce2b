"""Idempotency-Key: a creating request that is sent twice creates once.

What the request creates and the answer to it are committed in one transaction, under a lock on the key, so neither a
crash nor two requests at once can make it happen twice (draft-ietf-httpapi-idempotency-key-header).
"""

import hashlib
import json
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from emissary.errors import Conflict, InvalidInput
from emissary.store import idempotent_answers
from emissary.store.database import one_transaction
from emissary.store.users import Caller

HEADER = "idempotency-key"
_LONGEST = 255
_SHOWN_ONCE = "fields_shown_once"


async def answer_once(request: Request, content: bytes, create: Callable[[], Awaitable[Response]]) -> Response:
    """The answer of `create`, or the first answer when the request came with its Idempotency-Key before.

    `content` is what makes two requests to the same path the same. Without the header `create` is simply called. Raises
    Conflict when the key came with another request, InvalidInput for a key that is not one. An error is not kept: the
    request may be repeated with the same key.
    """
    key = request.headers.get(HEADER)
    if key is None:
        return await create()
    if not 0 < len(key) <= _LONGEST or not key.isprintable():
        raise InvalidInput(f"Idempotency-Key: it must have 1 to {_LONGEST} printable characters.")
    caller: Caller = request.state.caller
    digest = hashlib.sha256(f"{request.method} {request.url.path}\n".encode() + content).hexdigest()
    async with one_transaction() as session:
        before = await idempotent_answers.find(session, caller.organization_id, key)
        if before is not None:
            if before.request_sha256 != digest:
                raise Conflict(
                    f"Idempotency-Key: {key!r} came with another request before; use a new key for this one."
                )
            return JSONResponse(before.body, before.status, headers={"Idempotent-Replayed": "true"})
        answer = await create()
        if answer.status_code == HTTPStatus.ACCEPTED:  # not the result yet, which is asked for with the same key
            return answer
        body = json.loads(bytes(answer.body)) | dict.fromkeys(getattr(request.state, _SHOWN_ONCE, ()))
        await idempotent_answers.keep(session, caller.organization_id, key, digest, answer.status_code, body)
    return answer


def keep_without(request: Request, *fields: str) -> None:
    """Have these fields of the answer be null where it is kept: they are secrets that are shown once."""
    setattr(request.state, _SHOWN_ONCE, fields)
