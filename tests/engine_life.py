"""What the tests of engines' lives share."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from emissary.client import Client
from emissary.store import engines
from emissary.store.database import dispose, transaction
from emissary.up import Platform
from tests.jobs import until

MODEL = "SmolLM2-135M-Instruct"
CHAT = {"messages": [{"role": "user", "content": "Say red."}], "max_tokens": 1, "temperature": 0}
LONG_ENOUGH = 240.0  # seconds for a start on a busy machine


def until_status(client: Client, path: str, *wanted: str) -> dict[str, Any]:
    """The resource at `path` once it has one of these statuses."""
    return dict(until(lambda: client.get(path), lambda found: found["status"] in wanted, LONG_ENOUGH))


def prefect(platform: Platform) -> httpx.Client:
    return httpx.Client(base_url=f"{platform.prefect_url}/api", trust_env=False, timeout=60)


def runs_of(platform: Platform, engine_id: str) -> list[dict[str, Any]]:
    """The flow runs of serve_engine that Prefect has for the engine, submitted or scheduled."""
    flow_deployment = prefect(platform).get("/deployments/name/serve_engine/serve_engine").json()
    body = {"deployments": {"id": {"any_": [flow_deployment["id"]]}}, "limit": 200}
    found: list[dict[str, Any]] = prefect(platform).post("/flow_runs/filter", json=body).json()
    return [run for run in found if run["parameters"].get("engine_id") == engine_id]


def row(engine_id: str) -> tuple[str | None, str | None]:
    """(endpoint, flow run) of an engine's row."""

    async def read() -> tuple[str | None, str | None]:
        async with transaction() as session:
            engine = await engines.get(session, engine_id)
        await dispose()
        return engine.endpoint, engine.flow_run_id and str(engine.flow_run_id)

    return asyncio.run(read())


def adapters(engine_id: str) -> list[str]:
    """The adapters that the engine's process holds."""
    endpoint, _ = row(engine_id)
    return list(httpx.get(f"{endpoint}/health", trust_env=False, timeout=60).json()["adapters"])


def process_of(platform: Platform, flow_run_id: str) -> int:
    """Process id of a flow run."""
    identity: str = until(
        lambda: prefect(platform).get(f"/flow_runs/{flow_run_id}").json()["infrastructure_pid"], bool, LONG_ENOUGH
    )
    return int(identity.split(":")[1])


def next_minute(ahead: float) -> datetime:
    """The first full minute, UTC, that is at least `ahead` seconds away."""
    later = datetime.now(UTC) + timedelta(seconds=ahead)
    return later.replace(second=0, microsecond=0) + timedelta(minutes=1)


def schedule(start: datetime, end: datetime) -> dict[str, Any]:
    """Every day from `start` to `end`, as the API takes it."""
    return {"timezone": "UTC", "start_time": f"{start:%H:%M}", "end_time": f"{end:%H:%M}"}


def closed(hours: int = 1) -> dict[str, Any]:
    """A schedule of so many hours, by which nothing starts today."""
    later = datetime.now(UTC) + timedelta(days=3)
    return {"timezone": "UTC", "start_time": "10:00", "end_time": f"{10 + hours}:00", "days": [f"{later:%A}".lower()]}


def wait_until(moment: datetime) -> None:
    time.sleep(max((moment - datetime.now(UTC)).total_seconds(), 0))
