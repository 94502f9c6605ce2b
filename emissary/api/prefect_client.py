"""Prefect's client as the API uses it: it gives up soon, for somebody waits, or the sweep comes again."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

logger = logging.getLogger(__name__)

POOLS = ("training", "engines")
"""The work pools of the platform's flow deployments."""
TAG = "emissary"
"""The tag that their runs have."""

PREFECT_AWAY = (httpx.TransportError, PrefectHTTPStatusError, ObjectNotFound, TimeoutError)
"""What is raised where Prefect is away, slow, refuses, or does not know what it should."""

PATIENCE_SECONDS = 2.5
_CALL_SECONDS = 5.0


@asynccontextmanager
async def prefect_client(patience: float | None = PATIENCE_SECONDS) -> AsyncIterator[PrefectClient]:
    """A client of Prefect's for calls that together take `patience` seconds at most, or TimeoutError is raised.

    What was asked for may be carried out all the same, so it must be safe to ask again.
    """
    async with asyncio.timeout(patience), get_client(httpx_settings={"timeout": _CALL_SECONDS}) as client:
        yield client


@contextmanager
def refusal_logged(about: object) -> Iterator[None]:
    """Logs that Prefect refuses what the block asks `about` a row or run, or does not know of it.

    Raises the others of `PREFECT_AWAY`, by which Prefect cannot be asked about anything else either.
    """
    try:
        yield
    except (PrefectHTTPStatusError, ObjectNotFound) as error:
        if isinstance(error, PrefectHTTPStatusError) and error.response.status_code >= 500:
            raise
        logger.warning("Prefect refuses what is asked about %s: %s", about, str(error) or type(error).__name__)
