"""Idempotency-Key: what is sent twice is created once, for a day, whatever happens meanwhile."""

import asyncio
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from emissary.api.app import create_app
from emissary.client import Client
from emissary.settings import settings
from emissary.store.database import dispose, transaction
from emissary.up import Platform
from tests.api.refusals import GOOD, MODEL, envelope
from tests.conftest import free_port
from tests.engine_life import closed
from tests.jobs import until
from tests.keys import make_key
from tests.web_server import ADDRESS


@pytest.fixture(scope="module")
def mine(platform: Platform) -> Client:
    """A client of an organization that has nothing yet."""
    return Client(platform.api_url, make_key("idempotency"))


def send(client: Client, key: str, path: str = "/v1/projects", **arguments: Any) -> httpx.Response:
    return client.http.post(path, headers={"Idempotency-Key": key}, **arguments)


def new_key() -> str:
    return uuid.uuid4().hex


def projects_named(client: Client, name: str) -> list[str]:
    return [row["id"] for row in client.get("/v1/projects") if row["name"] == name]


def test_same_key_and_body_give_the_first_answer_again(mine: Client) -> None:
    key = new_key()
    first = send(mine, key, json={"name": "once"})
    again = send(mine, key, json={"name": "once"})
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert projects_named(mine, "once") == [first.json()["id"]]


def test_same_key_with_another_body_or_path_is_a_conflict(mine: Client) -> None:
    key = new_key()
    assert send(mine, key, json={"name": "taken"}).status_code == 201
    envelope(send(mine, key, json={"name": "other"}), 409, "conflict")
    envelope(send(mine, key, "/v1/engines", json={"name": "taken"}), 409, "conflict")
    assert projects_named(mine, "other") == []


def test_eight_at_once_create_one(mine: Client) -> None:
    key = new_key()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: send(mine, key, json={"name": "at-once"}), range(8)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("Idempotent-Replayed" not in answer.headers for answer in answers) == 1
    assert len(projects_named(mine, "at-once")) == 1


def test_refusal_is_not_kept(mine: Client) -> None:
    key = new_key()
    envelope(send(mine, key, json={"name": "a/b"}), 400, "invalid_input")
    assert send(mine, key, json={"name": "good"}).status_code == 201


@pytest.mark.parametrize("key", ["", "x" * 256, "\x07", "caf\xe9\x85"])
def test_key_that_is_none_is_refused(mine: Client, key: str) -> None:
    response = mine.http.post("/v1/projects", json={}, headers={"Idempotency-Key": key.encode("latin-1")})
    assert response.status_code == 400


def test_organizations_do_not_share_keys(platform: Platform, mine: Client) -> None:
    other, key = Client(platform.api_url, make_key("idempotency-2")), new_key()
    first, second = send(mine, key, json={"name": "shared"}), send(other, key, json={"name": "shared"})
    assert second.status_code == 201
    assert first.json()["id"] != second.json()["id"]
    assert "Idempotent-Replayed" not in second.headers


def test_upload_is_told_by_its_content(mine: Client) -> None:
    project, key = mine.post("/v1/projects")["id"], new_key()
    path = f"/v1/projects/{project}/datasets"
    answers = [send(mine, key, path, files={"file": ("rows.jsonl", GOOD)}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()
    envelope(send(mine, key, path, files={"file": ("rows.jsonl", GOOD * 2)}), 409, "conflict")
    envelope(send(mine, key, path, files={"file": ("rows.jsonl", GOOD)}, data={"name": "b"}), 409, "conflict")
    assert len(mine.get(path)) == 1


def test_job_is_created_and_run_once(mine: Client) -> None:
    project, key = mine.post("/v1/projects")["id"], new_key()
    dataset = mine.call("POST", f"/v1/projects/{project}/datasets", files={"file": ("rows.jsonl", GOOD)})["id"]
    path = f"/v1/projects/{project}/training-jobs"
    body = {"base_model": MODEL, "train_dataset_id": dataset}
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: send(mine, key, path, json=body).json()["id"], range(4)))
    assert len(set(answers)) == 1
    (job,) = mine.get(path)
    mine.post(f"{path}/{job['id']}/cancel")


