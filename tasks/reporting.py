"""What a run shows in Prefect's UI beside its state; work goes on while Prefect is away, and is shown afterwards."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import httpx
from prefect.exceptions import PrefectHTTPStatusError

logger = logging.getLogger(__name__)

_WAIT_SECONDS = 2.0
_waiting: dict[str, Callable[[], Awaitable[object]]] = {}
_worker: asyncio.Task[None] | None = None


def report(what: str, show: Callable[[], Awaitable[object]]) -> None:
    """Have `show()` called soon, beside what the run does; a report of the same `what` that still waits is replaced.

    One that Prefect refuses, or that fails otherwise, is given up and logged.
    """
    global _worker
    _waiting[what] = show
    if _worker is None or _worker.done():
        _worker = asyncio.get_running_loop().create_task(_work())


async def reported() -> None:
    """Wait until everything is shown, or given up, however long Prefect is away."""
    if _worker is not None:
        await _worker


async def _work() -> None:
    while _waiting:
        what = next(iter(_waiting))
        show = _waiting.pop(what)
        try:
            await show()
        except Exception as error:
            if not _passes(error):
                logger.exception("%s is not shown", what)  # work that is done is not lost for that
                continue
            logger.warning("%s waits for Prefect, which cannot be reached: %s", what, error)
            _waiting.setdefault(what, show)
            await asyncio.sleep(_WAIT_SECONDS)


def _passes(error: Exception) -> bool:
    """Whether the same may be accepted later: Prefect is away, overloaded or failing, but refuses nothing."""
    if isinstance(error, PrefectHTTPStatusError):
        return error.response.status_code in (408, 429) or error.response.is_server_error
    return isinstance(error, httpx.TransportError)
