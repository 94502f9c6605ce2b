"""What is refused: with which status, in which words, and that nothing is left behind."""

import asyncio
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from emissary.client import ApiError, Client
from emissary.store import users
from emissary.store.database import dispose, transaction
from emissary.up import Platform

MODEL = "SmolLM2-135M-Instruct"
GOOD = b'{"prompt": "Say red.", "completion": "red"}\n'
LIMIT = 1024 * 1024  # bytes, as the fixture `platform` sets it
BAD_NAMES = {
    "parent folder": "../escaped",
    "slash": "a/b",
    "backslash": "a\\b",
    "dots": "..",
    "line feed": "a\nb",
    "NUL": "a\x00b",
    "terminal escape": "a\x1b[31mb",
    "outer space": " a",
    "empty": "",
    "too long": "a" * 101,
}
bad_name = pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES)


def upload(client: Client, project: str, content: bytes, file_name: str = "rows.jsonl", **form: str) -> Any:
    files = {"file": (file_name, content)}
    return client.call("POST", f"/v1/projects/{project}/datasets", files=files, data=form)


@pytest.fixture(scope="module")
def project(client: Client) -> str:
    return str(client.post("/v1/projects", {"name": "bad-input"})["id"])


@pytest.fixture(scope="module")
def dataset(client: Client, project: str) -> str:
    return str(upload(client, project, GOOD * 4)["id"])


@pytest.fixture(scope="module")
def job(client: Client, project: str, dataset: str) -> str:
    """A job without checkpoints, cancelled at once; its request carries fields that the contract does not have."""
    body = {"base_model": MODEL, "train_dataset_id": dataset, "colour": "red", "nested": {"more": [1]}}
    path = f"/v1/projects/{project}/training-jobs"
    created = client.post(path, body)
    client.post(f"{path}/{created['id']}/cancel")
    return str(created["id"])


def everything(client: Client, project: str) -> set[str]:
    """Ids of all that is listed, and the folders of the artifact store."""
    lists = ("datasets", "training-jobs", "deployments")
    paths = ["/v1/projects", "/v1/engines", *(f"/v1/projects/{project}/{kind}" for kind in lists)]
    store = Path(os.environ["EMISSARY_HOME"]) / "artifacts"
    folders = {str(path.relative_to(store)) for path in store.glob("*/*")}
    return folders | {row["id"] for path in paths for row in client.get(path)}


@contextmanager
def refused(client: Client, project: str, *words: str, status: int = 400) -> Iterator[None]:
    """The block is refused by the API in a sentence with all of `words`, and leaves nothing behind."""
    before = everything(client, project)
    with pytest.raises(ApiError) as raised:
        yield
    sentence = str(raised.value)
    assert raised.value.status == status, sentence
    for word in words:
        assert word in sentence
    assert sentence.isprintable()
    assert everything(client, project) == before


def envelope(response: httpx.Response, status: int, code: str) -> None:
    """The response is an error of that status and code, in the API's one shape."""
    body = response.json()
    assert set(body) == {"status", "error", "code"}
    assert (response.status_code, body["status"], body["code"]) == (status, status, code)
    assert len(body["error"]) > 10


# Datasets

