"""Requests as senders of webhooks make them, by their schemes' own words."""

import base64
import hashlib
import hmac
import time
import uuid


def new_id() -> str:
    return f"msg_{uuid.uuid4().hex}"


def signed(secret: str, body: bytes, delivery_id: str, at: float | None = None) -> dict[str, str]:
    """The headers of Standard Webhooks: base64 of HMAC-SHA256 over `id.timestamp.body`."""
    timestamp = str(int(time.time() if at is None else at))
    key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    content = b".".join((delivery_id.encode(), timestamp.encode(), body))
    signature = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    return {"webhook-id": delivery_id, "webhook-timestamp": timestamp, "webhook-signature": f"v1,{signature}"}


def by_github(secret: str, body: bytes, delivery_id: str, event: str = "push") -> dict[str, str]:
    """The headers of GitHub's deliveries: HMAC-SHA256 over the body, in hexadecimal digits."""
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {"X-Hub-Signature-256": f"sha256={digest}", "X-GitHub-Delivery": delivery_id, "X-GitHub-Event": event}
