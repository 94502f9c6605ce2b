"""Looks into the running platform's catalogue."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from emissary.store.database import dispose, transaction

T = TypeVar("T")


def in_catalogue(work: Callable[[AsyncSession], Awaitable[T]]) -> T:
    """What `work(session)` gives in a transaction of the platform's catalogue."""

    async def run() -> T:
        try:
            async with transaction() as session:
                return await work(session)
        finally:
            await dispose()

    return asyncio.run(run())
