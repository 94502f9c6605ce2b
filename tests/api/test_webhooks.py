"""Webhooks: whoever has the secret starts the pipeline, each delivery once; everybody else starts nothing."""

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import func, update

from emissary.api.submit import submit_waiting
from emissary.store import fetched_data, webhook_deliveries
from emissary.store.database import transaction
from emissary.store.pipeline_tables import WebhookDelivery
from tests.api.backends import Backends
from tests.api.refusals import GOOD, MODEL, envelope
from tests.api.waiting import waiting_for_a_lock
from tests.web_server import Web
from tests.webhooks import by_github, new_id, signed

TRAIN = {"base_model": MODEL, "test_functions": ["exact_match_shared"]}
BY_ID = {"datasets": ["{{ payload.dataset_id }}"]}
Headers = dict[str, str]


@dataclass
class Sending:
    """A pipeline in a project with one dataset, and a webhook of it."""

    backends: Backends
    pipeline: str
    dataset: str
    hook: dict[str, Any]

    @property
    def body(self) -> bytes:
        return json.dumps({"dataset_id": self.dataset}).encode()

    @property
    def path(self) -> str:
        return f"{self.pipeline}/webhooks/{self.hook['id']}"

    def post(self, body: bytes, headers: Headers, hook_id: str | None = None) -> httpx.Response:
        """The answer to what a sender posts, who has no API key."""
        path = f"/v1/webhooks/{hook_id or self.hook['id']}"
        return self.backends.request("POST", path, content=body, headers=headers | {"X-API-Key": ""})

    def sign(self, body: bytes, delivery_id: str | None = None) -> Headers:
        return signed(self.hook["secret"], body, delivery_id or new_id())

    def runs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.backends.request("GET", f"{self.pipeline}/runs").json()
        return found

    def deliveries(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.backends.request("GET", f"{self.path}/deliveries").json()
        return found

    def rotate(self, **body: Any) -> str:
        return str(self.backends.request("POST", f"{self.path}/rotate", json=body).json()["secret"])


@pytest.fixture(scope="module")
def stocked(backends: Backends) -> tuple[str, str]:
    """(path of a project, its dataset)."""
    project = f"/v1/projects/{backends.request('POST', '/v1/projects', json={'name': 'webhooks'}).json()['id']}"
    file = {"file": ("rows.jsonl", GOOD * 4)}
    return project, backends.request("POST", f"{project}/datasets", files=file).json()["id"]


@pytest.fixture
def pipeline(backends: Backends, stocked: tuple[str, str]) -> tuple[str, str]:
    """(path of a new pipeline, the dataset)."""
    project, dataset = stocked
    body = {"name": new_id(), "train": TRAIN, "train_test_split_ratio": 50}
    made = backends.request("POST", f"{project}/pipelines", json=body)
    assert made.status_code == 201, made.text
    return f"{project}/pipelines/{made.json()['id']}", dataset


@pytest.fixture
def make(backends: Backends, pipeline: tuple[str, str]) -> Callable[..., Sending]:
    """Makes a webhook of the pipeline."""
    path, dataset = pipeline

    def made(**fields: Any) -> Sending:
        answer = backends.request("POST", f"{path}/webhooks", json={"name": "sender"} | fields)
        assert answer.status_code == 201, answer.text
        return Sending(backends, path, dataset, answer.json())

    return made


def started(sending: Sending, answer: httpx.Response) -> str:
    """The id of the run, the pipeline's only one, that the delivery was answered with."""
    assert answer.status_code == 202, answer.text
    (run,) = sending.runs()
    assert answer.json() == {"pipeline_run_id": run["id"]}
    assert (run["trigger"], run["status"]) == ("webhook", "Pending")
    sending.backends.run(submit_waiting())  # where Prefect was slow the request left it to the sweep
    detail = sending.backends.request("GET", f"{sending.pipeline}/runs/{run['id']}").json()
    assert (detail["trigger_id"], bool(detail["flow_run_id"])) == (sending.hook["id"], True)
    return str(run["id"])


def test_signed_delivery_runs_once_however_often_it_comes(make: Callable[..., Sending]) -> None:
    sending = make(parameters=BY_ID)
    delivery_id = new_id()
    headers = sending.sign(sending.body, delivery_id)
    run = started(sending, sending.post(sending.body, headers))
    replayed = sending.post(sending.body, headers)
    again = sending.post(sending.body, sending.sign(sending.body, delivery_id))
    assert [started(sending, answer) for answer in (replayed, again)] == [run, run]
    assert [(row["delivery_id"], row["pipeline_run_id"]) for row in sending.deliveries()] == [(delivery_id, run)]


def test_eight_deliveries_at_once_of_one_id_run_once(make: Callable[..., Sending]) -> None:
    sending = make(parameters=BY_ID)
    headers = sending.sign(sending.body)

    async def all_at_once() -> list[httpx.Response]:
        path = f"/v1/webhooks/{sending.hook['id']}"
        ask = sending.backends.ask
        return await asyncio.gather(*(ask("POST", path, content=sending.body, headers=headers) for _ in range(8)))

    answers = sending.backends.run(all_at_once())
    assert len({started(sending, answer) for answer in answers}) == 1


def test_id_with_another_body_is_a_conflict(make: Callable[..., Sending]) -> None:
    sending = make()
    delivery_id = new_id()
    started(sending, sending.post(b"{}", sending.sign(b"{}", delivery_id)))
    envelope(sending.post(b"[]", sending.sign(b"[]", delivery_id)), 409, "conflict")
    assert len(sending.runs()) == 1


def test_deliveries_with_parameters_run_each_and_those_without_join_the_run_that_waits(
    make: Callable[..., Sending],
) -> None:
    sending = make(parameters=BY_ID)
    for _ in range(2):
        assert sending.post(sending.body, sending.sign(sending.body)).status_code == 202
    assert len(sending.runs()) == 2
    plain = make(name="plain")
    joined = {plain.post(b"", plain.sign(b"")).json()["pipeline_run_id"] for _ in range(3)}
    assert joined == {plain.runs()[0]["id"]}
    assert len(plain.runs()) == 3
    assert len(plain.deliveries()) == 3


@pytest.mark.parametrize("commits", [True, False])
def test_delivery_joins_a_run_that_fetches_until_it_begins_to_look(
    backends: Backends, stocked: tuple[str, str], web: Web, commits: bool
) -> None:
    project, dataset = stocked
    source = {"source": "url", "url": web.put("/rows.jsonl", GOOD)}
    body = {"name": new_id(), "train": TRAIN, "train_test_split_ratio": 50, "gather": source}
    made = backends.request("POST", f"{project}/pipelines", json=body)
    pipeline = f"{project}/pipelines/{made.json()['id']}"
    hook = backends.request("POST", f"{pipeline}/webhooks", json={"name": "sender"}).json()
    sending = Sending(backends, pipeline, dataset, hook)
    runs = {sending.post(b"", sending.sign(b"")).json()["pipeline_run_id"] for _ in range(5)}
    assert runs == {run["id"] for run in sending.runs()}
    (run,) = runs

    async def deliver_meanwhile() -> httpx.Response:
        class Broken(Exception):
            pass

        with suppress(Broken):
            async with transaction() as session:
                assert await fetched_data.before(session, run)
                request = {"content": b"", "headers": sending.sign(b"")}
                delivering = asyncio.create_task(backends.ask("POST", f"/v1/webhooks/{hook['id']}", **request))
                await waiting_for_a_lock(1)
                if not commits:
                    raise Broken
        return await delivering

    assert backends.run(deliver_meanwhile()).status_code == 202
    assert len(sending.runs()) == (2 if commits else 1)


def altered(headers: Headers, **changed: str) -> Headers:
    return headers | {name.replace("_", "-"): value for name, value in changed.items()}


def test_wrong_signatures_and_unknown_webhooks_get_one_answer_and_start_nothing(make: Callable[..., Sending]) -> None:
    sending, other = make(parameters=BY_ID), make(name="other")
    body, good = sending.body, sending.sign(sending.body)
    signature = good["webhook-signature"]
    wrong = [
        sending.post(body + b" ", good),
        sending.post(body, altered(good, webhook_id="msg_other")),
        sending.post(body, altered(good, webhook_timestamp=str(int(good["webhook-timestamp"]) + 1))),
        sending.post(body, altered(good, webhook_signature=signature.replace("v1,", "v2,"))),
        sending.post(body, altered(good, webhook_signature=signature.removeprefix("v1,"))),
        sending.post(body, altered(good, webhook_signature="v1,")),
        sending.post(body, good | {"webhook-signature": "v1,\xe9".encode("latin-1")}),
        sending.post(body, {}),
        sending.post(body, {"Authorization": f"Bearer {sending.hook['secret']}"}),
        sending.post(body, by_github(sending.hook["secret"], body, "1")),
        sending.post(body, signed(other.hook["secret"], body, new_id())),
        sending.post(body, good, hook_id="wh-0000000000000000000000"),
    ]
    assert len({answer.text for answer in wrong}) == 1
    envelope(wrong[0], 401, "unauthorized")
    assert sending.runs() == []
    several = altered(good, webhook_signature=f"v1,AAAA v1a,BBBB {signature}")
    started(sending, sending.post(body, several))


@pytest.mark.parametrize("seconds", [-310, 310])
def test_time_that_is_off_is_told_and_starts_nothing(make: Callable[..., Sending], seconds: int) -> None:
    sending = make()
    answer = sending.post(b"{}", signed(sending.hook["secret"], b"{}", new_id(), time.time() + seconds))
    envelope(answer, 401, "unauthorized")
    assert "webhook-timestamp" in answer.json()["error"]
    assert sending.runs() == []
    near = signed(sending.hook["secret"], b"{}", new_id(), time.time() + seconds * 0.9)
    started(sending, sending.post(b"{}", near))


@pytest.mark.parametrize("delivery_id", ["", "x" * 256, "a\x7f"], ids=["none", "long", "control"])
def test_signed_id_that_is_none_is_refused(make: Callable[..., Sending], delivery_id: str) -> None:
    sending = make()
    answer = sending.post(b"{}", signed(sending.hook["secret"], b"{}", delivery_id))
    envelope(answer, 400, "invalid_input")
    assert "webhook-id" in answer.json()["error"]
    assert sending.runs() == []


def test_large_body_is_refused_declared_or_not(make: Callable[..., Sending]) -> None:
    sending = make()
    body = b" " * 5_000_000
    envelope(sending.post(body, sending.sign(body)), 413, "too_large")

    async def chunks() -> Any:
        for _ in range(5):
            yield body[:1_000_000]

    path = f"/v1/webhooks/{sending.hook['id']}"
    answer = sending.backends.request("POST", path, content=chunks(), headers=sending.sign(body))
    envelope(answer, 413, "too_large")
    assert sending.runs() == []
    fits = b" " * 1024 * 1024
    started(sending, sending.post(fits, sending.sign(fits)))


REFUSED: dict[str, tuple[bytes, str]] = {
    "a missing field": (b'{"dataset": "ds-1"}', "payload.dataset_id: there is no such field in the payload."),
    "an unknown dataset": (b'{"dataset_id": "ds-nobody"}', "datasets: there is no dataset 'ds-nobody'"),
    "a number for an id": (b'{"dataset_id": 3}', "datasets.0: "),
    "no ids": (b'{"dataset_id": []}', "datasets: "),
    "too many ids": (json.dumps({"dataset_id": ["a"] * 101}).encode(), "datasets: "),
    "a list of lists": (b'{"dataset_id": [["a"]]}', "datasets.0: "),
    "a control character": (b'{"dataset_id": "a\\u0000"}', "datasets.0: "),
    "half a character": (b'{"dataset_id": "\\ud800"}', "The body is not JSON"),
    "no JSON": (b"dataset_id=1", "The body is not JSON"),
    "no text": (b"\xff", "The body is not JSON"),
    "nothing": (b"", "The body is not JSON"),
    "deep nesting": (b"[" * 100_000, "The body is not JSON"),
}


@pytest.mark.parametrize(("body", "sentence"), REFUSED.values(), ids=REFUSED)
def test_payload_that_gives_no_parameters_is_refused_and_its_id_is_not_used_up(
    make: Callable[..., Sending], body: bytes, sentence: str
) -> None:
    sending = make(parameters=BY_ID)
    delivery_id = new_id()
    answer = sending.post(body, sending.sign(body, delivery_id))
    envelope(answer, 400, "invalid_input")
    assert answer.json()["error"].startswith(sentence)
    assert answer.json()["error"].isprintable()
    assert (sending.runs(), sending.deliveries()) == ([], [])
    started(sending, sending.post(sending.body, sending.sign(sending.body, delivery_id)))


@pytest.mark.parametrize("body", [b"", b"dataset_id=1", b"\xff"], ids=["nothing", "a form", "no text"])
def test_body_that_no_template_reads_may_be_anything(make: Callable[..., Sending], body: bytes) -> None:
    sending = make(parameters={"datasets": ["{{ headers['X-Dataset'] }}"]})
    started(sending, sending.post(body, sending.sign(body) | {"X-Dataset": sending.dataset}))


def test_objects_of_a_pipeline_without_a_bucket_are_refused(make: Callable[..., Sending]) -> None:
    sending = make(parameters={"objects": ["{{ payload.Records[0].s3.object.key | urldecode }}"]})
    for key, sentence in (("a%2Fb+c.jsonl", "objects: the pipeline's source is datasets"), ("a%2F..", "objects.0: ")):
        body = json.dumps({"Records": [{"s3": {"object": {"key": key}}}]}).encode()
        answer = sending.post(body, sending.sign(body))
        envelope(answer, 400, "invalid_input")
        assert answer.json()["error"].startswith(sentence)
    assert sending.runs() == []


def test_list_of_ids_is_taken_whole(make: Callable[..., Sending]) -> None:
    sending = make(parameters={"datasets": ["{{ payload.ids }}"]})
    body = json.dumps({"ids": [sending.dataset, "ds-nobody"]}).encode()
    assert "'ds-nobody'" in sending.post(body, sending.sign(body)).json()["error"]
    body = json.dumps({"ids": [sending.dataset]}).encode()
    started(sending, sending.post(body, sending.sign(body)))


def test_github_is_known_by_its_signature_and_its_ping_starts_nothing(make: Callable[..., Sending]) -> None:
    sending = make(scheme="github", parameters={"datasets": ["{{ headers['X-GitHub-Event'] }}"]})
    secret, body = sending.hook["secret"], b'{"zen": "Design for failure."}'
    ping = sending.post(body, by_github(secret, body, "72d3162e", "ping"))
    assert (ping.status_code, ping.json()) == (200, {"pipeline_run_id": None})
    envelope(sending.post(body, by_github(secret + "0", body, "1", "ping")), 401, "unauthorized")
    envelope(sending.post(body, {"X-Hub-Signature-256": ""}), 401, "unauthorized")
    without_id = by_github(secret, body, "")
    assert "X-GitHub-Delivery" in sending.post(body, without_id).json()["error"]
    assert sending.runs() == []
    delivery = by_github(secret, body, "72d3162f", sending.dataset)
    assert started(sending, sending.post(body, delivery)) == started(sending, sending.post(body, delivery))


@pytest.mark.parametrize("header", ["Authorization", "X-Webhook-Token"])
def test_token_may_name_the_delivery(make: Callable[..., Sending], header: str) -> None:
    sending = make(scheme="token", parameters=BY_ID)
    token = {header: f"Bearer {sending.hook['secret']}" if header == "Authorization" else sending.hook["secret"]}
    for wrong in ({}, {header: ""}, {header: "Bearer "}, {header: token[header][:-1]}):
        envelope(sending.post(sending.body, wrong), 401, "unauthorized")
    named = token | {"Idempotency-Key": "nightly-1"}
    run = started(sending, sending.post(sending.body, named))
    assert started(sending, sending.post(sending.body, named)) == run
    for _ in range(2):
        assert sending.post(sending.body, token).status_code == 202
    assert len(sending.runs()) == 3
    assert [row["delivery_id"] for row in sending.deliveries()] == [None, None, "nightly-1"]


def test_templates_do_not_see_the_token(make: Callable[..., Sending]) -> None:
    sending = make(scheme="token", parameters={"datasets": ["{{ headers.authorization }}"]})
    answer = sending.post(b"{}", {"Authorization": f"Bearer {sending.hook['secret']}"})
    assert answer.json()["error"] == "headers.authorization: there is no such header."


def test_secret_before_works_during_the_overlap_and_older_ones_do_not(make: Callable[..., Sending]) -> None:
    sending = make()

    def works(secret: str) -> bool:
        answer = sending.post(b"{}", signed(secret, b"{}", new_id()))
        assert answer.status_code in (202, 401)
        return answer.status_code == 202

    first, second = sending.hook["secret"], sending.rotate()
    assert [works(secret) for secret in (first, second)] == [True, True]
    third = sending.rotate(overlap_seconds=3600)
    assert [works(secret) for secret in (first, second, third)] == [False, True, True]
    fourth = sending.rotate(overlap_seconds=0)
    assert [works(secret) for secret in (third, fourth)] == [False, True]


def test_secret_is_shown_once_and_kept_nowhere(make: Callable[..., Sending], pipeline: tuple[str, str]) -> None:
    sending = make()
    backends, path = sending.backends, f"{pipeline[0]}/webhooks"
    for known in (f"{path}/{sending.hook['id']}", path):
        assert sending.hook["secret"] not in backends.request("GET", known).text
    keyed = {"headers": {"Idempotency-Key": new_id(), "X-API-Key": "ek-backends"}, "json": {"name": "once"}}
    first, again = (backends.request("POST", path, **keyed).json() for _ in range(2))
    assert again == first | {"secret": None}
    assert len(backends.request("GET", path).json()) == 2


def test_deleted_webhook_and_those_of_a_deleted_pipeline_are_unknown(make: Callable[..., Sending]) -> None:
    sending, other = make(), make(name="other")
    run = started(sending, sending.post(b"{}", sending.sign(b"{}")))
    assert sending.backends.request("DELETE", sending.path).status_code == 204
    envelope(sending.post(b"{}", sending.sign(b"{}")), 401, "unauthorized")
    envelope(sending.backends.request("GET", f"{sending.path}/deliveries"), 404, "object_not_found")
    assert [row["id"] for row in sending.runs()] == [run]
    assert sending.backends.request("POST", f"{sending.pipeline}/runs/{run}/cancel").status_code == 204
    assert sending.backends.request("DELETE", sending.pipeline).status_code == 204
    envelope(other.post(b"{}", other.sign(b"{}")), 401, "unauthorized")


def test_old_deliveries_are_forgotten(make: Callable[..., Sending]) -> None:
    sending = make()
    sending.post(b"{}", sending.sign(b"{}", "old"))
    older = update(WebhookDelivery).where(WebhookDelivery.webhook_id == sending.hook["id"])
    long_ago = func.now() - webhook_deliveries.KEPT - timedelta(seconds=1)
    sending.backends.catalogue(lambda session: session.execute(older.values(created_at=long_ago)))
    sending.post(b"{}", sending.sign(b"{}", "new"))
    assert [row["delivery_id"] for row in sending.deliveries()] == ["new"]


def test_paused_pipeline_is_started_all_the_same(make: Callable[..., Sending]) -> None:
    sending = make()
    assert sending.backends.request("POST", f"{sending.pipeline}/pause").status_code == 204
    started(sending, sending.post(b"{}", sending.sign(b"{}")))


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no name": ({"name": None}, "name"),
    "name that is taken": ({"name": "taken"}, "name: there is a webhook 'taken' already"),
    "unknown scheme": ({"scheme": "morse"}, "scheme"),
    "unknown parameter": ({"parameters": {"colour": "{{ payload }}"}}, "parameters.colour"),
    "no datasets": ({"parameters": {"datasets": []}}, "parameters.datasets"),
    "datasets that are no list": ({"parameters": {"datasets": "{{ payload }}"}}, "parameters.datasets"),
    "objects beside datasets": (
        {"parameters": {"datasets": ["ds-1"], "objects": ["a.jsonl"]}},
        "parameters: give datasets or objects",
    ),
    "objects of a pipeline without a bucket": (
        {"parameters": {"objects": ["{{ payload.key }}", "lake/a.jsonl"]}},
        "parameters.objects: the pipeline's source is datasets, which has no objects in S3",
    ),
    "unknown dataset beside a template": (
        {"parameters": {"datasets": ["{{ payload.dataset_id }}", "ds-nobody"]}},
        "parameters.datasets: there is no dataset 'ds-nobody' in project",
    ),
    "template of an object that runs": ({"parameters": {"objects": ["{{ 'a' * 9 }}"]}}, "parameters.objects.0: only"),
    "template that runs": ({"parameters": {"datasets": ["{{ 'a' * 9 }}"]}}, "parameters.datasets.0: only names"),
    "template that is not closed": ({"parameters": {"datasets": ["{{ payload"]}}, "parameters.datasets.0: it is no"),
    "template that is long": ({"parameters": {"datasets": ["a" * 501]}}, "parameters.datasets.0"),
    "template with NUL": ({"parameters": {"datasets": ["a\x00"]}}, "parameters.datasets.0"),
}


@pytest.mark.parametrize(("changed", "sentence"), BAD.values(), ids=BAD)
def test_webhook_is_refused(make: Callable[..., Sending], changed: dict[str, Any], sentence: str) -> None:
    taken = make(name="taken")
    body = {name: value for name, value in ({"name": "refused"} | changed).items() if value is not None}
    answer = taken.backends.request("POST", f"{taken.pipeline}/webhooks", json=body)
    envelope(answer, 400, "invalid_input")
    assert answer.json()["error"].startswith(sentence)
    listed = taken.backends.request("GET", f"{taken.pipeline}/webhooks").json()
    assert [row["id"] for row in listed] == [taken.hook["id"]]


@pytest.mark.parametrize("seconds", [-1, 31 * 24 * 3600, "60", 1.5])
def test_overlap_that_is_none_is_refused_and_rotates_nothing(make: Callable[..., Sending], seconds: Any) -> None:
    sending = make()
    answer = sending.backends.request("POST", f"{sending.path}/rotate", json={"overlap_seconds": seconds})
    envelope(answer, 400, "invalid_input")
    assert answer.json()["error"].startswith("overlap_seconds: ")
    started(sending, sending.post(b"{}", sending.sign(b"{}")))
