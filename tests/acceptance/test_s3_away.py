"""A store that is away while something is to be published."""

import asyncio
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from emissary.store.artifacts import artifact_store
from tasks.publishing import publish
from tests.acceptance.conftest import S3Server
from tests.conftest import free_port
from tests.jobs import until
from tests.own_home import own_home

pytestmark = pytest.mark.acceptance


@contextmanager
def forwarded(port: int, target: httpx.URL) -> Iterator[None]:
    """Have what connects to `port` reach the server at `target` while the block runs."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_server = await asyncio.open_connection(target.host, target.port)
        await asyncio.gather(copy(reader, to_server[1]), copy(to_server[0], writer), return_exceptions=True)

    async def run() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", port)
        started.set()
        await asyncio.to_thread(stopped.wait)
        server.close()

    started, stopped = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    started.wait()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def test_publishing_waits_for_a_store_that_is_away(
    s3_server: S3Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    (tmp_path / "adapter.bin").write_text("weights")
    away = s3_server.variables | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    with own_home(EMISSARY_ARTIFACTS=f"s3://{s3_server.bucket}/away", **away), caplog.at_level(logging.WARNING):
        publishing = threading.Thread(target=publish, args=("training-jobs/tr-1/checkpoints/1", tmp_path))
        publishing.start()
        until(lambda: caplog.text, lambda text: "Trying again" in text, 120)
        with forwarded(port, httpx.URL(s3_server.variables["AWS_ENDPOINT_URL"])):
            publishing.join(120)
            assert artifact_store().keys("training-jobs") == ["training-jobs/tr-1/checkpoints/1"]
