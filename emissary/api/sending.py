"""Sends what subscriptions are told: posts it to their URL, or has their notification block send it.

Each API process sends; a delivery is claimed for as long as sending may take, so no two send it at once. One that is
sent just when its process dies is sent again, with the same id. To one subscription a process sends one after the
other, so a receiver that hangs holds up nobody else.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version

import httpx

from emissary import outbound
from emissary.api import event_texts, notification_blocks, webhook_signatures
from emissary.errors import EmissaryError
from emissary.store import subscription_deliveries
from emissary.store.database import transaction
from emissary.store.pipeline_tables import Subscription, SubscriptionDelivery
from emissary.store.subscription_deliveries import Attempt, Claim

logger = logging.getLogger(__name__)

SEND_SECONDS = 1.0
_MOST = 16
_ANSWER_SECONDS = 10.0
_SHOWN_BYTES, _SHOWN_SECONDS = 300, 2.0


async def send_for_ever() -> None:
    """Look every second for what is to be sent."""
    sender = Sender()
    try:
        while True:
            try:
                await sender.begin()
            except Exception:
                logger.exception("Deliveries could not be looked for; trying again")
            await asyncio.sleep(SEND_SECONDS)
    finally:
        sender.stop()


class Sender:
    """The deliveries that this process sends."""

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def begin(self) -> None:
        """Begin to send to subscriptions that have something due, as many as there is room for."""
        self._tasks = {key: task for key, task in self._tasks.items() if not task.done()}
        if len(self._tasks) == _MOST:
            return
        async with transaction() as session:
            found = await subscription_deliveries.due(session, self._now(), list(self._tasks), _MOST - len(self._tasks))
        for subscription_id in found:
            self._tasks[subscription_id] = asyncio.create_task(self._send_all(subscription_id))

    async def finish(self) -> None:
        """Wait until all that was begun is sent."""
        await asyncio.gather(*self._tasks.values())

    def stop(self) -> None:
        """Break off; what is not sent is claimed again later."""
        for task in self._tasks.values():
            task.cancel()

    async def _send_all(self, subscription_id: str) -> None:
        try:
            while (claimed := await self._claimed(subscription_id)) is not None:
                attempt = await _attempt(claimed)
                async with transaction() as session:
                    await subscription_deliveries.settle(session, claimed, attempt, self._now())
        except Exception:
            logger.exception("What %s is told could not be sent; trying again", subscription_id)

    async def _claimed(self, subscription_id: str) -> Claim | None:
        async with transaction() as session:
            return await subscription_deliveries.claim(session, subscription_id, self._now())


async def _attempt(claimed: Claim) -> Attempt:
    subscription, delivery = claimed.subscription, claimed.delivery
    try:
        if subscription.block is not None:
            subject, text = event_texts.subject(delivery), event_texts.text(delivery)
            await notification_blocks.send(subscription.block, claimed.organization, subject, text)
            return Attempt(True, f"The block {subscription.block} sent it.")
        return await _post(subscription, delivery)
    except EmissaryError as error:
        return Attempt(False, str(error))
    except TimeoutError:
        return Attempt(False, f"There was no answer within {_ANSWER_SECONDS:g} s.")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return Attempt(False, f"It cannot be reached ({str(error) or type(error).__name__}).")


async def _post(subscription: Subscription, delivery: SubscriptionDelivery) -> Attempt:
    body = event_texts.payload(delivery)
    headers = webhook_signatures.signed(subscription, delivery.id, body) | {
        "Content-Type": "application/json",
        "Accept-Encoding": "identity",  # what is packed would be unpacked without a limit
        "User-Agent": f"Emissary-Pipelines/{version('emissary-pipelines')}",
    }
    async with (
        asyncio.timeout(_ANSWER_SECONDS),
        outbound.async_client() as http,
        http.stream("POST", subscription.url or "", content=body, headers=headers) as answer,
    ):
        status = answer.status_code
        if answer.is_success:
            return Attempt(True, f"HTTP {status}")
        if answer.is_redirect:
            return Attempt(False, f"HTTP {status}: redirects are not followed; give the address where it ends.")
        said = await _beginning(answer)
    gone = status == httpx.codes.GONE
    return Attempt(False, f"HTTP {status}" + (f": {said}" if said else ""), unwanted=gone)


async def _beginning(answer: httpx.Response) -> str:
    """The first characters of an answer, as far as they come soon."""
    content = b""
    try:
        async with asyncio.timeout(_SHOWN_SECONDS):
            async for chunk in answer.aiter_raw(_SHOWN_BYTES):
                content += chunk
                if len(content) >= _SHOWN_BYTES:
                    break
    except (TimeoutError, httpx.HTTPError):
        pass
    shown = content[:_SHOWN_BYTES].decode("utf-8", "replace")
    return " ".join("".join(letter if letter.isprintable() else " " for letter in shown).split())