FILES = {
    "empty": ("a.jsonl", b"", ["empty"]),
    "blank lines": ("a.jsonl", b"\n \n", ["no rows"]),
    "no rows in array": ("a.json", b"[]", ["no rows"]),
    "wrong extension": ("a.txt", GOOD, [".txt", ".jsonl"]),
    "no extension": ("a", GOOD, ["no extension"]),
    "not UTF-8": ("a.jsonl", GOOD + b'{"prompt": "caf\xe9"}', ["not UTF-8", "offset"]),
    "binary": ("a.csv", b"\x89PNG\r\n\x1a\n\x00\x00", ["not UTF-8", "offset 0"]),
    "NUL byte": ("a.jsonl", GOOD + b"\x00", ["NUL", "offset"]),
    "not Parquet": ("a.parquet", GOOD, ["Parquet"]),
    "invalid JSON": ("a.jsonl", GOOD * 2 + b'{"prompt": "a", "completion": }\n' + GOOD, ["Line 3", "JSON"]),
    "cut off": ("a.jsonl", GOOD + GOOD[:20], ["Line 2", "JSON"]),
    "invalid JSON in array": ("a.json", b"[\n" + GOOD + b", {]", ["Line 3", "JSON"]),
    "array named jsonl": ("a.jsonl", b"[" + GOOD.strip() + b"]", ["Line 1", ".json"]),
    "NaN": ("a.jsonl", GOOD + b'{"prompt": "a", "completion": NaN}', ["Line 2", "NaN"]),
    "row that is no object": ("a.jsonl", GOOD + b"5\n", ["Line 2", "object"]),
    "no target": ("a.jsonl", GOOD + b'{"prompt": "a"}\n' + GOOD, ["Line 2", "'completion'"]),
    "null target": ("a.jsonl", GOOD + b'{"prompt": "a", "completion": null}\n', ["Line 2", "'completion'"]),
    "no assistant's turn": ("a.jsonl", b'{"messages": [{"role": "user", "content": "a"}]}', ["Line 1", "messages"]),
    "no target in array": ("a.json", b"[" + GOOD + b', {"prompt": "a"}]', ["Row 2", "'completion'"]),
    "no target in CSV": ("a.csv", b"input,expected_output\na,b\nc,\n", ["Line 3"]),
    "CSV of other columns": ("a.csv", b"colour,size\na,b\n", ["Line 1", "input", "expected_output"]),
    "rows of two kinds": ("a.jsonl", GOOD + b'{"messages": 5, "prompt": "a"}\n', ["Line 2", "messages"]),
}


@pytest.mark.parametrize(("file_name", "content", "words"), FILES.values(), ids=FILES)
def test_unusable_file_is_refused_naming_the_place(
    client: Client, project: str, file_name: str, content: bytes, words: list[str]
) -> None:
    with refused(client, project, *words):
        upload(client, project, content, file_name)


@bad_name
def test_bad_name_of_a_dataset_is_refused(client: Client, project: str, name: str) -> None:
    with refused(client, project, "name"):
        upload(client, project, GOOD, name=name)


def test_folders_before_a_file_name_are_dropped(client: Client, project: str) -> None:
    made = upload(client, project, GOOD, "../../etc/colours.jsonl")
    assert made["name"] == "colours"
    client.call("DELETE", f"/v1/projects/{project}/datasets/{made['id']}")


def test_upload_without_a_file_or_not_a_form_is_refused(client: Client, project: str) -> None:
    path = f"/v1/projects/{project}/datasets"
    with refused(client, project, "file"):
        client.call("POST", path, files={"other": ("a.jsonl", GOOD)})
    with refused(client, project, "file"):
        client.call("POST", path, files={"file": (None, "text")})
    with refused(client, project, "multipart/form-data"):
        client.post(path, {"file": "a"})
    with refused(client, project, "boundary"):
        client.call("POST", path, content=GOOD, headers={"Content-Type": "multipart/form-data"})


def test_upload_to_an_unknown_project_is_not_found(client: Client, project: str) -> None:
    with refused(client, project, "ms-unknown", status=404):
        upload(client, "ms-unknown", GOOD)


def filled(size: int) -> bytes:
    """A JSON Lines file of `size` bytes."""
    empty = b'{"prompt": "a", "completion": ""}\n'
    return b'{"prompt": "a", "completion": "' + b"x" * (size - len(empty)) + b'"}\n'


def test_file_of_the_limit_is_taken(client: Client, project: str) -> None:
    made = upload(client, project, filled(LIMIT))
    detail = client.get(f"/v1/projects/{project}/datasets/{made['id']}")
    assert detail["profile"]["bytes"] == LIMIT
    client.call("DELETE", f"/v1/projects/{project}/datasets/{made['id']}")


@pytest.mark.parametrize("size", [LIMIT + 1, 5 * LIMIT])
def test_file_over_the_limit_is_refused(client: Client, project: str, size: int) -> None:
    with refused(client, project, "file", "1 MiB", "EMISSARY_MAX_UPLOAD_MB"):
        upload(client, project, filled(size))


