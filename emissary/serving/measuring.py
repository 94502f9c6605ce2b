"""How the requests to each name went, counted in the engine's memory as long as it serves the same under that name.

Counted are answers (2xx) and failures of the engine (5xx, or on the way of a stream). What the caller did wrong or did
not wait for, and the platform's own probes, say nothing of a model.
"""

import statistics
import time
from collections import deque
from contextvars import ContextVar
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from emissary.schemas.pipelines import RequestFigures

PROBE = {"X-Probe": "1"}
"""Headers of a request that is not counted."""
_LATEST = 1000


@dataclass
class Figures:
    """Of one name: counts, and how long the latest answers took."""

    requests: int = 0
    errors: int = 0
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=_LATEST))

    def summary(self) -> RequestFigures:
        """The figures as they are told."""
        seconds = list(self.seconds)
        median = statistics.median(seconds) if seconds else None
        return RequestFigures(requests=self.requests, errors=self.errors, median_seconds=median)


@dataclass
class _Request:
    figures: Figures | None = None
    failed: bool = False


_current: ContextVar[_Request | None] = ContextVar("request", default=None)


def count_for(figures: Figures) -> None:
    """Have the request that is being answered counted there, whatever its name stands for by the end."""
    if (request := _current.get()) is not None:
        request.figures = figures


def failed() -> None:
    """The answer that is on its way breaks off with an error of the engine's."""
    if (request := _current.get()) is not None:
        request.failed = True


class Measure:
    """Counts every request for which `count_for` is called."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or b"x-probe" in dict(scope["headers"]):
            await self._app(scope, receive, send)
            return
        request, begun = _Request(), time.perf_counter()
        status, complete = 0, False

        async def observed(message: Message) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)
            complete = message["type"] == "http.response.body" and not message.get("more_body")

        token = _current.set(request)
        try:
            await self._app(scope, receive, observed)
        except Exception:
            request.failed = True
            raise
        finally:
            _current.reset(token)
            if (figures := request.figures) is not None:
                if request.failed or status >= 500:
                    figures.requests += 1
                    figures.errors += 1
                elif complete and status < 400:
                    figures.requests += 1
                    figures.seconds.append(time.perf_counter() - begun)
