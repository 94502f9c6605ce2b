"""Tells one tracker of every training job, for as long as the platform runs; what failed is told again later.

It reads the catalogue and nothing else: no training waits for it, or notices that it is there.
"""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import psycopg
from sqlalchemy.exc import InterfaceError, OperationalError

from emissary.errors import NotFound
from emissary.settings import settings
from emissary.store import job_events, tracked_jobs
from emissary.store.database import catalogue_url, transaction
from emissary.tracking.facts import Facts, facts

logger = logging.getLogger(__name__)

LOOK_SECONDS = 3.0
TELL_SECONDS = 180.0
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 15.0, 900.0
_TITLES = {"mlflow": "MLflow", "wandb": "Weights & Biases"}


class Tracker(Protocol):
    """Something that keeps curves and scores of runs."""

    def tell(self, job: Facts) -> None:
        """Tell all that is known of a job; again is as good as once. Blocks, and raises whatever goes wrong."""


class Lost(Exception):
    """What a tracker keeps in this process cannot be used any more; another process can begin anew."""


class Reporter:
    """Tells `tracker`, known by `name`, what it does not know yet."""

    def __init__(self, name: str, tracker: Tracker) -> None:
        self._name, self._tracker = name, tracker
        self._told: dict[str, Facts] = {}
        self._waits: dict[str, tuple[float, float]] = {}
        """Job → when it is tried again, and how long that is after the last time."""

    async def run(self) -> None:
        """Look and tell, for ever."""
        while True:
            try:
                async with _alone(self._name) as connection:
                    while True:
                        await connection.execute("SELECT 1")
                        await self.look()
                        await asyncio.sleep(LOOK_SECONDS)
            except (OperationalError, InterfaceError, psycopg.Error) as error:
                logger.warning("The catalogue cannot be reached: %s", error)
                await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Tell of every job of which there is something new, and whose last failure is long enough ago."""
        async with transaction() as session:
            jobs = await tracked_jobs.due(session, self._name)
        for job_id in jobs:
            if time.monotonic() < self._waits.get(job_id, (0.0, 0.0))[0]:
                continue
            try:
                async with transaction() as session:
                    job = facts(await tracked_jobs.known(session, job_id))
            except NotFound:
                continue
            if job != self._told.get(job_id):
                await self._tell(job)

    async def _tell(self, job: Facts) -> None:
        try:
            async with asyncio.timeout(TELL_SECONDS):
                await asyncio.to_thread(self._tracker.tell, job)
        except (TimeoutError, Lost) as error:
            logger.error("%s: %s; beginning anew", job.job_id, error or f"no answer within {TELL_SECONDS:g} s")
            await self._warn(job.job_id)
            os._exit(1)  # a thread cannot be ended otherwise; whoever watches this process starts it again
        except Exception as error:
            logger.warning("%s: %s: %s", job.job_id, type(error).__name__, error)
            await self._warn(job.job_id)
            wait = min(2 * self._waits.get(job.job_id, (0.0, FIRST_WAIT_SECONDS / 2))[1], LONGEST_WAIT_SECONDS)
            self._waits[job.job_id] = (time.monotonic() + wait, wait)
            return
        self._waits.pop(job.job_id, None)
        self._told[job.job_id] = job
        if job.has_ended:
            del self._told[job.job_id]
            async with transaction() as session:
                await tracked_jobs.told(session, job.job_id, self._name, job.status)

    async def _warn(self, job_id: str) -> None:
        """Say so among the job's events, once. Why is in the log alone, for it may tell of the operator's network."""
        message = (
            f"{_TITLES[self._name]} cannot be told of this job now. Training goes on, and what is missing is sent when "
            f"that is possible again; the platform's log tracking-{self._name}.log says why."
        )
        async with transaction() as session:
            about = {"about": "tracking", "tracker": self._name}
            await job_events.record(session, job_id, "warning", about, message=message)


@asynccontextmanager
async def _alone(name: str) -> AsyncIterator[psycopg.AsyncConnection]:
    """Waits until no other process tells the tracker; while the connection lasts none will."""
    url = catalogue_url(settings().database_url or "").set(drivername="postgresql")
    address = url.render_as_string(hide_password=False)
    async with await psycopg.AsyncConnection.connect(address, autocommit=True) as connection:
        await connection.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (f"tracker {name}",))
        yield connection
