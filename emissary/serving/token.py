"""The secret between the platform and one engine's private server."""

import hashlib
import hmac


def engine_token(signing_key: str, engine_id: str) -> str:
    """HMAC-SHA256 of the engine's id: both sides compute it, and nothing has to be stored."""
    return hmac.new(signing_key.encode(), f"engine:{engine_id}".encode(), hashlib.sha256).hexdigest()
