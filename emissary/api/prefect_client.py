"""Prefect's client as the API uses it: it gives up soon, for somebody waits, or the sweep comes again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

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
