"""Every transition of an engine and its deployments, with the real processes; the tests build on one another."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psutil
import pytest
from openai import OpenAI

from emissary.client import ApiError, Client
from emissary.settings import PROJECT_ROOT
from emissary.up import Platform
from tests.api.refusals import envelope
from tests.conftest import free_port
from tests.engine_life import CHAT, LONG_ENOUGH, MODEL, adapters, prefect, process_of, row, runs_of, until_status
from tests.jobs import ROWS, TINY, until, upload

# Engines are started a dozen times.
pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def project(client: Client) -> str:
    return str(client.post("/v1/projects", {"name": "engine-life"})["id"])


@pytest.fixture(scope="module")
def job(client: Client, project: str) -> str:
    """A finished job called `life` with one checkpoint."""
    dataset = upload(client, project, ROWS)
    body = {"name": "life", "base_model": MODEL, "train_dataset_id": dataset} | {
        "parameters": TINY | {"num_train_epochs": 1}
    }
    path = f"/v1/projects/{project}/training-jobs"
    made = client.post(path, body)
    until_status(client, f"{path}/{made['id']}", "Success")
    return str(made["id"])


@pytest.fixture(scope="module")
def engine(client: Client) -> str:
    """An engine that is ended after another time than by default, so that no other test's deployment goes there."""
    config = {"management_type": "inactive_timeout", "management_config": {"inactive_duration": 3601}}
    made = client.post("/v1/engines", {"name": "life", "base_model": MODEL, "resource_management_config": config})
    assert made["status"] == "Creating"
    return str(made["id"])


@pytest.fixture(scope="module")
def impatient(platform: Platform) -> Iterator[httpx.Client]:
    """A second API process, which holds requests for a second only."""
    port = str(free_port())
    command = [sys.executable, "-m", "uvicorn", "emissary.api.app:create_app", "--factory", "--port", port]
    address = prefect_database(platform)
    environment = os.environ | address | {"EMISSARY_COLD_START_HOLD": "1", "EMISSARY_PORT": port}
    process = subprocess.Popen([*command, "--log-level", "warning"], cwd=PROJECT_ROOT, env=environment)
    with httpx.Client(
        base_url=f"http://127.0.0.1:{port}", headers={"X-API-Key": platform.api_key}, trust_env=False, timeout=60
    ) as http:

        def up() -> bool:
            try:
                return http.get("/v1/models").is_success
            except httpx.TransportError:
                return False

        until(up, bool)
        yield http
    process.terminate()
    process.wait(30)


def prefect_database(platform: Platform) -> dict[str, str]:
    from emissary.settings import settings

    return {"EMISSARY_DATABASE_URL": str(settings().database_url), "PREFECT_API_URL": f"{platform.prefect_url}/api"}


def deployments(client: Client, project: str) -> dict[str, dict[str, Any]]:
    return {found["name"]: found for found in client.get(f"/v1/projects/{project}/deployments")}


def refused(client: Client, path: str, body: dict[str, Any] | None = None) -> ApiError:
    with pytest.raises(ApiError) as raised:
        client.post(path, body)
    assert raised.value.status == 400
    return raised.value


def test_engine_is_creating_then_active(client: Client, engine: str) -> None:
    assert until_status(client, f"/v1/engines/{engine}", "Active")["deployments"] == []


def test_deploying_loads_the_adapter_under_the_jobs_name(client: Client, project: str, job: str, engine: str) -> None:
    body = {"project_id": project, "training_id": job, "checkpoint": 1}
    made = client.post(f"/v1/engines/{engine}/deploy", body)
    assert (made["name"], made["status"]) == ("life-checkpoint-1", "Pending")
    until_status(client, f"/v1/projects/{project}/deployments/{made['id']}", "Deployed")
    assert adapters(engine) == [made["id"]]
    assert client.post("/v1/chat/completions", CHAT | {"model": "life-checkpoint-1"})["choices"]
    refused(client, f"/v1/engines/{engine}/deploy", body)


