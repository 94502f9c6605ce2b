"""Which requests an engine counts, on a small application of the same kind."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import Response, StreamingResponse

from emissary.serving.measuring import PROBE, Figures, Measure, count_for, failed


@pytest.fixture
def figures() -> Figures:
    return Figures()


@pytest.fixture
def app(figures: Figures) -> FastAPI:
    app = FastAPI()
    app.add_middleware(Measure)

    async def events(breaks: bool) -> AsyncIterator[str]:
        yield "data: 1\n\n"
        if breaks:
            failed()
        yield "data: 2\n\n"

    @app.get("/answer/{status}")
    async def answer(status: int) -> Response:
        count_for(figures)
        return Response(status_code=status)

    @app.get("/stream/{breaks}")
    async def stream(breaks: bool) -> StreamingResponse:
        count_for(figures)
        return StreamingResponse(events(breaks))

    @app.get("/raise")
    async def broken() -> None:
        count_for(figures)
        raise RuntimeError

    @app.get("/other")
    async def other() -> None:
        return None

    return app


def get(app: FastAPI, path: str, headers: dict[str, str] | None = None) -> int:
    async def ask() -> int:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://engine", headers=headers) as client:
            return (await client.get(path)).status_code

    return asyncio.run(ask())


CASES = {
    "answer": ("/answer/200", 1, 0, 1),
    "stream": ("/stream/false", 1, 0, 1),
    "failure": ("/answer/500", 1, 1, 0),
    "no capacity": ("/answer/503", 1, 1, 0),
    "exception": ("/raise", 1, 1, 0),
    "stream that breaks": ("/stream/true", 1, 1, 0),
    "bad request": ("/answer/400", 0, 0, 0),
    "caller who went away": ("/answer/499", 0, 0, 0),
    "unknown model": ("/other", 0, 0, 0),
}


@pytest.mark.parametrize(("path", "requests", "errors", "answers"), CASES.values(), ids=CASES)
def test_request_is_counted(
    app: FastAPI, figures: Figures, path: str, requests: int, errors: int, answers: int
) -> None:
    get(app, path)
    assert (figures.requests, figures.errors, len(figures.seconds)) == (requests, errors, answers)


def test_probe_is_not_counted(app: FastAPI, figures: Figures) -> None:
    assert get(app, "/answer/200", PROBE) == 200
    assert figures.requests == 0


def test_median_is_of_the_latest_thousand() -> None:
    figures = Figures(requests=3000)
    figures.seconds.extend([9.0] * 2000 + [1.0] * 1000)
    assert figures.summary().model_dump() == {"requests": 3000, "errors": 0, "median_seconds": 1.0}
    assert Figures().summary().median_seconds is None
