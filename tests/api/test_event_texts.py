"""Events in words: each has a sentence and an address, and a person who is asked is told how to answer."""

from datetime import UTC, datetime
from typing import Any, get_args

import pytest

from emissary.api import event_texts
from emissary.schemas.subscriptions import PING, Event
from emissary.settings import settings
from emissary.store.pipeline_tables import SubscriptionDelivery

DATA = {
    "id": "x-1",
    "project_id": "ms-1",
    "pipeline_id": "pl-1",
    "name": "{nightly}",
    "approval": {"until": 1633036800},
}


def delivery(event: str, **data: Any) -> SubscriptionDelivery:
    return SubscriptionDelivery(event=event, data=DATA | data, created_at=datetime.now(UTC))


@pytest.mark.parametrize("event", [*get_args(Event), PING])
def test_every_event_has_a_sentence_and_an_address(event: str) -> None:
    assert "{nightly}" in event_texts.subject(delivery(event))
    address = event_texts.text(delivery(event)).splitlines()[-1]
    assert address.startswith(f"{settings().api_url}/v1/projects/ms-1/")
    assert address.endswith("/x-1")
    assert "{pipeline_id}" not in address


def test_person_is_told_how_to_answer_and_until_when() -> None:
    text = event_texts.text(delivery("pipeline_run.waiting"))
    assert "until 2021-09-30 21:20 UTC" in text
    assert "emissary pipelines approve {nightly} x-1" in text


def test_reason_and_numbers_are_told_where_there_are_any() -> None:
    failed = event_texts.text(delivery("training_job.failed", error="The disk is full.", scores=None))
    assert failed.splitlines()[0] == "The disk is full."
    assert "exact: 0.5\n" in event_texts.text(delivery("training_job.succeeded", error=None, scores={"exact": 0.5}))