def test_undeploying_unloads_the_adapter_and_frees_the_name(
    client: Client, project: str, job: str, engine: str
) -> None:
    path = f"/v1/engines/{engine}/undeploy"
    client.post(path, {"deployment_name": "life-checkpoint-1"})
    assert deployments(client, project)["life-checkpoint-1"]["status"] == "Terminated"
    assert adapters(engine) == []
    with pytest.raises(ApiError, match="life-checkpoint-1") as error:
        client.post("/v1/chat/completions", CHAT | {"model": "life-checkpoint-1"})
    assert error.value.status == 404
    refused(client, path, {"deployment_name": "life-checkpoint-1"})
    body = {"training_job_id": job, "checkpoint": 1, "inactive_timeout": 3601}
    again = client.post(f"/v1/projects/{project}/deployments", body)
    detail = until_status(client, f"/v1/projects/{project}/deployments/{again['id']}", "Deployed")
    assert detail["engine_id"] == engine
    assert adapters(engine) == [again["id"]]


def test_what_runs_cannot_be_reactivated(client: Client, project: str, engine: str) -> None:
    (live,) = client.get(f"/v1/engines/{engine}")["deployments"]
    assert "Active" in str(refused(client, f"/v1/engines/{engine}/reactivate"))
    assert "Deployed" in str(refused(client, f"/v1/projects/{project}/deployments/{live['id']}/reactivate"))


def test_run_of_an_engine_that_runs_already_ends_at_once(platform: Platform, client: Client, engine: str) -> None:
    before = row(engine)
    with prefect(platform) as http:
        flow_deployment = http.get("/deployments/name/serve_engine/serve_engine").json()
        body = {"parameters": {"engine_id": engine}}
        run = http.post(f"/deployments/{flow_deployment['id']}/create_flow_run", json=body).json()
        state = until(lambda: http.get(f"/flow_runs/{run['id']}").json()["state"], lambda s: s["type"] == "COMPLETED")
    assert state["name"] == "Completed"
    assert row(engine) == before
    assert client.get(f"/v1/engines/{engine}")["status"] == "Active"


def test_deactivating_ends_the_run_and_deactivates_the_deployments(
    platform: Platform, client: Client, engine: str
) -> None:
    _, flow_run = row(engine)
    client.post(f"/v1/engines/{engine}/deactivate")
    found = client.get(f"/v1/engines/{engine}")
    assert (found["status"], [one["status"] for one in found["deployments"]]) == ("Inactive", ["Deactivated"])
    assert "Inactive" in str(refused(client, f"/v1/engines/{engine}/deactivate"))
    with prefect(platform) as http:
        until(lambda: http.get(f"/flow_runs/{flow_run}").json()["state"]["type"], lambda state: state == "CANCELLED")


def chat(http: httpx.Client, *, stream: bool) -> httpx.Response:
    return http.post("/v1/chat/completions", json=CHAT | {"model": "life-checkpoint-1", "stream": stream})


def test_a_hundred_held_requests_start_one_engine(
    platform: Platform, client: Client, engine: str, impatient: httpx.Client
) -> None:
    before = len(runs_of(platform, engine))
    with (
        httpx.Client(
            base_url=platform.api_url,
            headers={"X-API-Key": platform.api_key},
            timeout=LONG_ENOUGH,
            trust_env=False,
            limits=httpx.Limits(max_connections=100),
        ) as http,
        ThreadPoolExecutor(100) as threads,
    ):
        held = [threads.submit(chat, http, stream=number < 5) for number in range(100)]
        soon = chat(impatient, stream=False)
        answers = [one.result() for one in held]
    envelope(soon, 503, "unavailable")
    assert 1 <= int(soon.headers["retry-after"]) <= 300
    assert {answer.status_code for answer in answers} == {200}
    for streamed in answers[:5]:
        assert streamed.headers["content-type"].startswith("text/event-stream")
        assert streamed.text.endswith("data: [DONE]\n\n")
    assert len(runs_of(platform, engine)) == before + 1
    (live,) = client.get(f"/v1/engines/{engine}")["deployments"]
    assert live["status"] == "Deployed"