def test_file_over_the_limit_is_refused_while_it_is_being_sent(client: Client, project: str) -> None:
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
        while sent < 200 * LIMIT:
            sent += LIMIT
            yield filled(LIMIT)

    with refused(client, project, "1 MiB"):
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        client.call("POST", f"/v1/projects/{project}/datasets", content=body(), headers=headers)
    assert sent < 100 * LIMIT


# Training jobs

JOBS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown base model": ({"base_model": "SmolLM3"}, ["base_model", "SmolLM3"]),
    "base model of another task": ({"task_type": "embedding"}, ["task_type", "embedding"]),
    "unknown task": ({"task_type": "poetry"}, ["task_type"]),
    "unknown dataset": ({"train_dataset_id": "ds-unknown"}, ["train_dataset_id", "ds-unknown"]),
    "unknown test dataset": ({"test_dataset_id": "ds-unknown"}, ["test_dataset_id", "ds-unknown"]),
    "unknown testing function": ({"test_functions": ["exact_match_shared", "no_such"]}, ["test_functions", "no_such"]),
    "function twice": ({"test_functions": ["exact_match_shared"] * 2}, ["test_functions"]),
    "split 0": ({"train_test_split_ratio": 0}, ["train_test_split_ratio", "1"]),
    "split 100": ({"train_test_split_ratio": 100}, ["train_test_split_ratio", "99"]),
    "split below 0": ({"train_test_split_ratio": -20}, ["train_test_split_ratio"]),
    "split text": ({"train_test_split_ratio": "x"}, ["train_test_split_ratio"]),
    "split number as text": ({"train_test_split_ratio": "20"}, ["train_test_split_ratio"]),
    "split NaN": ({"train_test_split_ratio": math.nan}, ["train_test_split_ratio"]),
    "split true": ({"train_test_split_ratio": True}, ["train_test_split_ratio"]),
    "base model of wrong type": ({"base_model": 5}, ["base_model"]),
    "no base model": ({"base_model": None}, ["base_model"]),
    "dataset of wrong type": ({"train_dataset_id": ["ds-1"]}, ["train_dataset_id"]),
    "functions of wrong type": ({"test_functions": "exact_match_shared"}, ["test_functions"]),
    "function of wrong type": ({"test_functions": [5]}, ["test_functions.0"]),
    "parameters of wrong type": ({"parameters": [1]}, ["parameters"]),
    "description of wrong type": ({"description": 5}, ["description"]),
    "name of wrong type": ({"name": 5}, ["name"]),
    "NUL in dataset": ({"train_dataset_id": "ds-\x00"}, ["train_dataset_id"]),
    "NUL in description": ({"description": "a\x00b"}, ["description"]),
    "NUL in testing function": ({"test_functions": ["a\x00b"]}, ["test_functions"]),
    "NUL in base model": ({"base_model": "a\x00b"}, ["base_model"]),
    "half a surrogate pair": ({"description": "\ud800"}, ["description"]),
}


def job_body(dataset: str, changed: dict[str, Any]) -> str:
    """A good request but for `changed`, as JSON text (which here may hold NaN)."""
    return json.dumps({"base_model": MODEL, "train_dataset_id": dataset} | changed)


def create_job(client: Client, project: str, content: str | bytes) -> None:
    headers = {"Content-Type": "application/json"}
    client.call("POST", f"/v1/projects/{project}/training-jobs", content=content, headers=headers)


@pytest.mark.parametrize(("changed", "words"), JOBS.values(), ids=JOBS)
def test_bad_training_job_is_refused_naming_the_field(
    client: Client, project: str, dataset: str, changed: dict[str, Any], words: list[str]
) -> None:
    with refused(client, project, *words):
        create_job(client, project, job_body(dataset, changed))


