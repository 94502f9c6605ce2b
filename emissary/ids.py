"""Identifiers: a prefix that tells the kind, and 22 characters that cannot be guessed."""

import secrets
import string
from typing import Literal

Prefix = Literal["ms", "ds", "tr", "dp", "engine", "user", "key", "org", "up", "tf", "pl", "pr", "wh", "wd"]
_ALPHABET = string.ascii_letters + string.digits


def new_id(prefix: Prefix) -> str:
    """A new identifier such as `tr-3Kd…` (131 random bits)."""
    return f"{prefix}-{''.join(secrets.choice(_ALPHABET) for _ in range(22))}"
