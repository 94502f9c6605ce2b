import asyncio
import logging

import httpx
import pytest

from tasks import reporting


def test_what_prefect_cannot_take_now_is_shown_later_and_only_the_newest(caplog: pytest.LogCaptureFixture) -> None:
    shown: list[str] = []
    away = True

    refused = asyncio.Event()

    async def show(value: str) -> None:
        if away:
            refused.set()
            raise httpx.ConnectError("refused")
        shown.append(value)

    async def run() -> None:
        nonlocal away
        reporting.report("The progress bar", lambda: show("10 %"))
        reporting.report("The state", lambda: show("Testing"))
        await refused.wait()
        reporting.report("The progress bar", lambda: show("20 %"))
        away = False
        await reporting.reported()

    with caplog.at_level(logging.WARNING, "tasks.reporting"):
        asyncio.run(run())
    assert sorted(shown) == ["20 %", "Testing"]
    assert "cannot be reached" in caplog.text


def test_reporting_does_not_hold_up_the_work() -> None:
    shown: list[int] = []

    async def run() -> None:
        gate = asyncio.Event()

        async def show(value: int) -> None:
            await gate.wait()
            shown.append(value)

        for value in range(5):
            reporting.report("The progress bar", lambda value=value: show(value))
        assert shown == []
        gate.set()
        await reporting.reported()

    asyncio.run(run())
    assert shown[-1] == 4


def test_nothing_to_report_is_reported_at_once() -> None:
    asyncio.run(reporting.reported())


def test_other_errors_are_not_hidden() -> None:
    async def broken() -> None:
        raise ValueError("a bug")

    async def run() -> None:
        reporting.report("The progress bar", broken)
        await reporting.reported()

    with pytest.raises(ValueError, match="a bug"):
        asyncio.run(run())
