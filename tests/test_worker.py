"""The warm worker while Prefect's server fails."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_CLIENT_RETRY_EXTRA_CODES,
    temporary_settings,
)

from emissary import up
from emissary.worker import WarmWorker
from tests.api.prefect_proxy import proxy_of

NOBODY = "http://127.0.0.1:9/api"


@pytest.fixture
def failing() -> Iterator[None]:
    """Prefect's server answers 500, as it does while its database is away."""
    with (
        proxy_of(NOBODY) as proxy,
        proxy.being("error"),
        temporary_settings({PREFECT_API_URL: proxy.api_url, PREFECT_CLIENT_MAX_RETRIES: 0}),
    ):
        yield


def test_worker_outlives_an_outage_of_prefect_and_says_so_once(
    failing: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = FlowRun(flow_id=uuid4(), deployment_id=uuid4(), name="run")

    async def work() -> None:
        async with WarmWorker(tmp_path, work_pool_name="engines", create_pool_if_not_found=False) as worker:
            worker._has_successfully_synced = True
            for _ in range(3):
                assert await worker.get_and_submit_flow_runs() == []
                await worker._sync_and_initialize()
            worker._submitting_flow_run_ids.add(run.id)
            await worker._submit_run(run)
            await worker._cancel_run(run.id)
            assert run.id not in worker._submitting_flow_run_ids, "it would never be started again"

    asyncio.run(work())
    assert [record.message[:15] for record in caplog.records if "away" in record.message] == ["Prefect is away"]


def test_run_asks_again_where_prefects_server_answers_500() -> None:
    codes = up.run_variables(NOBODY)["PREFECT_CLIENT_RETRY_EXTRA_CODES"]
    answers = [httpx.Response(500), httpx.Response(200, json="3.8.8")]

    async def ask() -> str:
        transport = httpx.MockTransport(lambda _: answers.pop(0))
        async with get_client(httpx_settings={"transport": transport}) as client:
            return await client.api_version()

    retrying = {PREFECT_CLIENT_RETRY_EXTRA_CODES: codes, PREFECT_CLIENT_MAX_RETRIES: 1}
    with temporary_settings({PREFECT_API_URL: NOBODY} | retrying):
        assert asyncio.run(ask()) == "3.8.8"
