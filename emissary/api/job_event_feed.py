"""Wakes those who follow a training job's events; one listening connection serves the whole API process."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from emissary.store import job_events

logger = logging.getLogger(__name__)
_following: defaultdict[str, set[asyncio.Event]] = defaultdict(set)


@contextmanager
def following(training_job_id: str) -> Iterator[asyncio.Event]:
    """An event that is set whenever there may be news of the job, while the block runs."""
    news = asyncio.Event()
    _following[training_job_id].add(news)
    try:
        yield news
    finally:
        _following[training_job_id].remove(news)
        if not _following[training_job_id]:
            del _following[training_job_id]


async def listen() -> None:
    """Pass the database's notifications on, for ever; connects again when the connection breaks."""
    while True:
        try:
            async for training_job_id in job_events.news():
                waiting = _following.values() if training_job_id is None else [_following.get(training_job_id, set())]
                for news in (event for events in waiting for event in events):
                    news.set()
        except psycopg.Error as error:
            logger.warning("The connection that listens for events of training jobs broke (%s); reconnecting", error)
        await asyncio.sleep(1)
