"""Requests that are held while an engine starts; on a catalogue of their own."""

import asyncio
import time

import pytest

from emissary.api import cold_start
from emissary.errors import Unavailable
from emissary.store import engines
from emissary.store.database import dispose, transaction
from emissary.store.users import ensure_user
from tests.own_home import own_catalogue

MODEL = "SmolLM2-135M-Instruct"


async def starting_engine() -> str:
    """The organization of an engine that is Creating, and stays so."""
    management = {"management_type": "inactive_timeout", "management_config": {"inactive_duration": 3600}}
    async with transaction() as session:
        user = await ensure_user(session, "somebody")
        await engines.create(
            session,
            organization_id=user.organization_id,
            name="starting",
            base_model=MODEL,
            task_type="text-generation",
            management=management,
            user_id=user.id,
        )
        return str(user.organization_id)


def test_held_requests_are_answered_when_the_process_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cold_start, "_ending", False)

    async def run() -> None:
        organization = await starting_engine()
        held = [asyncio.create_task(cold_start.ready(organization, MODEL, 60)) for _ in range(3)]
        _, waiting = await asyncio.wait(held, timeout=1)
        assert len(waiting) == 3
        cold_start.end_all()
        answers = await asyncio.gather(*held, return_exceptions=True)
        late = await asyncio.gather(cold_start.ready(organization, MODEL, 60), return_exceptions=True)
        await dispose()
        for answer in answers + late:
            assert isinstance(answer, Unavailable)
            assert answer.retry_after == 1
            assert "send the request again" in str(answer)

    with own_catalogue():
        begun = time.monotonic()
        asyncio.run(run())
        assert time.monotonic() - begun < 30


def test_request_is_not_ready_when_its_hold_is_over() -> None:
    async def run() -> None:
        organization = await starting_engine()
        with pytest.raises(Unavailable, match="is Creating; try again in about"):
            await cold_start.ready(organization, MODEL, 0.1)
        await dispose()

    with own_catalogue():
        asyncio.run(run())
