"""Requests to a model whose engine has ended: they start it, and are held until it answers.

Per process and model one task starts the engine and watches it; all requests that are held wait for that task, so a
hundred of them ask the database as often as one does.
"""

import asyncio
import math
import time
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncSession

from emissary.api import submit
from emissary.errors import Unavailable
from emissary.store import deployments, engines
from emissary.store.database import transaction
from emissary.store.deployments import Target
from emissary.store.tables import Engine

_LOOK_SECONDS = 0.25
_FIRST_START_SECONDS = 60
"""Told as Retry-After while no start of this base model has been measured."""
_LATE_SECONDS = 5
"""Told as Retry-After when a start takes longer than the last one did."""

_Key = tuple[str, str, str | None]
_watches: dict[_Key, asyncio.Task[None]] = {}
_ending = False


async def ready(organization_id: str, model: str, hold: float, dead: str | None = None) -> Target:
    """What answers for `model` now, held up to `hold` seconds while its engine starts, which this brings about.

    An engine that still listens at `dead`, where it was seen not to answer, is not ready. Raises NotFound for an
    unknown model, and Unavailable, with Retry-After, when the hold is over, the engine fails, or its schedule has it
    ended now.
    """
    deadline = time.monotonic() + hold
    while True:
        async with transaction() as session:
            target = await deployments.find_callable(session, organization_id, model)
        if _answers(target, dead):
            return target
        if _ending:
            raise Unavailable(
                f"{model!r} is not ready, and this API process is ending; send the request again.", retry_after=1
            )
        left = deadline - time.monotonic()
        key = (organization_id, model, dead)
        if (watch := _watches.get(key)) is None:
            watch = _watches[key] = asyncio.create_task(_watch(key, max(left, 0.0)))
            watch.add_done_callback(lambda done, key=key: _forget(key, done))  # type: ignore[misc]
        await asyncio.wait({watch}, timeout=max(left, 0.0))
        if watch.done() and not watch.cancelled():
            watch.result()
        if time.monotonic() >= deadline:
            async with transaction() as session:
                engine = await engines.get(session, target.engine.id)
                seconds = await retry_after(session, engine)
            raise Unavailable(
                f"{model!r} is not ready: its engine {engine.id} is {engine.status}; try again in about {seconds} s.",
                retry_after=seconds,
            )


def end_all() -> None:
    """Answer all requests that are held, now and from now on, since this process ends; the engines go on starting."""
    global _ending
    _ending = True
    for watch in _watches.values():
        watch.cancel()


def _answers(target: Target, dead: str | None) -> bool:
    return target.loaded and target.engine.endpoint != dead


def _forget(key: _Key, done: asyncio.Task[None]) -> None:
    _watches.pop(key, None)
    if not done.cancelled():
        done.exception()  # read, or asyncio would complain where no request waited to the end


async def _watch(key: _Key, seconds: float) -> None:
    """Start the engine when it has ended, and return when the model answers or `seconds` are over."""
    organization_id, model, dead = key
    deadline = time.monotonic() + seconds
    started = False
    while True:
        async with transaction() as session:
            target = await deployments.find_callable(session, organization_id, model)
        if _answers(target, dead):
            return
        if target.engine.status == "Inactive":
            if started:
                raise Unavailable(
                    f"The engine {target.engine.id} of {model!r} was started and ended before it could answer. "
                    f"{target.engine.error or 'Its log in the Prefect UI may tell why.'}"
                )
            await start(target.engine.id)
            started = True
        if time.monotonic() >= deadline:
            return
        await asyncio.sleep(_LOOK_SECONDS)


async def start(engine_id: str) -> None:
    """Start an engine that has ended; nothing to do when somebody else just did.

    Raises Unavailable, with the seconds to its next window, when its schedule has it ended now.
    """
    async with transaction() as session:
        engine = await engines.start_again(session, engine_id)
    if engine is not None:
        await submit.submit(engine)


async def retry_after(session: AsyncSession, engine: Engine) -> int:
    """In how many seconds an engine that starts, or is about to, will likely answer, by what its last start took."""
    usual = await engines.usual_start_seconds(session, engine)
    begun = engine.start_requested_at if engine.status == "Creating" else None
    passed = 0.0 if begun is None else (datetime.now(UTC) - begun).total_seconds()
    left = (_FIRST_START_SECONDS if usual is None else usual) - passed
    return math.ceil(left) if left > _LATE_SECONDS else _LATE_SECONDS
