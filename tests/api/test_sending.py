"""What subscriptions are told arrives signed, once, is tried for a day, and is listed where it does not arrive."""

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import func, select, update

from emissary.api import sending
from emissary.api.sending import Sender
from emissary.errors import Unauthorized
from emissary.settings import settings
from emissary.store import subscription_deliveries
from emissary.store.database import transaction
from emissary.store.pipeline_tables import SubscriptionDelivery
from emissary.store.subscription_deliveries import wait_after
from emissary.store.tables import TrainingJob
from tests.api.refusals import envelope
from tests.api.subscribing import Subscribing
from tests.web_server import web_server

HOUR = timedelta(hours=1)


@pytest.fixture
def told(subscribing: Subscribing) -> dict[str, Any]:
    """A subscription with an event that is still to be sent."""
    row = subscribing.subscribe()
    subscribing.change(TrainingJob, status="Cancelled")
    return row


def test_event_arrives_signed_and_once(subscribing: Subscribing, told: dict[str, Any]) -> None:
    subscribing.send()
    subscribing.send(HOUR)
    ((delivery_id, message),) = subscribing.received(told["secret"])
    delivery = subscribing.delivery(told)
    assert (delivery["id"], delivery["status"], delivery["attempts"], delivery["answer"]) == (
        delivery_id,
        "Delivered",
        1,
        "HTTP 200",
    )
    assert message["type"] == "training_job.cancelled"
    assert int(datetime.fromisoformat(message["timestamp"]).timestamp()) == delivery["created_at"]
    url = f"{settings().api_url}{subscribing.job_path}"
    assert message["data"] == delivery["data"] | {"url": url}
    assert (message["data"]["id"], message["data"]["status"]) == (subscribing.job, "Cancelled")
    with pytest.raises(Unauthorized):
        subscribing.received(subscribing.subscribe(name="other")["secret"])


def test_failing_receiver_is_tried_again_with_the_same_id_until_it_takes_it(
    subscribing: Subscribing, told: dict[str, Any]
) -> None:
    subscribing.answer(500, b"a\x00 bug\n" + b"x" * 1000)
    subscribing.send()
    failed = subscribing.delivery(told)
    assert (failed["status"], failed["attempts"]) == ("Pending", 1)
    assert failed["answer"].startswith("HTTP 500: a bug x")
    assert len(failed["answer"]) < 320
    assert 3 <= failed["next_attempt_at"] - failed["attempted_at"] <= 7
    subscribing.send()
    assert subscribing.delivery(told)["attempts"] == 1, "it was sent before its time"
    subscribing.send(timedelta(seconds=10))
    subscribing.answer(204)
    subscribing.send(HOUR)
    subscribing.send(2 * HOUR)
    assert (subscribing.delivery(told)["status"], subscribing.delivery(told)["attempts"]) == ("Delivered", 3)
    messages = subscribing.received(told["secret"])
    assert len(messages) == 3
    assert messages == [messages[0]] * 3


async def _attempts(subscription_id: str) -> list[datetime]:
    """When its delivery is sent, by a clock that goes on to the next attempt each time, until it is dead."""
    times = [datetime.now(UTC)]
    while True:
        sender = Sender(lambda: times[-1])
        await sender.begin()
        await sender.finish()
        async with transaction() as session:
            mine = SubscriptionDelivery.subscription_id == subscription_id
            row = (await session.scalars(select(SubscriptionDelivery).where(mine))).one()
        if row.status == "Dead":
            return times
        times.append(row.next_attempt_at)


def test_what_does_not_arrive_within_a_day_is_dead_and_can_be_sent_again(
    subscribing: Subscribing, told: dict[str, Any]
) -> None:
    subscribing.answer(503)
    times = subscribing.backends.run(_attempts(told["id"]))
    waits = [later - earlier for earlier, later in pairwise(times)]
    assert waits[:6] == sorted(waits[:6])
    assert timedelta(hours=15) < times[-1] - times[0] <= timedelta(days=1)
    assert 10 <= len(times) <= 16
    (dead,) = subscribing.deliveries(told, "Dead")
    assert subscribing.deliveries(told, "Delivered") == []
    subscribing.send(timedelta(days=3))
    assert subscribing.delivery(told)["attempts"] == dead["attempts"] == len(subscribing.web.posted) == len(times)
    subscribing.answer(200)
    again = subscribing.ask("POST", told, f"/deliveries/{dead['id']}/redeliver")
    assert (again["status"], again["attempts"]) == ("Pending", 0)
    subscribing.send()
    assert subscribing.delivery(told)["status"] == "Delivered"
    assert len({delivery_id for delivery_id, _ in subscribing.received(told["secret"])}) == 1
    subscribing.ask("POST", told, f"/deliveries/{dead['id']}/redeliver")
    path = f"{subscribing.path}/{told['id']}/deliveries"
    refusal = subscribing.backends.request("POST", f"{path}/{dead['id']}/redeliver")
    envelope(refusal, 400, "invalid_input")
    assert "is Pending" in refusal.json()["error"]
    envelope(subscribing.backends.request("POST", f"{path}/sd-nobody/redeliver"), 404, "object_not_found")


