"""What holds for every operation: keys, unknown paths and identifiers, unknown fields, the shape of errors."""

import asyncio
from typing import Any

import httpx
import pytest

from emissary.client import Client
from emissary.store import users
from emissary.store.database import dispose, transaction
from emissary.up import Platform
from tests.api.refusals import envelope

OPEN = ("/healthz", "/v1/files/{token}", "/v1/uploads/{token}", "/v1/webhooks/{webhook_id}")
"""Paths that need no key; in the others than the first the link, or a signature, is the permission."""


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
        async with httpx.AsyncClient(base_url=platform.api_url, trust_env=False) as http:
            assert (await http.get("/v1/models", headers={"X-API-Key": key})).is_success
        async with transaction() as session:
            await users.revoke_key(session, row.id)
        await dispose()
        return key

    return asyncio.run(make())


def test_every_operation_needs_a_valid_key(client: Client, platform: Platform, revoked_key: str) -> None:
    keys = ["", "wrong", platform.api_key[:-1], revoked_key, "\xff"]
    by_header = [{"X-API-Key": key.encode("latin-1")} for key in keys]
    by_bearer = [{"Authorization": f"Bearer {key}".encode("latin-1")} for key in keys if key]
    refused_headers: list[dict[str, Any]] = [
        {},
        *by_header,
        *by_bearer,
        {"Authorization": f"Basic {platform.api_key}"},
        {"Cookie": f"X-API-Key={platform.api_key}"},
    ]
    found = [(method, path) for method, path in operations(client) if path not in OPEN]
    assert len(found) > 20
    with httpx.Client(base_url=platform.api_url, trust_env=False) as http:
        for method, path in found:
            for headers in refused_headers:
                response = http.request(method, filled_path(path, "x"), headers=headers)
                assert response.status_code == 401, (method, path, headers)
                envelope(response, 401, "unauthorized")
                assert response.headers["WWW-Authenticate"] == "Bearer"


def test_key_is_taken_as_header_and_as_bearer_token(platform: Platform) -> None:
    for headers in ({"X-API-Key": platform.api_key}, {"Authorization": f"Bearer {platform.api_key}"}):
        assert httpx.get(f"{platform.api_url}/v1/models", headers=headers, trust_env=False).status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/docs", "/openapi.json"])
def test_health_and_docs_need_no_key(platform: Platform, path: str) -> None:
    assert httpx.get(f"{platform.api_url}{path}", trust_env=False).status_code == 200


def test_link_that_nobody_signed_is_not_found(platform: Platform) -> None:
    for token in ("x", "..%2F..%2Fapi-key", "%00"):
        envelope(httpx.get(f"{platform.api_url}/v1/files/{token}", trust_env=False), 404, "object_not_found")


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/nothing", "/v1/projects/x/nothing", "/v1/projects/"])
def test_unknown_path_is_not_found(client: Client, path: str) -> None:
    envelope(client.http.get(path), 404, "object_not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/v1/projects", "GET, POST"),
        ("PUT", "/v1/engines/x", "DELETE, GET"),
        ("POST", "/healthz", "GET"),
        ("TRACE", "/v1/completions", "POST"),
    ],
)
def test_wrong_method_is_refused_with_those_allowed(client: Client, method: str, path: str, allowed: str) -> None:
    response = client.http.request(method, path)
    envelope(response, 405, "method_not_allowed")
    assert response.headers["allow"] == allowed


@pytest.mark.parametrize("identifier", ["x", "%00", "..", "%2e%2e", "%F0%28", "a" * 3000], ids=lambda value: value[:9])
def test_unknown_identifier_is_not_found_everywhere(client: Client, identifier: str) -> None:
    for method, path in operations(client):
        if "{" in path and method != "POST":
            response = client.http.request(method, filled_path(path, identifier))
            assert response.status_code in (404, 405), (method, path, response.text)
            assert set(response.json()) == {"status", "error", "code"}


def test_filter_that_matches_nothing_gives_an_empty_list(client: Client) -> None:
    assert client.get("/v1/engines?base_model=nobody") == []
    for query in ("base_model=%00", "task_type=a&task_type="):
        envelope(client.http.get(f"/v1/engines?{query}"), 400, "invalid_input")
