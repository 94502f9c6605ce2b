"""The secrets of webhooks and subscriptions, whether a request was sent by somebody who has one, and how one is signed.

A secret is not stored: it is an HMAC of the thing's id and the secret's version under the platform's signing key.
"""

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from emissary.errors import InvalidInput, Unauthorized
from emissary.secret_files import signing_key
from emissary.settings import settings
from emissary.store.pipeline_tables import Subscription, Webhook

WINDOW_SECONDS = 300
_LONGEST_ID = 255


def secret(webhook: Webhook) -> str:
    """The webhook's secret as its sender is given it."""
    key = _key(webhook, webhook.version)
    return _as_text(key) if webhook.scheme == "standard" else key.hex()


def subscription_secret(subscription: Subscription) -> str:
    """The subscription's secret as its receiver is given it."""
    return _as_text(_key(subscription, subscription.version))


def _as_text(key: bytes) -> str:
    return f"whsec_{base64.b64encode(key).decode()}"


def _key(row: Webhook | Subscription, version: int) -> bytes:
    key = signing_key(settings()).get_secret_value().encode()
    kind = "webhook" if isinstance(row, Webhook) else "subscription"
    return hmac.new(key, f"{kind}:{row.id}:{version}".encode(), hashlib.sha256).digest()


def _keys(row: Webhook | Subscription) -> list[bytes]:
    """Those that work now."""
    overlaps = row.previous_until is not None and datetime.now(UTC) < row.previous_until
    versions = (row.version, row.version - 1) if overlaps else (row.version,)
    return [_key(row, version) for version in versions]


def signed(subscription: Subscription, delivery_id: str, body: bytes) -> dict[str, str]:
    """The headers of Standard Webhooks for what is sent now, with a signature by each secret that works."""
    timestamp = str(int(time.time()))
    signatures = standard_signatures(_keys(subscription), delivery_id, timestamp, body)
    return {
        "webhook-id": delivery_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{signature.decode()}" for signature in signatures),
    }


def standard_signatures(keys: Sequence[bytes], delivery_id: str, timestamp: str, body: bytes) -> list[bytes]:
    """The signature of Standard Webhooks by each of the keys."""
    content = f"{delivery_id}.{timestamp}.".encode("latin-1") + body
    return [base64.b64encode(hmac.digest(key, content, "sha256")) for key in keys]


def verified(webhook: Webhook | None, headers: Mapping[str, str], body: bytes) -> tuple[Webhook, str | None]:
    """The webhook, and the id that the sender gives this delivery, where it gives one.

    Raises Unauthorized, in the same words for a webhook that is not there; InvalidInput for an id that is none.
    """
    if webhook is None:
        raise _refusal()
    match webhook.scheme:
        case "standard":
            return webhook, verified_standard(_keys(webhook), headers, body)
        case "github":
            return webhook, _github(webhook, headers, body)
    return webhook, _token(webhook, headers)


def _refusal() -> Unauthorized:
    return Unauthorized(
        "There is no such webhook, or the request does not carry a signature or token made with its secret."
    )


def verified_standard(keys: Sequence[bytes], headers: Mapping[str, str], body: bytes) -> str:
    """The id of a delivery that is signed by one of the keys, by Standard Webhooks. Raises as `verified`."""
    sent_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    wanted = standard_signatures(keys, sent_id, timestamp, body)
    given = [part.removeprefix("v1,") for part in headers.get("webhook-signature", "").split(" ") if part[:3] == "v1,"]
    if not _any_equal(given, wanted):
        raise _refusal()
    delivery_id = _checked_id("webhook-id", sent_id)
    if not re.fullmatch("[0-9]{1,12}", timestamp):
        raise InvalidInput("webhook-timestamp: it must be the time of sending in UNIX seconds.")
    if abs(time.time() - int(timestamp)) > WINDOW_SECONDS:
        raise Unauthorized(
            f"webhook-timestamp: it is more than {WINDOW_SECONDS // 60} minutes from now; sign again, and check the "
            "sender's clock."
        )
    return delivery_id


def _github(webhook: Webhook, headers: Mapping[str, str], body: bytes) -> str:
    wanted = [hmac.new(key.hex().encode(), body, hashlib.sha256).hexdigest().encode() for key in _keys(webhook)]
    if not _any_equal([headers.get("x-hub-signature-256", "").removeprefix("sha256=")], wanted):
        raise _refusal()
    return _checked_id("X-GitHub-Delivery", headers.get("x-github-delivery", ""))


def _token(webhook: Webhook, headers: Mapping[str, str]) -> str | None:
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    given = headers.get("x-webhook-token") or (credentials.strip() if scheme.lower() == "bearer" else "")
    if not _any_equal([given], [key.hex().encode() for key in _keys(webhook)]):
        raise _refusal()
    for name in ("webhook-id", "idempotency-key"):
        if name in headers:
            return _checked_id(name, headers[name])
    return None


def _any_equal(given: list[str], wanted: list[bytes]) -> bool:
    return any(hmac.compare_digest(one.encode(), other) for one in given for other in wanted)


def _checked_id(header: str, value: str) -> str:
    if not 0 < len(value) <= _LONGEST_ID or not value.isprintable():
        raise InvalidInput(f"{header}: it must be there, with 1 to {_LONGEST_ID} printable characters.")
    return value
