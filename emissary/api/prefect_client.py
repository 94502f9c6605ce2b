"""Prefect's client as the API uses it: it gives up soon, for somebody waits, or the sweep comes again."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL

PREFECT_AWAY = (httpx.TransportError, PrefectHTTPStatusError, ObjectNotFound, TimeoutError)
"""What is raised where Prefect is away, slow, refuses, or does not know what it should."""

PATIENCE_SECONDS = 2.5
_CALL_SECONDS = 5.0


@asynccontextmanager
async def prefect_client(patience: float | None = PATIENCE_SECONDS) -> AsyncIterator[PrefectClient]:
    """A client of Prefect's for calls that together take `patience` seconds at most, or TimeoutError is raised.

    What was asked for may be carried out all the same, so it must be safe to ask again.
    """
    wanted: dict[str, Any] = {"timeout": _CALL_SECONDS}
    if str(PREFECT_API_URL.value()).startswith("http://"):
        # Nobody to trust is needed there, and to read all certificates takes a client 30 to 50 ms of a core.
        wanted["verify"] = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    async with asyncio.timeout(patience), get_client(httpx_settings=wanted) as client:
        yield client
