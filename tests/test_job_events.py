"""A training job scored by a function of its organization's own; what its events and its log tell."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from emissary.api.routes import training_job_events
from emissary.client import ApiError, Client
from emissary.ids import new_id
from emissary.settings import PROJECT_ROOT, settings
from emissary.store import job_events
from emissary.store.database import dispose, transaction
from emissary.store.tables import TrainingJob
from emissary.up import Platform
from tests.conftest import free_port
from tests.jobs import ROWS, TINY, ended, until, upload

MODEL = "SmolLM2-135M-Instruct"
FUNCTION = """import humanize

def words(input_text, expected_output, predicted_output):
    return float(len(humanize.intword(1_200_000)))
"""


@pytest.fixture(scope="module")
def project(client: Client) -> str:
    return str(client.post("/v1/projects", {"name": "events"})["id"])


def read_stream(platform: Platform, path: str, headers: dict[str, str], into: list[str]) -> None:
    headers = {"X-API-Key": platform.api_key, "Accept": "text/event-stream"} | headers
    url = f"{platform.api_url}{path}/events"
    with httpx.stream("GET", url, headers=headers, timeout=300, trust_env=False) as stream:
        assert stream.status_code == 200
        assert stream.headers["content-type"].startswith("text/event-stream")
        into.extend(stream.iter_lines())


def told(lines: list[str]) -> list[dict[str, Any]]:
    """The events of a stream's lines, each checked to be told under its id and kind."""
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert [f"id: {event['id']}" for event in events] == [line for line in lines if line.startswith("id: ")]
    assert [f"event: {event['kind']}" for event in events] == [line for line in lines if line.startswith("event: ")]
    return events


@pytest.fixture(scope="module")
def streamed() -> list[str]:
    """Lines of the event stream that was open while `job` ran."""
    return []


@pytest.fixture(scope="module")
def job(client: Client, platform: Platform, project: str, streamed: list[str]) -> str:
    """Path of a finished job of two epochs that an own function with a dependency scored."""
    function = {"name": "words", "content": FUNCTION, "dependencies": ["humanize"]}
    client.post("/v1/testing-functions", function)
    body = {
        "base_model": MODEL,
        "train_dataset_id": upload(client, project, ROWS),
        "test_dataset_id": upload(client, project, ROWS[:3], "colours-test"),
        "test_functions": ["words", "exact_match_shared"],
        "parameters": TINY,
    }
    path = f"/v1/projects/{project}/training-jobs"
    path = f"{path}/{client.post(path, body)['id']}"
    reader = threading.Thread(target=read_stream, args=(platform, path, {}, streamed))
    reader.start()
    for method in ("PUT", "DELETE"):
        response = client.http.request(method, "/v1/testing-functions/words", json=function)
        assert (response.status_code, response.json()["code"]) == (400, "in_use")
        assert path.rpartition("/")[2] in response.json()["error"]
    found = until(lambda: client.get(path), ended)
    assert found["status"] == "Success", found["error"]
    reader.join(30)
    assert not reader.is_alive(), "the stream goes on after the job has ended"
    return path


def test_own_function_scores_and_can_be_deleted_once_the_job_has_ended(client: Client, job: str) -> None:
    for checkpoint in client.get(f"{job}/checkpoints"):
        assert checkpoint["test_results"]["aggregated_test_result"]["words"] == "11"  # 1.2 million
    client.call("DELETE", "/v1/testing-functions/words")
    assert client.get(f"{job}/checkpoints")[0]["test_results"]


def test_events_tell_what_happened_in_order(client: Client, job: str) -> None:
    events = client.get(f"{job}/events")
    best = client.get(job)["best_checkpoint"]
    assert [(event["kind"], event["details"].get("epoch", event["details"].get("checkpoint"))) for event in events] == [
        ("queued", None),
        ("started", None),
        ("warning", None),
        ("epoch", 1),
        ("checkpoint", 1),
        ("epoch", 2),
        ("checkpoint", 2),
        ("trained", None),
        ("testing", None),
        ("tested", 1),
        ("tested", 2),
        ("best", best),
        ("succeeded", None),
    ]
    ids = [event["id"] for event in events]
    assert ids == sorted(set(ids))
    assert events[2]["details"]["leaked_rows"] == 3
    assert events[3]["details"]["train_loss"] > 0
    assert events[9]["details"]["scores"]["words"] == 11.0
    assert events[9]["details"]["metrics"] == client.get(f"{job}/checkpoints")[0]["test_results"]["metrics"]
    page = client.http.get(f"{job}/events?limit=2&after={ids[1]}")
    assert page.json() == events[2:4]
    assert f"after={ids[3]}" in page.headers["link"]


def test_stream_tells_the_same_and_goes_on_behind_the_last_event_id(
    client: Client, platform: Platform, job: str, streamed: list[str]
) -> None:
    events = client.get(f"{job}/events")
    assert told(streamed) == events
    rest: list[str] = []
    read_stream(platform, job, {"Last-Event-ID": str(events[-3]["id"])}, rest)
    assert told(rest) == events[-2:]
    headers = {"Accept": "text/event-stream", "Last-Event-ID": "yesterday"}
    response = client.http.get(f"{job}/events", headers=headers)
    assert (response.status_code, response.json()["code"]) == (400, "invalid_input")


