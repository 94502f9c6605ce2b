import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.settings import settings
from emissary.store.database import dispose
from tasks.catalogue import in_catalogue
from tests.own_home import own_catalogue
from tests.postgres import catalogue_away


async def count(session: AsyncSession) -> int:
    return int(await session.scalar(text("SELECT count(*) FROM leases")) or 0)


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def all_of_it() -> None:
        try:
            await work()
        finally:
            await dispose()

    with own_catalogue():
        asyncio.run(all_of_it())


def test_work_waits_while_the_catalogue_is_away_and_is_done_then(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        await in_catalogue(count)  # leaves a connection in the pool, which the outage breaks
        with catalogue_away(settings().home):
            counting = asyncio.create_task(in_catalogue(count))
            while caplog.text.count("cannot be reached") < 2:
                assert not counting.done()
                await asyncio.sleep(0.05)
        assert await counting == 0

    with caplog.at_level(logging.WARNING, "tasks.catalogue"):
        run(work)


def test_other_errors_are_not_waited_for() -> None:
    async def broken(session: AsyncSession) -> None:
        await session.execute(text("SELECT * FROM no_such_table"))

    with pytest.raises(ProgrammingError):
        run(lambda: in_catalogue(broken))