def test_engine_that_dies_ends_its_streams_with_503_and_comes_back_to_answer_the_others(
    platform: Platform, client: Client, engine: str
) -> None:
    long = CHAT | {"model": "life-checkpoint-1", "max_tokens": 400, "stop": None, "temperature": 1}
    _, flow_run = row(engine)
    assert flow_run is not None
    started = row(engine)
    process = process_of(platform, flow_run)
    with ThreadPoolExecutor(2) as threads:
        whole = threads.submit(client.http.post, "/v1/completions", json=long | {"prompt": "One, two, "})
        with client.http.stream("POST", "/v1/chat/completions", json=long | {"stream": True}) as streamed:
            lines = streamed.iter_lines()
            next(lines)
            os.kill(process, signal.SIGKILL)
            last = [line for line in lines if line][-1]
        answer = whole.result()
    assert answer.status_code == 200, answer.text
    assert '"status": 503' in last
    assert '"code": "unavailable"' in last
    assert client.post("/v1/chat/completions", CHAT | {"model": "life-checkpoint-1"})["choices"]
    now = row(engine)
    assert now[1] == started[1]  # the same flow run, rescheduled
    assert now[0] != started[0]


def test_engine_whose_process_gets_sigterm_is_started_again(platform: Platform, client: Client, engine: str) -> None:
    endpoint, flow_run = row(engine)
    assert flow_run is not None
    os.kill(process_of(platform, flow_run), signal.SIGTERM)
    until(lambda: row(engine)[0], lambda now: now not in (None, endpoint), LONG_ENOUGH)
    assert client.post("/v1/chat/completions", CHAT | {"model": "life-checkpoint-1"})["choices"]


def test_deployment_on_an_engine_that_has_ended_starts_it(client: Client, project: str, engine: str) -> None:
    until_status(client, f"/v1/engines/{engine}", "Active")
    client.post(f"/v1/engines/{engine}/deactivate")
    body = {"training_job_id": MODEL, "checkpoint": 0, "inactive_timeout": 3601}
    made = client.post(f"/v1/projects/{project}/deployments", body)
    statuses = {found["name"]: found["status"] for found in client.get(f"/v1/engines/{engine}")["deployments"]}
    assert statuses == {f"{MODEL}-base": "Pending", "life-checkpoint-1": "Reactivating"}
    refused(client, f"/v1/engines/{engine}/reactivate")
    (live,) = (one["id"] for one in client.get(f"/v1/engines/{engine}")["deployments"] if one["name"] != made["name"])
    assert "Reactivating" in str(refused(client, f"/v1/projects/{project}/deployments/{live}/reactivate"))
    until_status(client, f"/v1/projects/{project}/deployments/{made['id']}", "Deployed")
    assert client.post("/v1/chat/completions", CHAT | {"model": "life-checkpoint-1"})["choices"]
    client.call("DELETE", f"/v1/projects/{project}/deployments/{live}")
    assert adapters(engine) == []


def test_openais_client_waits_as_it_is_told_while_the_engine_starts(
    platform: Platform, client: Client, engine: str, impatient: httpx.Client
) -> None:
    until_status(client, f"/v1/engines/{engine}", "Active")
    client.post(f"/v1/engines/{engine}/deactivate")
    said: list[str] = []
    told = httpx.Client(event_hooks={"response": [lambda answer: said.append(answer.headers.get("retry-after", ""))]})
    ai = OpenAI(base_url=f"{impatient.base_url}/v1", api_key=platform.api_key, http_client=told, max_retries=20)
    answer = ai.chat.completions.create(model=f"{MODEL}-base", messages=[{"role": "user", "content": "Say red."}])
    assert answer.choices
    *before, last = said
    assert before
    assert all(1 <= int(seconds) <= 60 for seconds in before)
    assert last == ""


def test_deleting_an_engine_ends_its_run_and_its_deployments(
    platform: Platform, client: Client, project: str, engine: str
) -> None:
    _, flow_run = row(engine)
    process = process_of(platform, str(flow_run))
    client.call("DELETE", f"/v1/engines/{engine}")
    with pytest.raises(ApiError) as error:
        client.get(f"/v1/engines/{engine}")
    assert error.value.status == 404
    assert deployments(client, project) == {}
    with prefect(platform) as http:
        until(lambda: http.get(f"/flow_runs/{flow_run}").json()["state"]["type"], lambda state: state == "CANCELLED")
    until(lambda: psutil.pid_exists(process), lambda alive: not alive)
