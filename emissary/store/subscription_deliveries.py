"""What subscriptions are told: waiting to be sent, claimed by one sender at a time, and what came of it.

Events are written by the database itself, in the transaction in which they happen (migration 0013).
"""

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.errors import InvalidInput, NotFound
from emissary.ids import new_id
from emissary.schemas.subscriptions import PING, DeliveryStatus
from emissary.store import subscriptions
from emissary.store.pages import Page, fetch
from emissary.store.pipeline_tables import Subscription, SubscriptionDelivery
from emissary.store.tables import Organization, Project

TRIED = timedelta(days=1)
"""For so long one is tried again; the database's trigger says the same."""
KEPT = timedelta(days=30)
CLAIMED = timedelta(seconds=90)
"""After this time it is sent again where its sender has died."""
_FIRST_WAIT, _LONGEST_WAIT = timedelta(seconds=5), timedelta(hours=6)
_FACTOR, _JITTER = 3.0, 0.2


@dataclass(frozen=True)
class Claim:
    """A delivery that this process sends now, as its `attempts`-th time."""

    delivery: SubscriptionDelivery
    subscription: Subscription
    organization: str
    """Its name."""


@dataclass(frozen=True)
class Attempt:
    """What came of sending."""

    delivered: bool
    answer: str
    unwanted: bool = False
    """Whether the receiver wants nothing more."""


def wait_after(attempts: int) -> timedelta:
    """How long to wait after so many attempts have failed: three times as long each time, and some jitter."""
    wait = min(_FIRST_WAIT * _FACTOR ** min(attempts - 1, 20), _LONGEST_WAIT)
    return wait * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - no secret


async def ping(session: AsyncSession, row: Subscription) -> SubscriptionDelivery:
    """A delivery that only shows that it arrives. Raises InvalidInput where the subscription is paused."""
    if row.paused:
        raise InvalidInput(f"The subscription {row.name!r} is paused, so it is sent nothing; unpause it first.")
    now = datetime.now(UTC)
    delivery = SubscriptionDelivery(
        id=new_id("sd"),
        subscription_id=row.id,
        event=PING,
        data={"id": row.id, "project_id": row.project_id, "name": row.name},
        next_attempt_at=now,
        give_up_at=now + TRIED,
    )
    session.add(delivery)
    await session.flush()
    return delivery


async def list_all(
    session: AsyncSession, subscription_id: str, wanted: Page, status: DeliveryStatus | None = None
) -> Sequence[SubscriptionDelivery]:
    """The subscription's deliveries of the last thirty days, the newest first; with `status`, those in it."""
    query = select(SubscriptionDelivery).where(SubscriptionDelivery.subscription_id == subscription_id)
    if status is not None:
        query = query.where(SubscriptionDelivery.status == status)
    return [row for (row,) in await fetch(session, query, SubscriptionDelivery, wanted)]


async def redeliver(session: AsyncSession, subscription_id: str, delivery_id: str) -> SubscriptionDelivery:
    """The delivery, to be sent now and tried for another day. Raises NotFound, InvalidInput where it is Pending."""
    row = await session.get(SubscriptionDelivery, delivery_id, with_for_update=True)
    if row is None or row.subscription_id != subscription_id:
        raise NotFound(f"There is no delivery {delivery_id!r} of the subscription {subscription_id!r}.")
    if row.status == "Pending":
        raise InvalidInput(f"The delivery {row.id} is Pending: it is sent by itself, as its next_attempt_at says.")
    now = datetime.now(UTC)
    row.status, row.attempts, row.next_attempt_at, row.give_up_at = "Pending", 0, now, now + TRIED
    await session.flush()
    await session.refresh(row)
    return row


async def due(session: AsyncSession, now: datetime, busy: Collection[str], most: int) -> Sequence[str]:
    """Ids of subscriptions, but those of `busy`, that have something to be sent, the one that waits longest first."""
    query = (
        select(SubscriptionDelivery.subscription_id)
        .join(Subscription)
        .where(_is_due(now), Subscription.paused.is_(False), Subscription.id.not_in(busy))
        .group_by(SubscriptionDelivery.subscription_id)
        .order_by(func.min(SubscriptionDelivery.next_attempt_at))
    )
    return (await session.scalars(query.limit(most))).all()


async def claim(session: AsyncSession, subscription_id: str, now: datetime) -> Claim | None:
    """What is to be sent to the subscription next, which nobody else sends meanwhile; None where there is nothing."""
    query = (
        select(SubscriptionDelivery, Subscription, Organization.name)
        .join(Subscription, Subscription.id == SubscriptionDelivery.subscription_id)
        .join(Project, Project.id == Subscription.project_id)
        .join(Organization, Organization.id == Project.organization_id)
        .where(SubscriptionDelivery.subscription_id == subscription_id, _is_due(now), Subscription.paused.is_(False))
        .order_by(SubscriptionDelivery.next_attempt_at)
        .limit(1)
        .with_for_update(skip_locked=True, of=SubscriptionDelivery)
    )
    found = (await session.execute(query)).first()
    if found is None:
        return None
    delivery, subscription, organization = found
    delivery.attempts, delivery.attempted_at, delivery.next_attempt_at = delivery.attempts + 1, now, now + CLAIMED
    await session.flush()
    return Claim(delivery, subscription, organization)


async def settle(session: AsyncSession, claimed: Claim, attempt: Attempt, now: datetime) -> None:
    """Note what came of sending it: it is done, is sent again later, or is given up; and forget the subscription's old
    ones. Does nothing where it is gone, or somebody else has sent it meanwhile.
    """
    row = await session.get(
        SubscriptionDelivery, claimed.delivery.id, with_for_update={"key_share": True}, populate_existing=True
    )
    if row is None or (row.status, row.attempts) != ("Pending", claimed.delivery.attempts):
        return
    row.answer = attempt.answer
    following = now + wait_after(row.attempts)
    if attempt.delivered:
        row.status = "Delivered"
    elif attempt.unwanted or following > row.give_up_at:
        row.status = "Dead"
    else:
        row.next_attempt_at = following
    await session.flush()
    if attempt.unwanted:
        await subscriptions.pause(session, claimed.subscription, True, attempt.answer)
    ended = delete(SubscriptionDelivery).where(
        SubscriptionDelivery.subscription_id == row.subscription_id,
        SubscriptionDelivery.status != "Pending",
        SubscriptionDelivery.created_at < now - KEPT,
    )
    await session.execute(ended)


async def told_of(session: AsyncSession, resource_id: str) -> Sequence[str]:
    """Names of the subscriptions that are told of the thing."""
    query = select(Subscription.name).where(
        select(SubscriptionDelivery.id)
        .where(
            SubscriptionDelivery.subscription_id == Subscription.id,
            SubscriptionDelivery.data["id"].astext == resource_id,
        )
        .exists()
    )
    return (await session.scalars(query.order_by(Subscription.name))).all()


def _is_due(now: datetime) -> ColumnElement[bool]:
    return (SubscriptionDelivery.status == "Pending") & (SubscriptionDelivery.next_attempt_at <= now)
