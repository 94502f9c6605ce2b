"""Subscriptions: made, changed, listed, and refused with a sentence where nothing could be sent."""

import asyncio
from typing import Any

import httpx
import pytest

from emissary.store import subscriptions
from tests.api.backends import Backends
from tests.api.refusals import envelope
from tests.api.subscribing import Subscribing
from tests.webhooks import new_id

EVENTS = ["training_job.failed", "pipeline_run.not_promoted"]


@pytest.fixture(scope="module")
def project(backends: Backends) -> str:
    """Path of a project."""
    made = backends.request("POST", "/v1/projects", json={"name": "subscriptions"}).json()
    return f"/v1/projects/{made['id']}"


def test_subscription_is_made_changed_and_deleted(subscribing: Subscribing) -> None:
    made = subscribing.subscribe(*EVENTS, EVENTS[0], description="for the team")
    assert made["secret"].startswith("whsec_")
    shown = {name: value for name, value in made.items() if name != "secret"}
    assert subscribing.ask("GET", made) == shown
    assert shown["events"] == EVENTS
    assert subscribing.backends.request("GET", subscribing.path).json() == [shown]
    wanted = {"name": "renamed", "url": f"{subscribing.web.url}/other", "events": EVENTS[:1], "paused": True}
    changed = subscribing.ask("PUT", made, json=wanted)
    kept = {"id", "project_id", "created_at", "created_by", "block", "previous_until", "paused_reason"}
    assert changed == {name: shown[name] for name in kept} | wanted | {
        "description": None,
        "updated_at": changed["updated_at"],
    }
    subscribing.ask("POST", made, "/unpause")
    subscribing.ask("POST", made, "/test")
    subscribing.send()
    subscribing.received(made["secret"])
    assert [path for path, _ in subscribing.web.asked] == ["/other"]
    subscribing.ask("DELETE", made)
    for method, what in (("GET", ""), ("DELETE", ""), ("GET", "/deliveries"), ("POST", "/test"), ("POST", "/rotate")):
        answer = subscribing.backends.request(method, f"{subscribing.path}/{made['id']}{what}")
        envelope(answer, 404, "object_not_found")


def test_secret_is_shown_once_and_kept_nowhere(subscribing: Subscribing) -> None:
    backends = subscribing.backends
    body = {"name": "once", "url": f"{subscribing.web.url}/hook", "events": EVENTS}
    keyed = {"headers": {"Idempotency-Key": new_id(), "X-API-Key": "ek-backends"}, "json": body}
    first, again = (backends.request("POST", subscribing.path, **keyed).json() for _ in range(2))
    assert again == first | {"secret": None}
    assert first["secret"] not in backends.request("GET", subscribing.path).text
    rotated = subscribing.ask("POST", first, "/rotate", json={"overlap_seconds": 60})
    assert rotated["secret"] not in (None, first["secret"])
    assert 50 < rotated["previous_until"] - rotated["updated_at"] <= 61


def test_deliveries_are_listed_by_pages(subscribing: Subscribing) -> None:
    made = subscribing.subscribe()
    ids = [subscribing.ask("POST", made, "/test")["id"] for _ in range(3)][::-1]
    path = f"{subscribing.path}/{made['id']}/deliveries"
    first = subscribing.backends.request("GET", f"{path}?limit=2&status=Pending")
    rest = subscribing.backends.request("GET", first.links["next"]["url"])
    assert [row["id"] for row in first.json() + rest.json()] == ids


def test_project_is_deleted_with_its_subscriptions(subscribing: Subscribing) -> None:
    made = subscribing.subscribe()
    subscribing.ask("POST", made, "/test")
    subscribing.add_rows("Deployed")
    backends = subscribing.backends
    answer = backends.request("DELETE", subscribing.project)
    assert answer.status_code == 204, answer.text
    envelope(backends.request("GET", f"{subscribing.path}/{made['id']}"), 404, "object_not_found")


def test_no_more_than_twenty_even_at_once(subscribing: Subscribing) -> None:
    async def all_at_once() -> list[httpx.Response]:
        bodies = [
            {"name": f"s{number}", "url": f"{subscribing.web.url}/hook", "events": EVENTS}
            for number in range(subscriptions.MOST + 3)
        ]
        ask = subscribing.backends.ask
        return await asyncio.gather(*(ask("POST", subscribing.path, json=body) for body in bodies))

    answers = subscribing.backends.run(all_at_once())
    refused = [answer for answer in answers if answer.status_code != 201]
    assert len(refused) == 3
    for answer in refused:
        envelope(answer, 400, "invalid_input")
        assert "20 subscriptions" in answer.json()["error"]


URL: dict[str, Any] = {"url": "https://93.184.215.14/hook"}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no name": (URL | {"name": None}, "name: "),
    "no target": ({}, "The body: give either url or block"),
    "two targets": (URL | {"block": "slack-webhook/ops"}, "The body: give either url or block"),
    "no events": (URL | {"events": []}, "events: "),
    "unknown event": (URL | {"events": ["training_job.exploded"]}, "events.0: input should be 'training_job.started'"),
    "no address": ({"url": "example.com/hook"}, "url: must be an address of https:// or http://"),
    "another scheme": ({"url": "ftp://example.com"}, "url: must be an address of https:// or http://"),
    "a password": ({"url": "https://me:secret@example.com"}, "url: must not have a user or password in it"),
    "a long address": ({"url": "https://example.com/" + "a" * 2000}, "url: "),
    "loopback": ({"url": "http://127.0.0.1:8000/hook"}, "url: The host 127.0.0.1 is not on the public internet"),
    "a private network": ({"url": "https://10.1.2.3/hook"}, "url: The host 10.1.2.3 is not on the public internet"),
    "metadata": ({"url": "http://169.254.169.254/"}, "url: The host 169.254.169.254 is not on the public internet"),
    "unknown host": ({"url": "https://nobody.invalid/"}, "url: the name nobody.invalid cannot be resolved"),
    "block without a type": ({"block": "ops"}, "block: "),
    "block of nobody": ({"block": "slack-webhook/ops"}, "block: this organization has no notification block"),
    "paused by a word": (URL | {"paused": "yes"}, "paused: "),
}


@pytest.mark.parametrize(("changed", "sentence"), BAD.values(), ids=BAD)
def test_subscription_is_refused(backends: Backends, project: str, changed: dict[str, Any], sentence: str) -> None:
    fields = {"name": "refused", "events": EVENTS} | changed
    body = {name: value for name, value in fields.items() if value is not None}
    answer = backends.request("POST", f"{project}/subscriptions", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"].startswith(sentence)
    assert "secret" not in answer.json()["error"]
    assert backends.request("GET", f"{project}/subscriptions").json() == []


def test_name_is_taken_once_and_a_refused_change_changes_nothing(subscribing: Subscribing) -> None:
    made, other = subscribing.subscribe(name="taken"), subscribing.subscribe(name="other")
    body = {"name": "taken", "url": made["url"], "events": EVENTS}
    for answer in (
        subscribing.backends.request("POST", subscribing.path, json=body),
        subscribing.backends.request("PUT", f"{subscribing.path}/{other['id']}", json=body),
    ):
        envelope(answer, 400, "invalid_input")
        assert answer.json()["error"].startswith("name: there is a subscription 'taken' already")
    private = body | {"name": "other", "url": "http://10.0.0.1"}
    refusal = subscribing.backends.request("PUT", f"{subscribing.path}/{other['id']}", json=private)
    envelope(refusal, 400, "address_refused")
    assert subscribing.ask("GET", other)["url"] == other["url"]
