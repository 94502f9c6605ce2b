"""Queries of what webhooks were sent: each delivery once, kept longer than any sender repeats it."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.errors import Conflict
from emissary.ids import new_id
from emissary.store.pages import Page, fetch
from emissary.store.pipeline_tables import PipelineRun, Webhook, WebhookDelivery

KEPT = timedelta(days=30)


async def run_of(session: AsyncSession, webhook: Webhook, delivery_id: str, body_sha256: str) -> PipelineRun | None:
    """The run that this delivery began before. Raises Conflict where the id came with another body."""
    query = select(WebhookDelivery).where(
        WebhookDelivery.webhook_id == webhook.id, WebhookDelivery.delivery_id == delivery_id
    )
    known = (await session.scalars(query)).first()
    if known is None:
        return None
    if known.body_sha256 != body_sha256:
        raise Conflict(f"The delivery {delivery_id!r} came with another body before; a new one needs a new id.")
    return await session.get_one(PipelineRun, known.pipeline_run_id)


async def record(
    session: AsyncSession, webhook: Webhook, delivery_id: str | None, body_sha256: str, run: PipelineRun
) -> None:
    """Note that this delivery began the run, and forget the webhook's old ones."""
    old = WebhookDelivery.created_at < func.now() - KEPT
    await session.execute(delete(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook.id, old))
    row = WebhookDelivery(
        id=new_id("wd"),
        webhook_id=webhook.id,
        delivery_id=delivery_id,
        body_sha256=body_sha256,
        pipeline_run_id=run.id,
    )
    session.add(row)
    await session.flush()


async def list_all(session: AsyncSession, webhook_id: str, wanted: Page) -> Sequence[WebhookDelivery]:
    """The webhook's deliveries of the last thirty days, the newest first."""
    query = select(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook_id)
    return [row for (row,) in await fetch(session, query, WebhookDelivery, wanted)]