PARAMETERS: list[tuple[str, Any]] = [
    ("num_train_epochs", -1),
    ("num_train_epochs", 0),
    ("num_train_epochs", 1.5),
    ("num_train_epochs", True),
    ("num_train_epochs", None),
    ("learning_rate", math.nan),
    ("learning_rate", math.inf),
    ("learning_rate", "0.0001"),
    ("learning_rate", 0),
    ("learning_rate", [0.1]),
    ("per_device_train_batch_size", 10**30),
    ("downsample_size", 0),
    ("lr_scheduler_type", "wavy"),
    ("max_length", 100_000),
    ("lora_rank", 8),
    ("../lora_r", 8),
    ("lora\x00r", 8),
]


@pytest.mark.parametrize(("name", "value"), PARAMETERS, ids=[f"{name!r}={value}" for name, value in PARAMETERS])
def test_bad_hyperparameter_is_refused_by_name(
    client: Client, project: str, dataset: str, name: str, value: Any
) -> None:
    with refused(client, project, "parameters", name if name.isprintable() else repr(name)):
        create_job(client, project, job_body(dataset, {"parameters": {name: value}}))


@bad_name
def test_bad_name_of_a_job_is_refused(client: Client, project: str, dataset: str, name: str) -> None:
    with refused(client, project, "name"):
        create_job(client, project, job_body(dataset, {"name": name}))


MALFORMED = {
    "not JSON": (b'{"base_model": ', ["not valid JSON", "character"]),
    "nothing": (b"", ["body"]),
    "null": (b"null", ["body"]),
    "a list": (b"[1]", ["body"]),
    "text": (b'"a"', ["body"]),
    "not UTF-8": (b'{"name": "\xff"}', ["body"]),
    "too deep": (b"[" * 100_000, ["body"]),
    "too many digits": (b'{"name": ' + b"1" * 10_000 + b"}", ["body"]),
}


