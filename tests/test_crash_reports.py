"""What is told to Prefect of a process that died."""

import asyncio
from collections.abc import Callable, Sequence
from uuid import uuid4

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_CSRF_SUPPORT_ENABLED,
    PREFECT_CLIENT_MAX_RETRIES,
    temporary_settings,
)
from prefect.states import AwaitingRetry, Cancelling, Completed, Pending, Running

from emissary import crash_reports, out_of_memory
from emissary.crash_reports import CrashReports

MINE, BEFORE, ANOTHERS = "here:7:7.0", "here:6:6.0", "there:8:8.0"
KILLED = "Process exited with status code: -9. It was killed."


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crash_reports, "_AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(out_of_memory, "_counts", [out_of_memory.kills()])


def reported(
    state: State,
    process: str | None,
    failures: Sequence[Callable[[], httpx.Response]] = (),
    asked: int = 100,
) -> list[str]:
    """The messages of the crashes that Prefect is told, whose run is in `state` and has `process` noted, and that
    fails at first; the worker leaves once it was `asked` so often.
    """
    run = FlowRun(id=uuid4(), flow_id=uuid4(), name="run", state=state, infrastructure_pid=process)
    coming, told, calls = list(failures), list[str](), list[str]()

    def answer(request: httpx.Request) -> httpx.Response:
        calls.append(request.url.path)
        if coming:
            return coming.pop(0)()
        if request.method == "GET":
            return httpx.Response(200, json=run.model_dump(mode="json"))
        told.append(httpx.Response(200, content=request.content).json()["state"]["message"])
        return httpx.Response(201, json={"state": None, "status": "ACCEPT", "details": {"type": "accept_details"}})

    async def report() -> None:
        claimed = FlowRun(id=run.id, flow_id=run.flow_id, name="run", infrastructure_pid=BEFORE)
        async with get_client(httpx_settings={"transport": httpx.MockTransport(answer)}) as client:
            reports = CrashReports(client, lambda: MINE, lambda: len(calls) >= asked)
            await reports.propose_crashed(claimed, KILLED)

    settings = {PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_CSRF_SUPPORT_ENABLED: False}
    with temporary_settings(settings | {PREFECT_CLIENT_MAX_RETRIES: 8}):
        asyncio.run(report())
    return told


def refuse() -> httpx.Response:
    raise httpx.ConnectError("refused")


@pytest.mark.parametrize("process", [MINE, BEFORE])
@pytest.mark.parametrize("state", [Pending(), Running(), Running(name="Testing")])
def test_crash_is_reported_of_a_run_that_is_still_of_the_process(state: State, process: str) -> None:
    assert reported(state, process) == [KILLED]


@pytest.mark.parametrize(
    ("state", "process"),
    [(Running(), ANOTHERS), (AwaitingRetry(), MINE), (Cancelling(), MINE), (Completed(), MINE)],
)
def test_crash_is_not_reported_of_a_run_that_went_on(state: State, process: str) -> None:
    assert reported(state, process) == []


def test_crash_is_reported_once_prefect_answers_again() -> None:
    failures = [refuse, lambda: httpx.Response(500), lambda: httpx.Response(503)]
    assert reported(Running(), MINE, failures) == [KILLED]


def test_crash_after_an_outage_is_not_reported_of_a_run_that_went_on() -> None:
    assert reported(Running(), ANOTHERS, [refuse, refuse]) == []


def test_worker_that_leaves_does_not_wait_for_prefect() -> None:
    assert reported(Running(), MINE, [refuse] * 100, asked=3) == []


def test_memory_is_the_reason_only_where_the_kernel_killed_lately(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(out_of_memory, "kills", lambda: 8)
    monkeypatch.setattr(out_of_memory, "_counts", [8])
    assert reported(Running(), MINE) == [KILLED], "a kill of an hour ago is the reason"
    monkeypatch.setattr(out_of_memory, "_counts", [7, 8])
    (message,) = reported(Running(), MINE)
    assert message.startswith("Out of memory")
