"""One page of a list, the newest first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Select, literal, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.errors import InvalidInput
from emissary.store.pipeline_tables import (
    Pipeline,
    PipelineRun,
    Subscription,
    SubscriptionDelivery,
    Webhook,
    WebhookDelivery,
)
from emissary.store.tables import ApiKey, Dataset, Deployment, Engine, Project, TrafficEntry, TrainingJob

Listed = (
    Project
    | Dataset
    | TrainingJob
    | Engine
    | Deployment
    | TrafficEntry
    | ApiKey
    | Pipeline
    | PipelineRun
    | Webhook
    | WebhookDelivery
    | Subscription
    | SubscriptionDelivery
)


@dataclass(frozen=True)
class Page:
    """At most `limit` entries (None: all) of a list, from behind the entry whose id is `after` (None: its start)."""

    limit: int | None = None
    after: str | None = None


async def fetch(session: AsyncSession, query: Select[Any], kind: type[Listed], wanted: Page) -> Sequence[Row[Any]]:
    """The page of `query`, whose first column is a `kind`; cut by key, so that a far page costs what the first does.

    Raises InvalidInput when `after` is not among what `query` gives: an empty page would look like the list's end.
    """
    if wanted.after is not None:
        if (await session.execute(query.where(kind.id == wanted.after))).first() is None:
            raise InvalidInput(f"after: there is no {wanted.after!r} in this list, or not any more; begin it again.")
        position = tuple_(
            select(kind.created_at).where(kind.id == wanted.after).scalar_subquery(), literal(wanted.after)
        )
        query = query.where(tuple_(kind.created_at, kind.id) < position)
    query = query.order_by(kind.created_at.desc(), kind.id.desc())
    return (await session.execute(query.limit(wanted.limit))).all()
