"""Refuses request bodies that are too large to be held in memory; dataset uploads have a limit of their own."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from emissary.api.errors import error_response
from emissary.errors import InvalidInput

MAX_BYTES = 4 * 1024 * 1024
_SENTENCE = f"The body is larger than {MAX_BYTES // 1024**2} MiB; send less."


class BodyLimit:
    """Middleware: a body of over 4 MiB is refused by its Content-Length, or when that many bytes have come."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its body counted."""
        if scope["type"] != "http" or scope["path"].endswith("/datasets"):
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > MAX_BYTES:
            await error_response(400, _SENTENCE, "too_large")(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BYTES:
                raise InvalidInput(_SENTENCE, code="too_large")
            return message

        await self._app(scope, counted, send)
