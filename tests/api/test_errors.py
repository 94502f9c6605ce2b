"""One envelope for whatever goes wrong, with the place of it in the sentence."""

import json
import socket

import httpx
import pytest

from emissary.client import Client
from emissary.up import Platform
from tests.api.refusals import MODEL, envelope

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"name": "a",\n "b": }', ["JSON", "line 2", "column 7"]),
        (b"{", ["JSON", "line 1"]),
        (b'{"name": "caf\xe9"}', ["body"]),
        (b"[" * 100_000, ["body"]),
        (b'{"name": ' + b"9" * 5000 + b"}", ["body"]),
        (b"[]", ["The body", "object"]),
        (b'"text"', ["The body", "object"]),
    ],
    ids=["line", "end", "not UTF-8", "deep", "long number", "array", "text"],
)
def test_body_that_cannot_be_read_is_refused_naming_the_place(client: Client, content: bytes, words: list[str]) -> None:
    response = client.http.post("/v1/engines", content=content, headers=JSON)
    envelope(response, 400, "invalid_input")
    for word in words:
        assert word in response.json()["error"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/engines", "/v1/projects"])
def test_body_too_large_or_of_another_kind_is_refused(client: Client, path: str) -> None:
    envelope(client.http.post(path, content=b"x" * (4 * 1024**2 + 1), headers=JSON), 400, "too_large")
    other = client.http.post(path, content=b'{"name": "a"}', headers={"Content-Type": "text/plain"})
    envelope(other, 400, "invalid_input")
    assert "text/plain" in other.json()["error"]
    assert "Content-Type: application/json" in other.json()["error"]


def test_field_of_a_nested_body_is_named_with_its_path(client: Client, project: str, dataset: str) -> None:
    path = f"/v1/projects/{project}/training-jobs"
    body = {"base_model": MODEL, "train_dataset_id": dataset}
    for field, given in (
        ("parameters.learning_rate", {"parameters": {"learning_rate": -1}}),
        ("test_functions.1", {"test_functions": ["exact_match_shared", 5]}),
        ("train_test_split_ratio", {"train_test_split_ratio": 0}),
    ):
        response = client.http.post(path, json=body | given)
        envelope(response, 400, "invalid_parameters" if "." in field and "param" in field else "invalid_input")
        assert response.json()["error"].startswith(f"{field}: ")
    management = {"management_type": "inactive_timeout", "management_config": {"inactive_duration": "x"}}
    response = client.http.post("/v1/engines", json={"base_model": MODEL, "resource_management_config": management})
    assert "management_config.inactive_duration: " in response.json()["error"]


def test_field_with_several_types_counts_once(client: Client, project: str) -> None:
    path = f"/v1/projects/{project}/deployments"
    body = {"training_job_id": MODEL, "checkpoint": -1}
    first = "checkpoint: input should be greater than or equal to 0"
    assert client.http.post(path, json=body).json()["error"] == f"{first}."
    assert client.http.post(path, json=body | {"name": 5}).json()["error"] == f"{first} (1 more field to correct)."


def test_header_is_named(client: Client, project: str, job: str) -> None:
    path = f"/v1/projects/{project}/training-jobs/{job}/events"
    for event_id in ("x", "-1", "1.0", str(2**63)):
        headers = {"Accept": "text/event-stream", "Last-Event-ID": event_id}
        response = client.http.get(path, headers=headers)
        envelope(response, 400, "invalid_input")
        assert response.json()["error"].startswith("last-event-id: ")


def test_key_is_checked_before_anything_of_the_body(platform: Platform) -> None:
    with httpx.Client(base_url=platform.api_url, trust_env=False) as http:
        for path in ("/v1/engines", "/v1/projects", "/v1/chat/completions", "/v1/projects/x/datasets"):
            for content in (b"{", b"[]", b"\xff", b""):
                response = http.post(path, content=content, headers=JSON | {"Idempotency-Key": "k"})
                envelope(response, 401, "unauthorized")
            envelope(http.post(path, files={"file": ("a.txt", b"a")}), 401, "unauthorized")


def test_refusals_of_inference_have_the_envelope(client: Client) -> None:
    chat = {"model": "nobody", "messages": [{"role": "user", "content": "a"}]}
    envelope(client.http.post("/v1/chat/completions", json=chat), 404, "object_not_found")
    envelope(client.http.post("/v1/chat/completions", json=chat | {"stream": True}), 404, "object_not_found")
    envelope(client.http.post("/v1/chat/completions", json=chat | {"n": 2}), 400, "invalid_input")
    envelope(client.http.post("/v1/completions", json={"model": "nobody", "prompt": 5}), 400, "invalid_input")


@pytest.mark.parametrize(
    "sent",
    [b"HELLO\r\n\r\n", b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"GET /" + b"x" * 300_000 + b" HTTP/1.1\r\n\r\n"],
    ids=["not HTTP", "bad header", "long address"],
)
def test_what_is_not_http_is_refused_in_the_envelope(platform: Platform, sent: bytes) -> None:
    url = httpx.URL(platform.api_url)
    with socket.create_connection((url.host, url.port), timeout=20) as connection:
        connection.sendall(sent)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert set(json.loads(body)) == {"status", "error", "code"}
