import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from emissary.errors import InvalidInput, NotFound, Unavailable
from emissary.serving.batching import Batcher
from emissary.serving.generation import GenerationRequest, GenerationResult, Generator


@pytest.fixture
def batcher(generator: Generator) -> Iterator[Batcher]:
    batcher = Batcher(generator, max_batch=4)
    yield batcher
    batcher.close()


def ask(
    generator: Generator, adapter: str | None = None, tokens: int = 6, text: str = "One, two,"
) -> GenerationRequest:
    return GenerationRequest(generator.text_prompt(text), adapter, max_new_tokens=tokens)


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def test_concurrent_requests_get_their_own_answers(batcher: Batcher, generator: Generator) -> None:
    requests = [ask(generator, adapter, tokens) for adapter in (None, "red", "blue") for tokens in (2, 5)]
    expected = generator.generate(requests)

    async def run() -> list[GenerationResult]:
        return await asyncio.gather(*map(batcher.submit, requests))

    assert asyncio.run(run()) == expected
    assert batcher.in_flight == 0


def test_a_stream_joins_to_the_submitted_text(batcher: Batcher, generator: Generator) -> None:
    request = ask(generator, tokens=12, text="Repeat: 👩‍👩‍👧 東京 🇯🇵 é. Repeat: 👩‍👩‍👧 東京 🇯🇵 é. Repeat:")

    async def run() -> tuple[list[str | GenerationResult], GenerationResult]:
        return [item async for item in batcher.stream(request)], await batcher.submit(request)

    items, result = asyncio.run(run())
    assert items[-1] == result
    assert "".join(items[:-1]) == result.text  # type: ignore[arg-type]
    assert len(items) > 3
    assert "👩" in result.text


def test_a_request_joins_a_batch_that_is_running(batcher: Batcher, generator: Generator) -> None:
    async def run() -> None:
        stream = batcher.stream(ask(generator, tokens=2000))
        await anext(stream)
        short = await asyncio.wait_for(batcher.submit(ask(generator, "red", tokens=3)), 20)
        assert short.completion_tokens == 3
        assert batcher.in_flight == 1
        await stream.aclose()

    asyncio.run(run())


def test_clients_that_leave_free_the_batch(batcher: Batcher, generator: Generator) -> None:
    async def run() -> None:
        streams = [batcher.stream(ask(generator, tokens=4000)) for _ in range(4)]  # all rows there are
        for stream in streams[:3]:
            await anext(stream)
        submitted = asyncio.create_task(batcher.submit(ask(generator, tokens=4000)))
        await until(lambda: batcher.in_flight == 4)
        submitted.cancel()
        for stream in streams:
            await stream.aclose()
        await until(lambda: batcher.in_flight == 0)
        await asyncio.wait_for(asyncio.gather(*(batcher.submit(ask(generator, tokens=2)) for _ in range(4))), 20)

    asyncio.run(run())


@pytest.mark.acceptance
def test_adapters_come_and_go_while_requests_run(
    batcher: Batcher, generator: Generator, adapter_dirs: dict[str, Path]
) -> None:
    expected = {name: generator.generate([ask(generator, name, 4)])[0].text for name in (None, "red", "blue")}

    async def calls(name: str | None) -> int:
        answered = 0
        for _ in range(4):
            try:
                result = await batcher.submit(ask(generator, name, 4))
            except NotFound:
                assert name == "blue"
                await asyncio.sleep(0.01)
                continue
            assert result.text == expected[name]
            answered += 1
        return answered

    async def swap() -> None:
        for _ in range(3):
            await asyncio.to_thread(generator.unload_adapter, "blue")
            await asyncio.sleep(0.02)
            await asyncio.to_thread(generator.load_adapter, "blue", adapter_dirs["blue"])
            await asyncio.sleep(0.05)

    async def run() -> list[int | None]:
        return await asyncio.gather(calls(None), calls("red"), calls("blue"), swap())

    assert asyncio.run(run())[:2] == [4, 4]


def test_bad_requests_are_refused_before_the_stream(batcher: Batcher, generator: Generator) -> None:
    async def run() -> None:
        with pytest.raises(NotFound, match="green"):
            batcher.stream(ask(generator, "green"))
        with pytest.raises(InvalidInput, match="empty"):
            await batcher.submit(GenerationRequest([]))

    asyncio.run(run())


def test_a_failing_batch_fails_its_requests_only(batcher: Batcher, generator: Generator) -> None:
    async def run() -> None:
        outside = GenerationRequest([10**9], max_new_tokens=2)  # no such token: the forward pass raises
        with pytest.raises(Unavailable, match="failed on this batch"):
            await batcher.submit(outside)
        assert (await batcher.submit(ask(generator, tokens=2))).completion_tokens == 2

    asyncio.run(run())


def test_closing_ends_requests_under_way(generator: Generator) -> None:
    batcher = Batcher(generator)

    async def run() -> None:
        stream = batcher.stream(ask(generator, tokens=4000))
        await anext(stream)
        await asyncio.to_thread(batcher.close)
        with pytest.raises(Unavailable, match="shutting down"):
            async for _ in stream:
                pass
        with pytest.raises(Unavailable, match="shutting down"):
            await batcher.submit(ask(generator))

    asyncio.run(run())
