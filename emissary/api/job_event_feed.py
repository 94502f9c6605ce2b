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
_ending = False


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


def end_all() -> None:
    """Have everybody who follows events end: the API is to be restarted, and they may go on with the next one."""
    global _ending
    _ending = True
    _wake(None)


def is_ending() -> bool:
    """Whether nobody should wait for news any more."""
    return _ending


def _wake(training_job_id: str | None) -> None:
    """Wake those who follow the job; None: everybody."""
    waiting = _following.values() if training_job_id is None else [_following.get(training_job_id, set())]
    for news in (event for events in waiting for event in events):
        news.set()


async def listen() -> None:
    """Pass the database's notifications on, for ever; connects again when the connection breaks."""
    while True:
        try:
            async for training_job_id in job_events.news():
                _wake(training_job_id)
        except psycopg.Error as error:
            logger.warning("The connection that listens for events of training jobs broke (%s); reconnecting", error)
        await asyncio.sleep(1)