def test_log_is_read_whole_in_pages_and_as_text(client: Client, job: str) -> None:
    def complete() -> Any:
        return client.get(f"{job}/logs")  # a run's last lines come after its state

    lines = until(complete, lambda lines: any("checkpoint 2: words 11" in line["message"] for line in lines), 30)
    assert [line["timestamp"] for line in lines] == sorted(line["timestamp"] for line in lines)
    assert {line["level"] for line in lines} <= {"DEBUG", "INFO", "WARNING", "ERROR"}
    page = client.http.get(f"{job}/logs?limit=2&after=1")
    assert page.json() == lines[1:3]
    assert "after=3" in page.headers["link"]
    text = client.http.get(f"{job}/logs?limit=2&after=1", headers={"Accept": "text/plain"})
    assert text.headers["content-type"].startswith("text/plain")
    assert [line.partition("Z ")[2] for line in text.text.splitlines()] == [
        f"{line['level']} {line['message']}" for line in lines[1:3]
    ]
    assert "after=3" in text.headers["link"]


@pytest.fixture
def lonely_api(platform: Platform) -> Iterator[str]:
    """Address of an API of the same catalogue for which no Prefect server answers."""
    port = free_port()
    environment = os.environ | {"PREFECT_API_URL": f"http://127.0.0.1:{free_port()}/api"}
    database = str(settings().database_url)
    command = [sys.executable, "-m", "uvicorn", "emissary.api.app:create_app", "--factory", "--port", str(port)]
    process = subprocess.Popen(command, cwd=PROJECT_ROOT, env=environment | {"EMISSARY_DATABASE_URL": database})
    try:
        address = f"http://127.0.0.1:{port}"
        until(lambda: answers(address), bool, 120)
        yield address
    finally:
        process.kill()
        process.wait()


def answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/v1/models", trust_env=False).status_code == 401
    except httpx.TransportError:
        return False


def test_without_prefect_the_log_is_unavailable_and_the_events_are_there(
    platform: Platform, client: Client, job: str, lonely_api: str
) -> None:
    lonely = Client(lonely_api, platform.api_key)
    response = lonely.http.get(f"{job}/logs")
    assert (response.status_code, response.json()["code"]) == (503, "unavailable")
    assert "Prefect" in response.json()["error"]
    assert lonely.get(f"{job}/events") == client.get(f"{job}/events")


def test_stream_of_a_job_that_waits_is_told_of_its_cancelling(client: Client, platform: Platform, project: str) -> None:
    body = {
        "base_model": MODEL,
        "train_dataset_id": upload(client, project, ROWS),
        "parameters": TINY | {"num_train_epochs": 100},
    }
    path = f"/v1/projects/{project}/training-jobs"
    path = f"{path}/{client.post(path, body)['id']}"
    until(lambda: [event["kind"] for event in client.get(f"{path}/events")], lambda kinds: "epoch" in kinds)
    lines: list[str] = []
    reader = threading.Thread(target=read_stream, args=(platform, path, {}, lines))
    reader.start()
    client.post(f"{path}/cancel")
    reader.join(30)
    assert not reader.is_alive()
    assert told(lines)[-1]["kind"] == "cancelled"
    assert told(lines) == client.get(f"{path}/events")
    record(path.rpartition("/")[2], "epoch", {"epoch": 99})  # the run's process takes seconds to end
    assert told(lines) == client.get(f"{path}/events")
    client.call("DELETE", path)
    with pytest.raises(ApiError) as gone:
        client.get(f"{path}/events")
    assert gone.value.status == 404


def record(job_id: str, kind: Any, key: dict[str, Any], at_once: int = 1) -> None:
    async def one() -> None:
        async with transaction() as session:
            await job_events.record(session, job_id, kind, key)

    async def run() -> None:
        await asyncio.gather(*(one() for _ in range(at_once)))
        await dispose()

    asyncio.run(run())


@pytest.fixture
def idle_job(client: Client, project: str, job: str) -> Iterator[str]:
    """Path of a job that nothing runs."""

    async def copy() -> str:
        async with transaction() as session:
            row = await session.get_one(TrainingJob, job.rpartition("/")[2])
            values = {column.name: getattr(row, column.name) for column in TrainingJob.__table__.columns}
            idle = TrainingJob(**values | {"id": new_id("tr"), "flow_run_id": None, "status": "Running"})
            session.add(idle)
        await dispose()
        return idle.id

    path = f"/v1/projects/{project}/training-jobs/{asyncio.run(copy())}"
    yield path
    client.post(f"{path}/cancel")


def test_an_event_is_recorded_once_also_by_many_at_once(client: Client, idle_job: str) -> None:
    job_id = idle_job.rpartition("/")[2]
    record(job_id, "epoch", {"epoch": 1}, at_once=8)
    record(job_id, "epoch", {"epoch": 2}, at_once=8)
    record("tr-nobody", "epoch", {"epoch": 1})
    found = client.get(f"{idle_job}/events")
    assert [event["details"] for event in found] == [{"epoch": 1}, {"epoch": 2}]


def test_a_lost_notification_makes_a_stream_late_not_wrong(idle_job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_job_events, "HEARTBEAT_SECONDS", 0.2)
    job_id = idle_job.rpartition("/")[2]

    async def read() -> list[str]:
        # Nothing listens to the database in this process.
        stream = training_job_events.stream(job_id, 0)
        said = [await anext(stream)]
        async with transaction() as session:
            await job_events.record(session, job_id, "epoch", {"epoch": 1})
        said.append(await anext(stream))
        await stream.aclose()
        await dispose()
        return said

    heartbeat, event = asyncio.run(read())
    assert heartbeat == ": nothing new\n\n"
    assert "event: epoch\n" in event
