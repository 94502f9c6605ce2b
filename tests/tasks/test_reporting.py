import asyncio
import logging

import httpx
import pytest
from prefect.exceptions import PrefectHTTPStatusError

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


def refusal(status: int) -> PrefectHTTPStatusError:
    request = httpx.Request("POST", "http://prefect/api/artifacts/")
    answer = httpx.Response(status, request=request, json={"detail": "no"})
    return PrefectHTTPStatusError.from_httpx_error(httpx.HTTPStatusError("no", request=request, response=answer))


def times_shown(error: Exception) -> int:
    """How often a report is made that fails with `error` the first time; another one behind it is shown in any case."""
    shown: list[str] = []

    async def show() -> None:
        shown.append("plot")
        if len(shown) == 1:
            raise error

    async def show_next() -> None:
        shown.append("next")

    async def run() -> None:
        reporting.report("The plot", show)
        reporting.report("The table", show_next)
        await asyncio.wait_for(reporting.reported(), 10)

    asyncio.run(run())
    assert "next" in shown
    return shown.count("plot")


@pytest.mark.parametrize("error", [refusal(409), refusal(413), refusal(422), ValueError("a bug")], ids=str)
def test_what_will_never_be_shown_is_logged_and_given_up(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "tasks.reporting"):
        assert times_shown(error) == 1
    assert "The plot is not shown" in caplog.text
    assert type(error).__name__ in caplog.text


LATER = [refusal(408), refusal(429), refusal(500), refusal(503), httpx.ReadTimeout("")]


@pytest.mark.parametrize("error", LATER, ids=str)
def test_what_may_be_shown_later_is_tried_again(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setattr(reporting, "_WAIT_SECONDS", 0.01)
    assert times_shown(error) == 2
