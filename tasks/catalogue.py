"""The catalogue as flow runs use it: where it cannot be reached they wait, and lose nothing."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.store.database import transaction

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger(__name__)

_LONGEST_WAIT_SECONDS = 10.0


async def in_catalogue(
    work: Callable[Concatenate[AsyncSession, P], Awaitable[T]], *args: P.args, **kwargs: P.kwargs
) -> T:
    """What `work(session, *args, **kwargs)` returns, done in a transaction of its own.

    While the catalogue cannot be reached this waits, longer each time, and does it again: for `work`, twice must be as
    good as once, since the answer to a commit may be what was lost.
    """
    wait = 0.2
    while True:
        try:
            async with transaction() as session:
                return await work(session, *args, **kwargs)
        except (OperationalError, InterfaceError) as error:
            logger.warning("The catalogue cannot be reached (%s); trying again in %.1f s", error.orig, wait)
        await asyncio.sleep(wait)
        wait = min(2 * wait, _LONGEST_WAIT_SECONDS)
