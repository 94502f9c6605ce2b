"""Queries of subscriptions."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.errors import InvalidInput, NotFound
from emissary.ids import new_id
from emissary.schemas.subscriptions import SubscriptionCreate
from emissary.store.pages import Page, fetch
from emissary.store.pipeline_tables import Subscription
from emissary.store.tables import Project

MOST = 20
"""Subscriptions of a project."""


async def create(session: AsyncSession, project_id: str, wanted: SubscriptionCreate, user_id: str) -> Subscription:
    """A new subscription. Raises InvalidInput where the project has one of that name, or too many."""
    # Others who make one wait, so that there are not more in the end.
    await session.execute(select(Project.id).where(Project.id == project_id).with_for_update(key_share=True))
    there = await session.scalar(select(func.count()).where(Subscription.project_id == project_id))
    if there is not None and there >= MOST:
        raise InvalidInput(f"The project has {there} subscriptions, which is as many as it may have; delete one.")
    row = Subscription(id=new_id("sub"), project_id=project_id, created_by=user_id)
    _fill(row, wanted)
    session.add(row)
    await _flush(session, wanted)
    return row


async def replace(session: AsyncSession, row: Subscription, wanted: SubscriptionCreate) -> Subscription:
    """The subscription with these fields instead. Raises NotFound; InvalidInput where another one has its name."""
    row = await locked(session, row)
    _fill(row, wanted)
    await _flush(session, wanted)
    await session.refresh(row)
    return row


async def pause(session: AsyncSession, row: Subscription, paused: bool, reason: str | None = None) -> Subscription:
    """The subscription as one that is told nothing from now on, or is again. Raises NotFound."""
    row = await locked(session, row)
    row.paused, row.paused_reason = paused, reason
    await session.flush()
    await session.refresh(row)
    return row


async def rotate(session: AsyncSession, row: Subscription, overlap: timedelta) -> Subscription:
    """The subscription with its next secret; for `overlap` it is signed by the one before, too.

    Raises NotFound, and InvalidInput where a block sends it, which signs nothing.
    """
    row = await locked(session, row)
    if row.url is None:
        raise InvalidInput(f"The subscription {row.name!r} is sent by a block of Prefect, which has no secret.")
    row.version += 1
    row.previous_until = datetime.now(UTC) + overlap
    await session.flush()
    await session.refresh(row)
    return row


async def get(session: AsyncSession, subscription_id: str, project_id: str) -> Subscription:
    """The project's subscription. Raises NotFound."""
    row = await session.get(Subscription, subscription_id)
    if row is None or row.project_id != project_id:
        raise NotFound(f"There is no subscription {subscription_id!r} in project {project_id!r}.")
    return row


async def locked(session: AsyncSession, row: Subscription) -> Subscription:
    """The subscription as it is now, which nobody else changes during this transaction. Raises NotFound."""
    found = await session.get(Subscription, row.id, with_for_update={"key_share": True}, populate_existing=True)
    if found is None:
        raise NotFound(f"The subscription {row.name!r} was deleted.")
    return found


async def list_all(session: AsyncSession, project_id: str, wanted: Page) -> Sequence[Subscription]:
    """The project's subscriptions, the newest first."""
    query = select(Subscription).where(Subscription.project_id == project_id)
    return [row for (row,) in await fetch(session, query, Subscription, wanted)]


def _fill(row: Subscription, wanted: SubscriptionCreate) -> None:
    row.name, row.description, row.url, row.block = wanted.name, wanted.description, wanted.url, wanted.block
    row.events = list(dict.fromkeys(wanted.events))
    row.paused, row.paused_reason = wanted.paused, None


async def _flush(session: AsyncSession, wanted: SubscriptionCreate) -> None:
    try:
        await session.flush()
    except IntegrityError as error:
        if "subscriptions_project_name" not in str(error.orig):
            raise
        raise InvalidInput(f"name: there is a subscription {wanted.name!r} already; choose another name.") from error
