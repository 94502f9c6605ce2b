"""Queries of webhooks."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.errors import InvalidInput, NotFound
from emissary.ids import new_id
from emissary.payload_templates import ROOTS, reads, rendered
from emissary.schemas.webhooks import WebhookCreate, WebhookParameters
from emissary.store import pipelines
from emissary.store.pages import Page, fetch
from emissary.store.pipeline_tables import Pipeline, Webhook


async def create(session: AsyncSession, pipeline: Pipeline, wanted: WebhookCreate, user_id: str) -> Webhook:
    """A new webhook. Raises InvalidInput where the pipeline has one of that name, or its runs cannot take what the
    parameters say, whatever is sent.
    """
    await _check(session, pipeline, wanted.parameters)
    row = Webhook(
        id=new_id("wh"),
        pipeline_id=pipeline.id,
        name=wanted.name,
        scheme=wanted.scheme,
        parameters=wanted.parameters.model_dump(mode="json", exclude_none=True),
        created_by=user_id,
    )
    session.add(row)
    try:
        await session.flush()
    except IntegrityError as error:
        if "webhooks_pipeline_name" not in str(error.orig):
            raise
        raise InvalidInput(f"name: there is a webhook {wanted.name!r} already; choose another name.") from error
    return row


async def _check(session: AsyncSession, pipeline: Pipeline, parameters: WebhookParameters) -> None:
    config = pipelines.config(pipeline)
    try:
        # Those that are made of what is sent may be there before the pipeline has a bucket to fetch them from.
        if objects := _alone(parameters.objects or []):
            pipelines.object_keys(config, objects)
        if datasets := _alone(parameters.datasets or []):
            await pipelines.gathered(session, pipeline.project_id, config, datasets)
    except InvalidInput as error:
        raise InvalidInput(f"parameters.{error}", error.code) from error


def _alone(templates: Sequence[str]) -> list[str]:
    """What those give that read nothing of what is sent."""
    return [rendered(each, {}) for each in templates if not any(reads(each, root) for root in ROOTS)]


async def get(session: AsyncSession, pipeline_id: str, webhook_id: str, *, lock: bool = False) -> Webhook:
    """The pipeline's webhook; with `lock` nobody else changes it until the transaction ends. Raises NotFound."""
    row = await session.get(Webhook, webhook_id, with_for_update={"key_share": True} if lock else None)
    if row is None or row.pipeline_id != pipeline_id:
        raise NotFound(f"There is no webhook {webhook_id!r} of the pipeline {pipeline_id!r}.")
    return row


async def list_all(session: AsyncSession, pipeline_id: str, wanted: Page) -> Sequence[Webhook]:
    """The pipeline's webhooks, the newest first."""
    query = select(Webhook).where(Webhook.pipeline_id == pipeline_id)
    return [row for (row,) in await fetch(session, query, Webhook, wanted)]


async def rotate(session: AsyncSession, pipeline_id: str, webhook_id: str, overlap: timedelta) -> Webhook:
    """The webhook with its next secret; the one before works for `overlap`, and older ones no more. Raises NotFound."""
    row = await get(session, pipeline_id, webhook_id, lock=True)
    row.version += 1
    row.previous_until = datetime.now(UTC) + overlap
    await session.flush()
    await session.refresh(row)
    return row
