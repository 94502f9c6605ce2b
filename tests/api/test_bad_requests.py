"""Projects, engines, deployments and chats that are refused, and that nothing is left behind."""

from typing import Any

import pytest

from emissary.client import Client
from tests.api.refusals import MODEL, bad_name, refused


@bad_name
def test_bad_name_of_a_project_is_refused(client: Client, project: str, name: str) -> None:
    with refused(client, project, "name"):
        client.post("/v1/projects", {"name": name})


@bad_name
def test_bad_name_of_a_deployment_and_of_an_engine_is_refused(client: Client, project: str, name: str) -> None:
    with refused(client, project, "name"):
        body = {"training_job_id": MODEL, "checkpoint": 0, "name": name}
        client.post(f"/v1/projects/{project}/deployments", body)
    with refused(client, project, "name"):
        client.post("/v1/engines", {"base_model": MODEL, "name": name})


DEPLOYMENTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown job": ({"training_job_id": "tr-unknown"}, ["training_job_id", "tr-unknown"]),
    "job with NUL": ({"training_job_id": "tr-\x00"}, ["training_job_id"]),
    "unknown checkpoint": ({"checkpoint": 7}, ["checkpoint", "7"]),
    "huge checkpoint": ({"checkpoint": 10**30}, ["checkpoint"]),
    "checkpoint below 0": ({"checkpoint": -1}, ["checkpoint"]),
    "checkpoint as text": ({"checkpoint": "1"}, ["checkpoint"]),
    "checkpoint true": ({"checkpoint": True}, ["checkpoint"]),
    "no checkpoint": ({"checkpoint": None}, ["checkpoint"]),
    "best of an untested job": ({"checkpoint": "best"}, ["checkpoint", "best"]),
    "name of a base model": ({"checkpoint": 0, "name": MODEL}, ["name", MODEL]),
    "no time at all": ({"inactive_timeout": 0}, ["inactive_timeout"]),
    "time as text": ({"inactive_timeout": "60"}, ["inactive_timeout"]),
    "NUL in description": ({"checkpoint": 0, "description": "a\x00b"}, ["description"]),
}


@pytest.mark.parametrize(("changed", "words"), DEPLOYMENTS.values(), ids=DEPLOYMENTS)
def test_bad_deployment_is_refused_naming_the_field(
    client: Client, project: str, job: str, changed: dict[str, Any], words: list[str]
) -> None:
    with refused(client, project, *words):
        client.post(f"/v1/projects/{project}/deployments", {"training_job_id": job, "checkpoint": 1} | changed)


ENGINES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown base model": ({"base_model": "SmolLM3"}, ["base_model", "SmolLM3"]),
    "base model of another task": ({"base_model": "all-mpnet-base-v2", "task_type": "text-generation"}, ["task_type"]),
    "unknown management": (
        {"resource_management_config": {"management_type": "prayer"}},
        ["resource_management_config.management_type"],
    ),
    "management of wrong type": ({"resource_management_config": 5}, ["resource_management_config"]),
}


@pytest.mark.parametrize(("changed", "words"), ENGINES.values(), ids=ENGINES)
def test_bad_engine_is_refused_naming_the_field(
    client: Client, project: str, changed: dict[str, Any], words: list[str]
) -> None:
    with refused(client, project, *words):
        client.post("/v1/engines", {"base_model": MODEL} | changed)


CHATS: dict[str, tuple[dict[str, Any], list[str], int]] = {
    "unknown model": ({"model": "nobody"}, ["model", "nobody"], 404),
    "model with NUL": ({"model": "a\x00b"}, ["model"], 400),
    "no message": ({"messages": []}, ["messages"], 400),
    "unknown role": ({"messages": [{"role": "cat", "content": "a"}]}, ["messages.0.role"], 400),
    "content of wrong type": ({"messages": [{"role": "user", "content": 5}]}, ["messages.0.content"], 400),
    "temperature too high": ({"temperature": 3}, ["temperature"], 400),
    "no tokens": ({"max_tokens": 0}, ["max_tokens"], 400),
    "stream as text": ({"stream": "yes"}, ["stream"], 400),
}


@pytest.mark.parametrize(("changed", "words", "status"), CHATS.values(), ids=CHATS)
def test_bad_chat_is_refused_naming_the_field(
    client: Client, project: str, changed: dict[str, Any], words: list[str], status: int
) -> None:
    with refused(client, project, *words, status=status):
        client.post("/v1/chat/completions", {"model": MODEL, "messages": [{"role": "user", "content": "a"}]} | changed)


@pytest.mark.parametrize("chunked", [False, True])
def test_body_over_four_mebibytes_is_refused(client: Client, *, chunked: bool) -> None:
    body = b'{"name": "' + b"x" * 5 * 1024**2 + b'"}'
    content = iter([body]) if chunked else body
    response = client.http.post("/v1/projects", content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert set(response.json()) == {"status", "error", "code"}
