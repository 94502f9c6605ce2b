"""Keeps what deployments answer, where that is asked for, without making anybody wait for it.

An answer is put into a bounded queue of this process when it has been given; a task of its own reads it and writes it
to the catalogue. What the queue has no room for, because the catalogue is away or too slow, is lost and counted.
"""

import asyncio
import logging
import random
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection

from emissary.errors import Unavailable
from emissary.ids import derived_id
from emissary.schemas.traffic import Capture
from emissary.store import traffic
from emissary.store.database import transaction
from emissary.store.deployments import Target
from emissary.store.tables import Deployment, TrafficEntry
from emissary.traffic_answers import DONE, Answered, Classes, fits, read

logger = logging.getLogger(__name__)

MOST_WAITING = 2000
MOST_WAITING_BYTES = 32 * 1024 * 1024
_LARGEST = 2 * 1024 * 1024  # a batch of inputs, or an embedding of many dimensions
_BATCH = 100
_WRITE_SECONDS = 0.3
_AWAY_SECONDS = 2.0
_FORGET_SECONDS = 30.0
_LAST_SECONDS = 2.0
_AWAY = (OperationalError, InterfaceError, NoConnection, Unavailable)


@dataclass
class Recording:
    """A request that is being answered, and what has been sent of the answer."""

    deployment_id: str
    request: Mapping[str, Any]
    content: bytearray = field(default_factory=bytearray)
    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def add(self, part: bytes) -> None:
        """Take in a part of the answer."""
        if len(self.content) <= _LARGEST:  # of one that is larger nothing is kept
            self.content += part

    def end(self) -> None:
        """Have the whole answer be kept."""
        _waiting.put(self)

    def end_stream(self) -> None:
        """The same of a stream of events, unless it was broken off."""
        if self.content.endswith(DONE) or len(self.content) > _LARGEST:
            self.end()

    @property
    def bytes(self) -> int:
        """About as many as it takes in memory."""
        return len(self.content) + _length(self.request)


def _length(value: Any) -> int:
    if isinstance(value, Mapping):
        return sum(map(_length, value.values()))
    if isinstance(value, list):
        return sum(map(_length, value))
    return len(value) if isinstance(value, str) else 0


class _Waiting:
    """What is to be written, the oldest first; and what has been lost, by deployment, since the catalogue was told."""

    def __init__(self) -> None:
        self.recordings: deque[Recording] = deque()
        self.lost: Counter[str] = Counter()
        self._bytes = 0

    def put(self, recording: Recording) -> None:
        size = recording.bytes
        if len(self.recordings) >= MOST_WAITING or size > _LARGEST or self._bytes + size > MOST_WAITING_BYTES:
            self.lost[recording.deployment_id] += 1
            return
        self.recordings.append(recording)
        self._bytes += size

    def written(self, batch: Sequence[Recording]) -> None:
        """Forget these, the oldest ones."""
        for recording in batch:
            self.recordings.popleft()
            self._bytes -= recording.bytes


_waiting = _Waiting()


def begin(path: str, target: Target, request: Mapping[str, Any]) -> Recording | None:
    """What takes in the answer to a request, a body of JSON; None where it is not to be kept."""
    if target.capture is None or random.random() * 100 >= target.capture.sample_percentage:  # noqa: S311 - no secret
        return None
    if path == "/v1/embeddings" and request.get("target") is None:
        return None  # it says nothing that could be right or wrong
    return Recording(target.name, request)


async def write_for_ever() -> None:
    """Write what waits, again and again, and remove what has expired; at the end what still waits, within seconds."""
    forget_at = 0.0
    try:
        while True:
            wait = _WRITE_SECONDS
            try:
                await write_waiting()
                if time.monotonic() >= forget_at:
                    forget_at = time.monotonic() + _FORGET_SECONDS
                    async with transaction() as session:
                        await traffic.forget(session)
            except _AWAY as error:
                logger.warning("Captured traffic cannot be written now (%s); trying again", error)
                wait = _AWAY_SECONDS
            except Exception:
                logger.exception("Captured traffic could not be written")
            await asyncio.sleep(wait)
    finally:
        try:
            await asyncio.wait_for(write_waiting(), _LAST_SECONDS)
        except Exception as error:
            logger.warning(
                "%d captured answers are lost (%s)", len(_waiting.recordings), str(error) or type(error).__name__
            )


async def write_waiting() -> None:
    """Write everything that waits now. What cannot be kept is lost; where the catalogue is away all of it still waits,
    and this raises one of `_AWAY`.
    """
    while _waiting.recordings:
        batch = list(islice(_waiting.recordings, _BATCH))
        try:
            lost = await _write(batch)
        except _AWAY:
            raise
        except Exception:
            logger.exception("Captured answers could not be kept")
            lost = Counter(recording.deployment_id for recording in batch)
        _waiting.written(batch)
        _waiting.lost += lost
    for deployment_id, count in list(_waiting.lost.items()):
        async with transaction() as session:
            await traffic.count_lost(session, deployment_id, count)
        _waiting.lost -= Counter({deployment_id: count})


async def _write(batch: Sequence[Recording]) -> Counter[str]:
    """Write these; returns by deployment how many cannot be kept. Those of a deployment that does not capture any more
    are let go.
    """
    lost: Counter[str] = Counter()
    async with transaction() as session:
        found = await traffic.capturing(session, {recording.deployment_id for recording in batch})
        known = {row.id: (row, await traffic.classes(session, row)) for row in found}
        for recording in batch:
            if recording.deployment_id in known:
                answers = await asyncio.to_thread(_read, recording, *known[recording.deployment_id])
                kept = [answer for answer in answers if fits(answer)]
                lost[recording.deployment_id] += len(kept) < len(answers) or not answers
                entries = [_entry(recording, known[recording.deployment_id][0], answer) for answer in kept]
                await traffic.add(session, entries)
    return lost


def _read(recording: Recording, deployment: Deployment, classes: Classes | None) -> Sequence[Answered]:
    try:
        return list(read(recording.request, bytes(recording.content), traffic.task_type(deployment), classes))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        logger.warning("An answer of %s is not as it should be, and is not kept (%r)", deployment.id, error)
        return []


def _entry(recording: Recording, deployment: Deployment, answer: Answered) -> TrafficEntry:
    return TrafficEntry(
        # The same again where the answer to a commit was lost.
        id=derived_id("te", deployment.id, answer.answer_id, str(answer.position)),
        deployment_id=deployment.id,
        answer_id=answer.answer_id,
        position=answer.position,
        input=answer.input,
        output=answer.output,
        created_at=recording.at,
        expires_at=recording.at + timedelta(days=Capture.model_validate(deployment.capture).keep_days),
    )