def test_waits_grow_threefold_up_to_six_hours_and_are_never_alike() -> None:
    seconds = [wait_after(attempts).total_seconds() for attempts in (1, 2, 3, 9, 500)]
    for found, expected in zip(seconds, (5, 15, 45, 6 * 3600, 6 * 3600), strict=True):
        assert 0.8 * expected <= found <= 1.2 * expected
    assert len({wait_after(3) for _ in range(5)}) == 5


def test_receiver_that_is_gone_is_sent_nothing_more(subscribing: Subscribing, told: dict[str, Any]) -> None:
    subscribing.answer(410, b"no longer")
    subscribing.send()
    assert subscribing.delivery(told)["status"] == "Dead"
    row = subscribing.ask("GET", told)
    assert (row["paused"], row["paused_reason"]) == (True, "HTTP 410: no longer")
    subscribing.change(TrainingJob, status="Running")
    subscribing.change(TrainingJob, status="Cancelled")
    assert len(subscribing.deliveries(told)) == 1
    refusal = subscribing.backends.request("POST", f"{subscribing.path}/{told['id']}/test")
    envelope(refusal, 400, "invalid_input")
    row = subscribing.ask("POST", told, "/unpause")
    assert (row["paused"], row["paused_reason"]) == (False, None)


def test_pause_holds_back_what_waits(subscribing: Subscribing, told: dict[str, Any]) -> None:
    subscribing.ask("POST", told, "/pause")
    subscribing.send()
    assert subscribing.web.posted == []
    subscribing.ask("POST", told, "/unpause")
    subscribing.send()
    assert len(subscribing.received(told["secret"])) == 1


def test_redirects_are_not_followed(subscribing: Subscribing, told: dict[str, Any]) -> None:
    subscribing.answer(307, Location=f"{subscribing.web.url}/elsewhere")
    subscribing.send()
    assert [path for path, _ in subscribing.web.asked] == ["/hook"]
    assert subscribing.delivery(told)["answer"].startswith("HTTP 307: redirects are not followed")


def test_address_that_has_become_private_is_not_called(
    subscribing: Subscribing, told: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings(), "allow_private_urls", ())
    subscribing.send()
    assert subscribing.web.asked == []
    found = subscribing.delivery(told)
    assert found["status"] == "Pending"
    assert "is not on the public internet" in found["answer"]


def test_receiver_that_hangs_is_given_up_and_holds_up_no_other(
    subscribing: Subscribing, told: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "_ANSWER_SECONDS", 1.0)
    with web_server() as other:
        other.answers["/hook"] = (200, {}, b"")
        quick = subscribing.subscribe(name="quick", url=f"{other.url}/hook")
        subscribing.change(TrainingJob, status="Running")
        subscribing.change(TrainingJob, status="Cancelled")
        subscribing.web.held.set()

        async def work() -> bool:
            sender = Sender()
            await sender.begin()
            await asyncio.sleep(0.5)
            arrived = len(other.posted) == 1
            await sender.finish()
            return arrived

        try:
            assert subscribing.backends.run(work())
        finally:
            subscribing.web.held.clear()
    assert subscribing.delivery(quick)["status"] == "Delivered"
    assert {row["answer"] for row in subscribing.deliveries(told)} == {"There was no answer within 1 s."}


def test_two_processes_send_it_once(subscribing: Subscribing, told: dict[str, Any]) -> None:
    async def work() -> None:
        senders = [Sender() for _ in range(4)]
        await asyncio.gather(*(sender.begin() for sender in senders))
        await asyncio.gather(*(sender.finish() for sender in senders))

    subscribing.backends.run(work())
    assert len(subscribing.received(told["secret"])) == 1


def test_what_a_killed_process_was_sending_is_sent_by_the_next(subscribing: Subscribing, told: dict[str, Any]) -> None:
    now = datetime.now(UTC)
    subscribing.backends.catalogue(lambda session: subscription_deliveries.claim(session, told["id"], now))
    subscribing.send()
    assert subscribing.web.posted == []
    subscribing.send(subscription_deliveries.CLAIMED + timedelta(seconds=5))
    assert len(subscribing.received(told["secret"])) == 1
    assert subscribing.delivery(told)["attempts"] == 2


def test_both_secrets_sign_during_the_overlap(subscribing: Subscribing, told: dict[str, Any]) -> None:
    rotated = subscribing.ask("POST", told, "/rotate")
    subscribing.send()
    assert len(subscribing.received(told["secret"], rotated["secret"])) == 1
    newest = subscribing.ask("POST", told, "/rotate", json={"overlap_seconds": 0})
    subscribing.web.asked.clear()
    subscribing.web.posted.clear()
    subscribing.ask("POST", told, "/test")
    subscribing.send()
    ((_, message),) = subscribing.received(newest["secret"])
    assert (message["type"], message["data"]["name"]) == ("ping", "receiver")
    for secret in (told["secret"], rotated["secret"]):
        with pytest.raises(Unauthorized):
            subscribing.received(secret)


def test_old_deliveries_are_forgotten(subscribing: Subscribing, told: dict[str, Any]) -> None:
    subscribing.send()
    older = update(SubscriptionDelivery).where(SubscriptionDelivery.subscription_id == told["id"])
    long_ago = func.now() - subscription_deliveries.KEPT - timedelta(seconds=1)
    subscribing.backends.catalogue(lambda session: session.execute(older.values(created_at=long_ago)))
    subscribing.ask("POST", told, "/test")
    subscribing.send()
    assert subscribing.delivery(told)["event"] == "ping"