@pytest.mark.parametrize(("content", "words"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_body_is_refused(client: Client, project: str, content: bytes, words: list[str]) -> None:
    with refused(client, project, *words):
        create_job(client, project, content)


def test_dataset_that_does_not_fit_the_task_is_refused_with_the_row(client: Client, project: str) -> None:
    numbers = upload(client, project, b'{"prompt": "a", "completion": 1}\n{"prompt": "b", "completion": 2}\n')["id"]
    with refused(client, project, "train_dataset_id", "does not fit text-generation", "Line 1", "'completion'"):
        create_job(client, project, job_body(numbers, {}))


def test_dataset_of_another_project_is_unknown_here(client: Client, project: str, dataset: str) -> None:
    other = client.post("/v1/projects", {"name": "other"})["id"]
    with refused(client, other, "train_dataset_id", dataset):
        create_job(client, other, job_body(dataset, {}))


def test_split_and_test_dataset_together_and_a_split_of_one_row_are_refused(
    client: Client, project: str, dataset: str
) -> None:
    with refused(client, project, "train_test_split_ratio", "test_dataset_id"):
        create_job(client, project, job_body(dataset, {"test_dataset_id": dataset, "train_test_split_ratio": 20}))
    single = upload(client, project, GOOD)["id"]
    with refused(client, project, "train_test_split_ratio", "one row"):
        create_job(client, project, job_body(single, {"train_test_split_ratio": 20}))


# Projects, engines, deployments, inference


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
    "base model of another task": ({"task_type": "regression"}, ["task_type"]),
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
    "model with NUL": ({"model": "a\x00b"}, ["model"], 404),
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


# All operations


def test_unknown_fields_are_ignored(client: Client, project: str, job: str) -> None:
    assert client.get(f"/v1/projects/{project}/training-jobs/{job}")["status"] == "Cancelled"
    made = client.http.post("/v1/projects", json={"name": "with-more", "colour": "red", "nested": {"a": [None]}})
    assert (made.status_code, made.json()["name"]) == (201, "with-more")


def operations(client: Client) -> list[tuple[str, str]]:
    """(method, path template) of every operation of the OpenAPI document."""
    paths = client.get("/openapi.json")["paths"]
    return [(method.upper(), path) for path, item in paths.items() for method in item]


def filled_path(template: str, value: str) -> str:
    return "/".join(value if part.startswith("{") else part for part in template.split("/"))


@pytest.fixture(scope="module")
def revoked_key(platform: Platform) -> str:
    async def make() -> str:
        async with transaction() as session:
            row, key = await users.create_key(session, "leaver", "laptop")
        assert httpx.get(f"{platform.api_url}/v1/models", headers={"X-API-Key": key}, trust_env=False).is_success
        async with transaction() as session:
            await users.revoke_key(session, row.id)
        await dispose()
        return key

    return asyncio.run(make())


def test_every_operation_needs_a_valid_key(client: Client, platform: Platform, revoked_key: str) -> None:
    keys = ["", "wrong", platform.api_key[:-1], revoked_key, "\xff"]
    by_header = [{"X-API-Key": key.encode("latin-1")} for key in keys]
    by_bearer = [{"Authorization": f"Bearer {key}".encode("latin-1")} for key in keys]
    refused_headers: list[dict[str, Any]] = [
        {},
        *by_header,
        *by_bearer,
        {"Authorization": f"Basic {platform.api_key}"},
        {"Cookie": f"X-API-Key={platform.api_key}"},
    ]
    found = [(method, path) for method, path in operations(client) if path not in ("/healthz", "/v1/files/{token}")]
    assert len(found) > 20
    with httpx.Client(base_url=platform.api_url, trust_env=False) as http:
        for method, path in found:
            for headers in refused_headers:
                response = http.request(method, filled_path(path, "x"), headers=headers)
                assert response.status_code == 401, (method, path, headers)
                envelope(response, 401, "unauthorized")


def test_malformed_body_without_a_key_is_first_of_all_without_a_key(client: Client, platform: Platform) -> None:
    url = f"{platform.api_url}/v1/engines"
    response = httpx.post(url, content=b"{", headers={"Content-Type": "application/json"}, trust_env=False)
    envelope(response, 401, "unauthorized")


def test_key_is_taken_as_header_and_as_bearer_token(platform: Platform) -> None:
    for headers in ({"X-API-Key": platform.api_key}, {"Authorization": f"Bearer {platform.api_key}"}):
        assert httpx.get(f"{platform.api_url}/v1/models", headers=headers, trust_env=False).status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/docs", "/openapi.json"])
def test_health_and_docs_need_no_key(platform: Platform, path: str) -> None:
    assert httpx.get(f"{platform.api_url}{path}", trust_env=False).status_code == 200


def test_link_that_nobody_signed_is_not_found(platform: Platform) -> None:
    for token in ("x", "..%2F..%2Fapi-key", "%00"):
        envelope(httpx.get(f"{platform.api_url}/v1/files/{token}", trust_env=False), 404, "object_not_found")


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/nothing", "/v1/projects/x/nothing"])
def test_unknown_path_is_not_found(client: Client, path: str) -> None:
    envelope(client.http.get(path), 404, "object_not_found")


@pytest.mark.parametrize(("method", "path"), [("DELETE", "/v1/projects"), ("PUT", "/v1/engines"), ("POST", "/healthz")])
def test_wrong_method_is_refused_with_those_allowed(client: Client, method: str, path: str) -> None:
    response = client.http.request(method, path)
    envelope(response, 405, "method_not_allowed")
    assert response.headers["allow"]


@pytest.mark.parametrize("identifier", ["x", "%00", "..", "%2e%2e", "%F0%28", "a" * 3000], ids=lambda value: value[:9])
def test_unknown_identifier_is_not_found_everywhere(client: Client, identifier: str) -> None:
    for method, path in operations(client):
        if "{" in path and method != "POST":
            response = client.http.request(method, filled_path(path, identifier))
            assert response.status_code in (404, 405), (method, path, response.text)
            assert set(response.json()) == {"status", "error", "code"}


def test_filter_that_matches_nothing_gives_an_empty_list(client: Client) -> None:
    for query in ("base_model=nobody", "task_type=%00", "base_model=%00"):
        assert client.get(f"/v1/engines?{query}") == []
