"""Identifiers: a prefix that tells the kind, and 22 characters that cannot be guessed."""

import hashlib
import secrets
import string
from typing import Literal

Prefix = Literal[
    "ms", "ds", "tr", "dp", "engine", "user", "key", "org", "up", "tf", "pl", "pr", "wh", "wd", "sub", "sd", "te"
]  # fmt: skip
_ALPHABET = string.ascii_letters + string.digits


def new_id(prefix: Prefix) -> str:
    """A new identifier such as `tr-3Kd…` (131 random bits)."""
    return f"{prefix}-{''.join(secrets.choice(_ALPHABET) for _ in range(22))}"


def derived_id(prefix: Prefix, *of: str) -> str:
    """The identifier that is made of these texts, always the same; as hard to guess as they are."""
    number = int.from_bytes(hashlib.sha256("\n".join(of).encode()).digest())
    digits = []
    for _ in range(22):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return f"{prefix}-{''.join(digits)}"
