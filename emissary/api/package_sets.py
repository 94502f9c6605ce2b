"""The dependencies of testing functions that are not there any more, or never came to be: removed, once an hour."""

import asyncio
import logging

from starlette.concurrency import run_in_threadpool

from blocks import packages
from emissary.store import testing_functions
from emissary.store.database import transaction

logger = logging.getLogger(__name__)

_EACH_SECONDS = 3600.0


async def clear_for_ever() -> None:
    """Remove the sets of packages that no function names, now and every hour."""
    while True:
        try:
            async with transaction() as session:
                used = await testing_functions.dependencies(session)
            await run_in_threadpool(packages.clear_unused, used)
        except Exception as error:
            logger.warning("Packages that no testing function needs could not be removed (%s); trying again", error)
        await asyncio.sleep(_EACH_SECONDS)
