"""Deleting is whole: runs end, rows and files go, adapters leave their engine; what something depends on stays."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.api import deleting
from emissary.api.app import create_app
from emissary.client import Client
from emissary.store import (
    pipeline_tables,  # noqa: F401 - else some tables are not looked at
    projects,
    users,
)
from emissary.store.database import dispose
from emissary.store.tables import Base, Engine
from emissary.up import Platform
from tests.api.refusals import MODEL, envelope, refused
from tests.catalogue import in_catalogue
from tests.jobs import ROWS, TINY, ended, jsonl, until, upload


def rows_of(project: str, jobs: list[str]) -> dict[str, int]:
    """Table → number of rows that belong to the project or its jobs; tables without any are left out."""

    async def count(session: AsyncSession) -> dict[str, int]:
        found = {}
        for table in Base.metadata.sorted_tables:
            columns = {"project_id": [project], "training_job_id": jobs} | (
                {"id": [project]} if table.name == "projects" else {}
            )
            for column, values in columns.items():
                if column in table.c:
                    number = await session.scalar(select(func.count()).where(table.c[column].in_(values)))
                    found[table.name] = max(number or 0, found.get(table.name, 0))
        return {name: number for name, number in found.items() if number}

    return in_catalogue(count)


def files_of(*ids: str) -> list[str]:
    """Paths of the artifact store and the work folder with one of the ids in their name."""
    home = Path(os.environ["EMISSARY_HOME"])
    paths = [path for folder in ("artifacts", "work") for path in (home / folder).rglob("*")]
    return [str(path.relative_to(home)) for path in paths if any(name in path.name for name in ids)]


def run_state(platform: Platform, flow_run_id: str) -> str:
    url = f"{platform.prefect_url}/api/flow_runs/{flow_run_id}"
    return str(httpx.get(url, trust_env=False).json()["state"]["type"])


def adapters(engine_id: str) -> list[str]:
    """What the engine's server has loaded."""
    endpoint = in_catalogue(lambda session: session.get_one(Engine, engine_id)).endpoint
    loaded: list[str] = httpx.get(f"{endpoint}/health", trust_env=False).json()["adapters"]
    return loaded


@pytest.fixture
def empty(client: Client) -> str:
    """A project of the test's own."""
    return str(client.post("/v1/projects", {"name": "to-delete"})["id"])


def start(client: Client, project: str, epochs: int, **more: Any) -> str:
    """Path of a new job on a dataset of its own."""
    body = {"base_model": MODEL, "train_dataset_id": upload(client, project, ROWS)} | more
    path = f"/v1/projects/{project}/training-jobs"
    return f"{path}/{client.post(path, body | {'parameters': TINY | {'num_train_epochs': epochs}})['id']}"


def checkpoints(client: Client, job: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(f"{job}/checkpoints")
    return found


@pytest.fixture(scope="module")
def project(client: Client) -> str:
    """A project with datasets, an ended job that is deployed, and a job that runs."""
    return str(client.post("/v1/projects", {"name": "whole"})["id"])


@pytest.fixture(scope="module")
def done(client: Client, project: str) -> str:
    path = start(client, project, 1, test_functions=["exact_match_shared"], train_test_split_ratio=25)
    job = until(lambda: client.get(path), ended)
    assert job["status"] == "Success", job["error"]
    return path


@pytest.fixture(scope="module")
def deployment(client: Client, project: str, done: str) -> dict[str, Any]:
    path = f"/v1/projects/{project}/deployments"
    body = {"training_job_id": done.rpartition("/")[2], "checkpoint": 1, "name": "goes-with-its-project"}
    made = client.post(path, body)
    found = until(lambda: client.get(f"{path}/{made['id']}"), ended)
    assert found["status"] == "Deployed", found["error"]
    return dict(found)


@pytest.fixture(scope="module")
def running(client: Client, project: str, done: str) -> str:
    assert done  # one run at a time
    path = start(client, project, 100)
    until(lambda: checkpoints(client, path), bool)
    return path


def test_what_something_depends_on_stays(
    client: Client, project: str, done: str, deployment: dict[str, Any], running: str
) -> None:
    dataset = client.get(done)["train_dataset"]["id"]
    with refused(client, project, dataset, done.rpartition("/")[2], "delete that first"):
        client.delete(f"/v1/projects/{project}/datasets/{dataset}")
    with refused(client, project, deployment["id"], "delete that first"):
        client.delete(done)
    with refused(client, project, "Running", "cancel it first"):
        client.delete(running)


def test_nothing_changes_while_prefect_is_away(client: Client, project: str, running: str) -> None:
    async def delete() -> httpx.Response:
        transport = httpx.ASGITransport(create_app())
        async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=client.http.headers) as api:
            answer = await api.delete(f"/v1/projects/{project}")
        await dispose()
        return answer

    jobs = [running.rpartition("/")[2]]
    before = rows_of(project, jobs)
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}):
        envelope(asyncio.run(delete()), 503, "unavailable")
    after = rows_of(project, jobs)
    for table, count in before.items():
        grows = table in ("checkpoints", "job_events")  # the job goes on meanwhile
        assert after[table] >= count if grows else after[table] == count, table
    assert client.get(running)["status"] == "Running"


