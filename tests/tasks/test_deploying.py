"""Deploying on an engine whose process dies, told by its endpoint."""

import asyncio
from collections.abc import Iterator
from itertools import chain, repeat

import httpx
import pytest

from emissary.errors import EmissaryError
from emissary.serving import client as engine_client
from emissary.store.tables import Engine
from tasks import deploying
from tasks.deploying import ask, deploy, load

DEAD = "http://dead"


def engine(endpoint: str) -> Engine:
    return Engine(id="engine-1", status="Active", endpoint=endpoint, task_type="text-generation")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What engines are asked, of which those whose endpoint begins as `DEAD` do not answer, and those at http://refusing
    say no; without the catalogue and Prefect.
    """
    urls: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        urls.append(str(request.url))
        if urls[-1].startswith(DEAD):
            raise httpx.ConnectError("refused")
        if urls[-1].startswith("http://dying") and request.url.path != "/adapters":
            raise httpx.ReadError("reset")
        return httpx.Response(500 if request.url.host == "refusing" else 200, json={"error": "no"})

    def connect(engine: Engine) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=engine.endpoint or "", transport=httpx.MockTransport(answer))

    async def load_adapter(deployment_id: str, engine: Engine) -> None:
        await load(deployment_id, engine, "training-jobs/tr-1/checkpoints/1")

    async def at_once(_seconds: float) -> None: ...

    monkeypatch.setattr(engine_client, "connect", connect)
    monkeypatch.setattr(deploying, "load_adapter", load_adapter)
    monkeypatch.setattr(deploying, "probe", ask)
    monkeypatch.setattr(deploying.asyncio, "sleep", at_once)
    return urls


def serve(monkeypatch: pytest.MonkeyPatch, endpoints: Iterator[str]) -> None:
    """Have each wait for the engine find it at the next of `endpoints`."""

    async def wait_for_engine(_deployment_id: str) -> Engine:
        return engine(next(endpoints))

    monkeypatch.setattr(deploying, "wait_for_engine", wait_for_engine)


def test_engine_that_dies_between_the_wait_and_the_probe_is_replaced_by_the_next_one(
    monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    serve(monkeypatch, chain(repeat(DEAD, 20), ["http://dying", "http://next"]))
    asyncio.run(deploy("dp-1"))
    assert asked[-4:] == [
        "http://dying/adapters",
        "http://dying/v1/completions",
        "http://next/adapters",
        "http://next/v1/completions",
    ]


def test_deployment_on_which_engine_after_engine_dies_fails(monkeypatch: pytest.MonkeyPatch, asked: list[str]) -> None:
    serve(monkeypatch, iter([f"{DEAD}:1", f"{DEAD}:2", f"{DEAD}:3", "http://next"]))
    with pytest.raises(EmissaryError, match=r"The engine engine-1 does not answer; look at its log"):
        asyncio.run(deploy("dp-1"))


def test_engine_that_stays_silent_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    serve(monkeypatch, repeat(DEAD))
    monkeypatch.setattr(deploying, "_SILENT_SECONDS", 0.05)
    with pytest.raises(EmissaryError, match="does not answer"):
        asyncio.run(deploy("dp-1"))


def test_refusal_is_told_at_once(monkeypatch: pytest.MonkeyPatch, asked: list[str]) -> None:
    serve(monkeypatch, repeat("http://refusing"))
    with pytest.raises(EmissaryError, match="The engine refused: no"):
        asyncio.run(deploy("dp-1"))
    assert len(asked) == 1