def test_key_is_free_again_after_a_day(mine: Client) -> None:
    key = new_key()
    first = send(mine, key, json={"name": "daily"}).json()

    async def age(hours: str) -> None:
        async with transaction() as session:
            query = "UPDATE idempotent_answers SET created_at = created_at - CAST(:age AS interval) WHERE key = :key"
            await session.execute(text(query), {"age": hours, "key": key})
        await dispose()

    asyncio.run(age("23 hours 59 minutes"))
    assert send(mine, key, json={"name": "daily"}).json() == first
    asyncio.run(age("2 minutes"))
    assert send(mine, key, json={"name": "daily"}).json() != first


@contextmanager
def second_api(platform: Platform) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Another API process on the same database; its URL."""
    port = str(free_port())
    environment = os.environ | {
        "EMISSARY_DATABASE_URL": str(settings().database_url),
        "PREFECT_API_URL": f"{platform.prefect_url}/api",
    }
    command = [sys.executable, "-m", "uvicorn", "emissary.api.app:create_app", "--factory", "--port", port]
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return httpx.get(f"{url}/openapi.json", trust_env=False).is_success
        except httpx.TransportError:
            return False

    with subprocess.Popen([*command, "--log-level", "error"], env=environment) as process:
        try:
            until(answers, bool)
            yield url, process
        finally:
            process.terminate()


def test_answer_outlives_the_process_that_gave_it(platform: Platform, mine: Client) -> None:
    key = new_key()
    with second_api(platform) as (url, process):
        first = send(Client(url, mine.http.headers["X-API-Key"]), key, json={"name": "outlived"})
        process.kill()
    again = send(mine, key, json={"name": "outlived"})
    assert again.json() == first.json()
    assert again.headers["Idempotent-Replayed"] == "true"


def test_process_killed_in_the_midst_leaves_all_or_nothing(platform: Platform, mine: Client) -> None:
    keys = [new_key() for _ in range(24)]
    with second_api(platform) as (url, process), ThreadPoolExecutor(8) as pool:
        doomed = Client(url, mine.http.headers["X-API-Key"])

        def attempt(number: int) -> str | None:
            if number == 12:
                process.kill()
            try:
                return str(send(doomed, keys[number], json={"name": f"killed-{number}"}).json()["id"])
            except httpx.TransportError:
                return None

        answered = list(pool.map(attempt, range(24)))
    assert None in answered
    for number, (key, before) in enumerate(zip(keys, answered, strict=True)):
        after = send(mine, key, json={"name": f"killed-{number}"}).json()["id"]
        assert before in (None, after)
        assert projects_named(mine, f"killed-{number}") == [after]


CREATING = [
    definition["operationId"]
    for item in create_app().openapi()["paths"].values()
    for definition in item.values()
    if "201" in definition["responses"]
]
SHOWN_ONCE = {
    "createKey": {"key": None},
    "createWebhook": {"secret": None},
    "rotateWebhookById": {"secret": None},
    "createSubscription": {"secret": None},
    "rotateSubscriptionById": {"secret": None},
}
FUNCTION = "def scored(input_text, expected_output, predicted_output):\n    return 1.0\n"


def creations(mine: Client) -> dict[str, tuple[str, dict[str, Any], dict[str, Any]]]:
    """Operation → its path, a request that is right, and another one."""
    project = str(mine.post("/v1/projects", {"name": "everywhere"})["id"])
    inside = f"/v1/projects/{project}"
    dataset = mine.call("POST", f"{inside}/datasets", files={"file": ("rows.jsonl", GOOD)})["id"]
    begun = mine.post(f"{inside}/datasets/uploads", {"file_name": "b.jsonl", "bytes": len(GOOD)})
    assert httpx.put(begun["parts"][0]["url"], content=GOOD, trust_env=False).status_code == 204
    management = {"management_type": "schedule", "management_config": closed()}
    engine = mine.post("/v1/engines", {"base_model": MODEL, "resource_management_config": management})["id"]
    job = {"base_model": MODEL, "train_dataset_id": dataset}
    rewarded = job | {"test_functions": ["exact_match_shared"], "reward": {"exact_match_shared": 1}}
    base = {"checkpoint": 0, "name": "everywhere"}
    colours = {"file": ("two.jsonl", GOOD + GOOD.replace(b"red", b"blue"))}
    two = mine.call("POST", f"{inside}/datasets", files=colours)["id"]
    trained = {"base_model": MODEL, "test_functions": ["exact_match_shared"]}
    data = {"gather": {"datasets": [two]}, "train_test_split_ratio": 50}
    pipeline = {"name": "everywhere", "train": trained} | data
    running = mine.post(f"{inside}/pipelines", pipeline | {"name": "running"})["id"]
    hooks = f"{inside}/pipelines/{running}/webhooks"
    told = {"name": "everywhere", "url": f"http://{ADDRESS}:9/hook", "events": ["training_job.failed"]}
    subscriptions = f"{inside}/subscriptions"
    subscribed = mine.post(subscriptions, told | {"name": "subscribed"})["id"]
    bodies: dict[str, tuple[str, dict[str, Any]]] = {
        "createProject": ("/v1/projects", {"name": "a"}),
        "createUpload": (f"{inside}/datasets/uploads", {"file_name": "a.jsonl", "bytes": 5}),
        "completeUpload": (f"{inside}/datasets/uploads/{begun['id']}/complete", {}),
        "createTrainingJob": (f"{inside}/training-jobs", job),
        "createGRPOTrainingJob": (f"{inside}/training-jobs/grpo", rewarded),
        "createEngine": ("/v1/engines", {"base_model": MODEL, "resource_management_config": management}),
        "deployOnEngine": (f"/v1/engines/{engine}/deploy", base | {"project_id": project, "training_id": MODEL}),
        "createDeployment": (
            f"{inside}/deployments",
            base | {"training_job_id": MODEL, "schedule": closed(), "name": "e2"},
        ),
        "createPipeline": (f"{inside}/pipelines", pipeline),
        "createPipelineRun": (f"{inside}/pipelines/{running}/runs", {}),
        "createWebhook": (hooks, {"name": "everywhere"}),
        "rotateWebhookById": (f"{hooks}/{mine.post(hooks, {'name': 'rotated'})['id']}/rotate", {}),
        "createSubscription": (subscriptions, told),
        "rotateSubscriptionById": (f"{subscriptions}/{subscribed}/rotate", {}),
        "testSubscriptionById": (f"{subscriptions}/{subscribed}/test", {}),
        "createKey": ("/v1/keys", {"name": "everywhere"}),
        "createTestFunction": ("/v1/testing-functions", {"name": "scored", "content": FUNCTION}),
    }
    made = {name: (path, {"json": body}, {"json": body | {"more": 1}}) for name, (path, body) in bodies.items()}
    file = {"files": {"file": ("rows.jsonl", GOOD)}}
    return made | {"createDataset": (f"{inside}/datasets", file, file | {"data": {"name": "b"}})}


@dataclass
class Answered:
    """What an operation answered to one request: twice at once, after a process of the API was killed, and changed."""

    at_once: list[httpx.Response]
    later: httpx.Response
    changed: httpx.Response


@pytest.fixture(scope="module")
def everywhere(platform: Platform) -> Iterator[dict[str, Answered]]:
    """Operation → its answers; two at once go to two processes of the API."""
    mine = Client(platform.api_url, make_key("idempotency-everywhere"))
    wanted = creations(mine)
    keys, at_once = {name: new_key() for name in wanted}, {}
    with second_api(platform) as (url, process), ThreadPoolExecutor(2) as pool:
        both = (mine, Client(url, mine.http.headers["X-API-Key"]))
        for name, (path, request, _) in wanted.items():
            at_once[name] = list(pool.map(lambda one: send(one, keys[name], path, **request), both))  # noqa: B023
        process.kill()
    answers = {}
    for name, (path, request, changed) in wanted.items():
        later = send(mine, keys[name], path, **request)
        answers[name] = Answered(at_once[name], later, send(mine, keys[name], path, **changed))
    yield answers
    for project in mine.get("/v1/projects"):
        mine.delete(f"/v1/projects/{project['id']}")
    for engine in mine.get("/v1/engines"):
        mine.delete(f"/v1/engines/{engine['id']}")


@pytest.mark.parametrize("operation_id", CREATING)
def test_every_operation_that_creates_does_it_once(everywhere: dict[str, Answered], operation_id: str) -> None:
    answered = everywhere[operation_id]
    assert [answer.status_code for answer in answered.at_once] == [201, 201], answered.at_once[0].text
    first = [answer for answer in answered.at_once if "Idempotent-Replayed" not in answer.headers]
    assert len(first) == 1
    once = SHOWN_ONCE.get(operation_id, {})
    for answer in (*answered.at_once, answered.later):
        assert answer.json() | once == first[0].json() | once
    assert answered.later.headers["Idempotent-Replayed"] == "true"
    envelope(answered.changed, 409, "conflict")