def test_all_of_it_goes(
    client: Client, platform: Platform, project: str, done: str, deployment: dict[str, Any], running: str
) -> None:
    jobs = [path.rpartition("/")[2] for path in (done, running)]
    datasets = [row["id"] for row in client.get(f"/v1/projects/{project}/datasets")]
    flow_run = client.get(running)["flow_run_id"]
    assert deployment["id"] in adapters(deployment["engine_id"])
    assert {"projects", "datasets", "training_jobs", "checkpoints", "deployments"} <= set(rows_of(project, jobs))
    assert all(files_of(name) for name in (*jobs, *datasets))
    client.delete(f"/v1/projects/{project}")
    assert run_state(platform, flow_run) == "CANCELLED"
    assert rows_of(project, jobs) == {}
    assert files_of(*jobs, *datasets) == []
    assert deployment["id"] not in adapters(deployment["engine_id"])
    assert client.get(f"/v1/engines/{deployment['engine_id']}")["status"] == "Active"
    for method, path in (("GET", f"/v1/projects/{project}"), ("DELETE", f"/v1/projects/{project}"), ("GET", done)):
        envelope(client.http.request(method, path), 404, "object_not_found")
    asked = client.http.post("/v1/completions", json={"model": "goes-with-its-project", "prompt": "Hello"})
    envelope(asked, 404, "object_not_found")


def test_cancelled_job_is_deleted_once_its_run_has_ended(client: Client, platform: Platform, empty: str) -> None:
    path = start(client, empty, 100)
    until(lambda: checkpoints(client, path), bool)
    flow_run = client.get(path)["flow_run_id"]
    client.post(f"{path}/cancel")
    client.delete(path)
    assert run_state(platform, flow_run) == "CANCELLED"
    assert files_of(path.rpartition("/")[2]) == []
    envelope(client.http.get(path), 404, "object_not_found")


def test_deletion_that_broke_off_is_completed(client: Client, empty: str) -> None:
    dataset = upload(client, empty, ROWS)
    in_catalogue(lambda session: projects.delete(session, empty, set()))
    assert files_of(dataset)

    async def go_on() -> None:
        await deleting.clear_settled(timedelta(0))
        await dispose()

    asyncio.run(go_on())
    assert files_of(dataset) == []
    assert rows_of(empty, []) == {}


def test_parts_of_a_file_go_with_their_project(client: Client, empty: str) -> None:
    body = {"file_name": "large.jsonl", "bytes": len(jsonl(ROWS))}
    begun = client.post(f"/v1/projects/{empty}/datasets/uploads", body)
    sent = httpx.put(begun["parts"][0]["url"], content=jsonl(ROWS), trust_env=False)
    assert sent.is_success, sent.text
    parts = Path(os.environ["EMISSARY_HOME"]) / "artifacts" / ".arriving"
    before = {path for path in parts.rglob("*") if path.is_file()}
    client.delete(f"/v1/projects/{empty}")
    assert len(before - {path for path in parts.rglob("*") if path.is_file()}) == 1
    envelope(client.http.get(f"/v1/projects/{empty}/datasets/uploads/{begun['id']}"), 404, "object_not_found")


def test_two_deletions_at_once_are_one(client: Client, empty: str) -> None:
    upload(client, empty, ROWS)
    with ThreadPoolExecutor(2) as pool:
        answers = pool.map(lambda _: client.http.delete(f"/v1/projects/{empty}").status_code, range(2))
    assert sorted(answers) in ([204, 204], [204, 404])


def test_project_of_another_organization_cannot_be_deleted(client: Client, platform: Platform, empty: str) -> None:
    _, key = in_catalogue(lambda session: users.create_key(session, "eve", "test", role="admin", organization="others"))
    with refused(client, empty, empty, status=404):
        Client(platform.api_url, key).delete(f"/v1/projects/{empty}")
