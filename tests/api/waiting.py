"""Waiting in tests for what other sessions of the catalogue do."""

import asyncio
import time

from sqlalchemy import text

from emissary.store.database import transaction


async def waiting_for_a_lock(wanted: int) -> None:
    """Returns when that many sessions of the catalogue wait for another's lock."""
    deadline = time.monotonic() + 30
    query = text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    while True:
        async with transaction() as session:
            if await session.scalar(query) == wanted:
                return
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
