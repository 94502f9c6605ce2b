"""Webhooks of a pipeline."""

from datetime import timedelta

from fastapi import Request, Response

from emissary.api import webhook_signatures
from emissary.api.auth import CurrentCaller, OwnedPipeline
from emissary.api.idempotency import keep_without
from emissary.api.paging import WantedPage, link_next
from emissary.api.routing import keyed_router
from emissary.schemas.webhooks import (
    WebhookCreate,
    WebhookDeliveryDetail,
    WebhookDetail,
    WebhookParameters,
    WebhookRotate,
    WebhookWithSecret,
)
from emissary.settings import settings
from emissary.store import webhook_deliveries, webhooks
from emissary.store.database import transaction
from emissary.store.pipeline_tables import Webhook

router = keyed_router("Webhooks", "/v1/projects/{project_id}/pipelines/{pipeline_id}/webhooks")


def _detail(row: Webhook) -> WebhookDetail:
    return WebhookDetail(
        id=row.id,
        pipeline_id=row.pipeline_id,
        url=f"{settings().api_url}/v1/webhooks/{row.id}",
        name=row.name,
        scheme=row.scheme,
        parameters=WebhookParameters.model_validate(row.parameters),
        previous_until=row.previous_until,
        created_by=row.created_by,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _with_secret(row: Webhook, request: Request) -> WebhookWithSecret:
    keep_without(request, "secret")
    return WebhookWithSecret(**_detail(row).model_dump(), secret=webhook_signatures.secret(row))


@router.post("", status_code=201, operation_id="createWebhook", summary="Create webhook")
async def create_webhook(
    pipeline: OwnedPipeline, body: WebhookCreate, caller: CurrentCaller, request: Request
) -> WebhookWithSecret:
    """An address that starts the pipeline; its secret is shown in this answer only."""
    async with transaction() as session:
        row = await webhooks.create(session, pipeline, body, caller.user_id)
    return _with_secret(row, request)


@router.get("", operation_id="listWebhooks", summary="List webhooks")
async def list_webhooks(
    pipeline: OwnedPipeline, page: WantedPage, request: Request, response: Response
) -> list[WebhookDetail]:
    """The pipeline's webhooks, the newest first."""
    async with transaction() as session:
        rows = await webhooks.list_all(session, pipeline.id, page)
    link_next(request, response, page, [row.id for row in rows])
    return [_detail(row) for row in rows]


@router.get("/{webhook_id}", operation_id="retrieveWebhookById", summary="Retrieve webhook")
async def retrieve_webhook(pipeline: OwnedPipeline, webhook_id: str) -> WebhookDetail:
    """A webhook, without its secret."""
    async with transaction() as session:
        return _detail(await webhooks.get(session, pipeline.id, webhook_id))


@router.delete("/{webhook_id}", status_code=204, operation_id="deleteWebhookById", summary="Delete webhook")
async def delete_webhook(pipeline: OwnedPipeline, webhook_id: str) -> None:
    """Its address is unknown from now on; the runs that it began stay."""
    async with transaction() as session:
        await session.delete(await webhooks.get(session, pipeline.id, webhook_id))


@router.post("/{webhook_id}/rotate", status_code=201, operation_id="rotateWebhookById", summary="Rotate webhook")
async def rotate_webhook(
    pipeline: OwnedPipeline, webhook_id: str, request: Request, body: WebhookRotate | None = None
) -> WebhookWithSecret:
    """A new secret, shown in this answer only; the one before works on for `overlap_seconds`."""
    overlap = timedelta(seconds=(body or WebhookRotate()).overlap_seconds)
    async with transaction() as session:
        row = await webhooks.rotate(session, pipeline.id, webhook_id, overlap)
    return _with_secret(row, request)


@router.get("/{webhook_id}/deliveries", operation_id="listWebhookDeliveries", summary="List webhook deliveries")
async def list_deliveries(
    pipeline: OwnedPipeline, webhook_id: str, page: WantedPage, request: Request, response: Response
) -> list[WebhookDeliveryDetail]:
    """What began a run in the last thirty days, the newest first."""
    async with transaction() as session:
        await webhooks.get(session, pipeline.id, webhook_id)
        rows = await webhook_deliveries.list_all(session, webhook_id, page)
    link_next(request, response, page, [row.id for row in rows])
    return [WebhookDeliveryDetail.model_validate(row) for row in rows]
