"""A catalogue and a Prefect server with the platform's flow deployments, and nothing that works for them.

Tests put flow runs into states themselves, as a worker would, and sweep when they say so.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from sqlalchemy.ext.asyncio import AsyncSession

from emissary import up
from emissary.api.app import create_app
from emissary.api.silences import Silences
from emissary.api.submit import submit_waiting
from emissary.api.sweeping import sweep
from emissary.processes import Supervised, Supervisor
from emissary.settings import Settings, settings
from emissary.store import leases, users
from emissary.store.database import catalogue_server, dispose, migrate, transaction
from emissary.store.tables import TrainingJob
from tests.api.refusals import GOOD, MODEL
from tests.conftest import free_port

T = TypeVar("T")
KEY = "ek-backends"


@dataclass
class Backends:
    """Both servers, and the calls that tests make; the settings of this process name them only meanwhile."""

    home: Path
    database_url: str
    prefect_url: str
    prefect_server: Supervised
    silences: Silences = field(default_factory=Silences)
    application: FastAPI = field(default_factory=create_app)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` gives."""

        async def disposing() -> T:
            try:
                return await work
            finally:
                await dispose()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(settings(), "home", self.home)
            patch.setattr(settings(), "database_url", self.database_url)
            return asyncio.run(disposing())

    def catalogue(self, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
        """What `work(session)` gives in a transaction."""

        async def inside() -> T:
            async with transaction() as session:
                return await work(session)

        return self.run(inside())

    def prefect(self, work: Callable[[PrefectClient], Awaitable[T]]) -> T:
        """What `work(client)` gives, asked of the Prefect server itself."""

        async def inside() -> T:
            with temporary_settings({PREFECT_API_URL: self.prefect_url}):
                async with get_client() as client:
                    return await work(client)

        return self.run(inside())

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        """The API's answer, given by an application in this process whose sweep does not run."""
        return self.run(self.ask(method, path, **more))

    async def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """The same, for several at once."""
        transport = httpx.ASGITransport(self.application)
        headers = {"X-API-Key": KEY}
        async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=headers) as api:
            return await api.request(method, path, **more)

    def sweep(self, seconds: float = 0.0) -> None:
        """Sweep as the API would, once or for some seconds."""
        deadline = time.monotonic() + seconds
        self.run(sweep(self.silences))
        while time.monotonic() < deadline:
            self.run(sweep(self.silences))

    def new_job(self, **more: Any) -> str:
        """Path of a new job in a project of its own."""
        project = self.request("POST", "/v1/projects", json={"name": "runs"}).json()["id"]
        file = {"file": ("rows.jsonl", GOOD * 4)}
        dataset = self.request("POST", f"/v1/projects/{project}/datasets", files=file).json()["id"]
        path = f"/v1/projects/{project}/training-jobs"
        answer = self.request("POST", path, json={"base_model": MODEL, "train_dataset_id": dataset} | more)
        assert answer.status_code == 201, answer.text
        return f"{path}/{answer.json()['id']}"

    def job(self, path: str) -> TrainingJob:
        """The job's row."""
        return self.catalogue(lambda session: session.get_one(TrainingJob, path.rpartition("/")[2]))

    def run_id(self, path: str) -> UUID:
        """The flow run of the job."""
        if self.job(path).flow_run_id is None:  # Prefect was slow, so the request left it to the sweep
            self.run(submit_waiting())
        found = self.job(path).flow_run_id
        assert found is not None
        return found

    def put(self, run_id: UUID, state: State) -> None:
        """Put a flow run into a state, by force."""
        self.prefect(lambda client: client.set_flow_run_state(run_id, state, force=True))

    def state(self, run_id: UUID) -> State:
        """The state of a flow run."""
        state = self.prefect(lambda client: client.read_flow_run(run_id)).state
        assert state is not None
        return state

    def take_lease(self, path: str) -> int:
        """Be the process that works for the job; returns the token."""
        row_id, run_id = path.rpartition("/")[2], self.run_id(path)
        return self.catalogue(lambda session: leases.take(session, row_id, run_id, "here:1:0"))

    def events(self, path: str) -> list[str]:
        """Kinds of what happened to the job."""
        return [event["kind"] for event in self.request("GET", f"{path}/events").json()]


@contextmanager
def started() -> Iterator[Backends]:
    """Both servers while the block runs."""
    with tempfile.TemporaryDirectory(prefix="emissary-backends-") as home, pytest.MonkeyPatch.context() as patch:
        patch.delenv("PREFECT_API_URL", raising=False)
        patch.delenv("EMISSARY_DATABASE_URL", raising=False)
        chosen = Settings(home=Path(home), prefect_port=free_port())
        with catalogue_server(chosen) as address:
            migrate(address)
            environment = os.environ | up._environment(chosen, address)
            supervisor = Supervisor(chosen.home / "logs", environment)
            with supervisor.keep():
                command = ("prefect", "server", "start", "--host", "127.0.0.1", "--port", str(chosen.prefect_port))
                server = supervisor.start("prefect", sys.executable, "-m", *command)
                up._wait(f"{chosen.prefect_api_url}/health", "Prefect's server")
                once = {PREFECT_API_URL: chosen.prefect_api_url, PREFECT_CLIENT_MAX_RETRIES: 0}
                with temporary_settings(once):
                    asyncio.run(up._apply_work_pools(chosen))
                    up.apply_flow_deployments(environment)
                    backends = Backends(chosen.home, address, chosen.prefect_api_url, server)
                    backends.catalogue(lambda session: users.ensure_first_key(session, KEY))
                    yield backends
