"""Refuses request bodies that are too large to be held in memory, and stops reading those that nobody wants."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from emissary.api.errors import error_response
from emissary.errors import InvalidInput

MAX_BYTES = 4 * 1024 * 1024
_SENTENCE = f"The body is larger than {MAX_BYTES // 1024**2} MiB; send less."


class BodyLimit:
    """Middleware: a body of over 4 MiB is refused by its Content-Length, or when that many bytes have come.

    Files, which are streamed to disk, and what webhooks are sent have limits of their own. When the answer comes while
    over 4 MiB of the body may still be on their way, the connection is closed: else the server would read them all to
    throw them away.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its body counted."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limited = not _has_own_limit(scope)
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"")
        declared = int(length) if length.isdigit() else None
        received, ended = 0, declared is None and b"transfer-encoding" not in headers

        async def counted() -> Message:
            nonlocal received, ended
            message = await receive()
            received += len(message.get("body", b""))
            ended = ended or not message.get("more_body", False)
            if limited and received > MAX_BYTES:
                raise InvalidInput(_SENTENCE, code="too_large")
            return message

        async def closing(message: Message) -> None:
            much_left = not ended and (declared is None or declared - received > MAX_BYTES)
            if message["type"] == "http.response.start" and much_left:
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        if limited and declared is not None and declared > MAX_BYTES:
            await error_response(400, _SENTENCE, "too_large")(scope, receive, closing)
            return
        await self._app(scope, counted, closing)


def _has_own_limit(scope: Scope) -> bool:
    path: str = scope["path"]
    match scope["method"]:
        case "POST":
            return path.endswith("/datasets") or path.startswith("/v1/webhooks/")
        case "PUT":
            return path.startswith("/v1/uploads/")
    return False
