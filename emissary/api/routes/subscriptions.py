"""Subscriptions of a project, and what they are told."""

import asyncio
from datetime import timedelta
from typing import Annotated

from fastapi import Query, Request, Response

from emissary import outbound
from emissary.api import notification_blocks, webhook_signatures
from emissary.api.auth import CurrentCaller, OwnedProject, OwnedSubscription
from emissary.api.idempotency import keep_without
from emissary.api.paging import WantedPage, link_next
from emissary.api.routing import keyed_router
from emissary.errors import InvalidInput, Unavailable
from emissary.schemas.subscriptions import (
    DeliveryStatus,
    SubscriptionCreate,
    SubscriptionDeliveryDetail,
    SubscriptionDetail,
    SubscriptionRotate,
    SubscriptionWithSecret,
)
from emissary.store import subscription_deliveries, subscriptions
from emissary.store.database import transaction
from emissary.store.pipeline_tables import Subscription, SubscriptionDelivery
from emissary.store.tables import Organization, Project

_CHECK_SECONDS = 10.0
Wanted = Annotated[DeliveryStatus | None, Query(alias="status", description="Only those in this status.")]
router = keyed_router("Subscriptions", "/v1/projects/{project_id}/subscriptions")


def _detail(row: Subscription) -> SubscriptionDetail:
    return SubscriptionDetail(**{name: getattr(row, name) for name in SubscriptionDetail.model_fields})


def _with_secret(row: Subscription, request: Request) -> SubscriptionWithSecret:
    keep_without(request, "secret")
    secret = None if row.url is None else webhook_signatures.subscription_secret(row)
    return SubscriptionWithSecret(**_detail(row).model_dump(), secret=secret)


def _delivery(row: SubscriptionDelivery) -> SubscriptionDeliveryDetail:
    shown = {name: getattr(row, name) for name in SubscriptionDeliveryDetail.model_fields}
    if row.status != "Pending":
        shown["next_attempt_at"] = None
    return SubscriptionDeliveryDetail(**shown)


async def _check(body: SubscriptionCreate, project: Project) -> None:
    """Raises InvalidInput where it could not be sent there, Unavailable where that cannot be told now."""
    if body.block is not None:
        async with transaction() as session:
            organization = await session.get_one(Organization, project.organization_id)
        await notification_blocks.load(body.block, organization.name)
        return
    assert body.url is not None
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            await outbound.check(body.url)
    except InvalidInput as error:
        raise InvalidInput(f"url: {error}", error.code) from error
    except TimeoutError as error:
        raise Unavailable("url: its host could not be looked up in time; try again soon.") from error


@router.post("", status_code=201, operation_id="createSubscription", summary="Create subscription")
async def create_subscription(
    project: OwnedProject, body: SubscriptionCreate, caller: CurrentCaller, request: Request
) -> SubscriptionWithSecret:
    """Has a URL, or a notification block of Prefect, be told of events; the secret is shown in this answer only."""
    await _check(body, project)
    async with transaction() as session:
        row = await subscriptions.create(session, project.id, body, caller.user_id)
    return _with_secret(row, request)


@router.get("", operation_id="listSubscriptions", summary="List subscriptions")
async def list_subscriptions(
    project: OwnedProject, page: WantedPage, request: Request, response: Response
) -> list[SubscriptionDetail]:
    """The project's subscriptions, the newest first."""
    async with transaction() as session:
        rows = await subscriptions.list_all(session, project.id, page)
    link_next(request, response, page, [row.id for row in rows])
    return [_detail(row) for row in rows]


@router.get("/{subscription_id}", operation_id="retrieveSubscriptionById", summary="Retrieve subscription")
async def retrieve_subscription(subscription: OwnedSubscription) -> SubscriptionDetail:
    """A subscription, without its secret."""
    return _detail(subscription)


@router.put("/{subscription_id}", operation_id="updateSubscriptionById", summary="Change subscription")
async def update_subscription(
    project: OwnedProject, subscription: OwnedSubscription, body: SubscriptionCreate
) -> SubscriptionDetail:
    """The subscription with these fields instead; its secret stays."""
    await _check(body, project)
    async with transaction() as session:
        return _detail(await subscriptions.replace(session, subscription, body))


@router.delete(
    "/{subscription_id}", status_code=204, operation_id="deleteSubscriptionById", summary="Delete subscription"
)
async def delete_subscription(subscription: OwnedSubscription) -> None:
    """It is told nothing more, and what it was told is forgotten."""
    async with transaction() as session:
        await session.delete(await subscriptions.locked(session, subscription))


@router.post("/{subscription_id}/pause", operation_id="pauseSubscriptionById", summary="Pause subscription")
async def pause_subscription(subscription: OwnedSubscription) -> SubscriptionDetail:
    """It is told nothing until it is unpaused; what happens meanwhile is not sent later."""
    async with transaction() as session:
        return _detail(await subscriptions.pause(session, subscription, True))


@router.post("/{subscription_id}/unpause", operation_id="unpauseSubscriptionById", summary="Unpause subscription")
async def unpause_subscription(subscription: OwnedSubscription) -> SubscriptionDetail:
    """It is told of events again, first of what was waiting when it was paused."""
    async with transaction() as session:
        return _detail(await subscriptions.pause(session, subscription, False))


@router.post(
    "/{subscription_id}/rotate", status_code=201, operation_id="rotateSubscriptionById", summary="Rotate subscription"
)
async def rotate_subscription(
    subscription: OwnedSubscription, request: Request, body: SubscriptionRotate | None = None
) -> SubscriptionWithSecret:
    """A new secret, shown in this answer only; for `overlap_seconds` deliveries are signed by the one before, too."""
    overlap = timedelta(seconds=(body or SubscriptionRotate()).overlap_seconds)
    async with transaction() as session:
        row = await subscriptions.rotate(session, subscription, overlap)
    return _with_secret(row, request)


@router.post(
    "/{subscription_id}/test",
    status_code=201,
    operation_id="testSubscriptionById",
    summary="Send a subscription a ping",
)
async def test_subscription(subscription: OwnedSubscription) -> SubscriptionDeliveryDetail:
    """Sends the event `ping`; its delivery says what came of it."""
    async with transaction() as session:
        return _delivery(await subscription_deliveries.ping(session, subscription))


@router.get(
    "/{subscription_id}/deliveries", operation_id="listSubscriptionDeliveries", summary="List subscription deliveries"
)
async def list_deliveries(
    subscription: OwnedSubscription, page: WantedPage, request: Request, response: Response, status: Wanted = None
) -> list[SubscriptionDeliveryDetail]:
    """What it was told, or is to be, in the last thirty days, the newest first."""
    async with transaction() as session:
        rows = await subscription_deliveries.list_all(session, subscription.id, page, status)
    link_next(request, response, page, [row.id for row in rows])
    return [_delivery(row) for row in rows]


@router.post(
    "/{subscription_id}/deliveries/{delivery_id}/redeliver",
    operation_id="redeliverSubscriptionDelivery",
    summary="Send a delivery again",
)
async def redeliver(subscription: OwnedSubscription, delivery_id: str) -> SubscriptionDeliveryDetail:
    """Sends it again now, with the same id, and tries for another day. 400 while it is Pending."""
    async with transaction() as session:
        return _delivery(await subscription_deliveries.redeliver(session, subscription.id, delivery_id))
