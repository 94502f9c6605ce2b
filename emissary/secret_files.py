"""Secrets that are made once and kept in a file that only the owner can read."""

import os
import secrets
from pathlib import Path

from pydantic import SecretStr

from emissary.errors import InvalidInput
from emissary.settings import Settings


def secret_file(path: Path, prefix: str = "") -> str:
    """The secret in `path`, made on the first call (256 random bits, mode 0600).

    Two processes that make it at once agree: whoever creates the file first wins.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    if not path.exists():
        draft.touch(mode=0o600)
        draft.write_text(prefix + secrets.token_urlsafe(32))
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text().strip()


def first_api_key(settings: Settings) -> SecretStr:
    """The first API key: EMISSARY_API_KEY, else the one kept in $EMISSARY_HOME/api-key."""
    return settings.api_key or SecretStr(secret_file(_key_file(settings), prefix="ek-"))


def known_api_key(settings: Settings) -> SecretStr:
    """The first API key of a platform that ran on this machine. Raises InvalidInput where none did."""
    if settings.api_key is not None:
        return settings.api_key
    try:
        return SecretStr(_key_file(settings).read_text().strip())
    except OSError as error:
        raise InvalidInput(
            f"There is no API key: {_key_file(settings)} cannot be read. Set EMISSARY_API_KEY, or give --api-key."
        ) from error


def _key_file(settings: Settings) -> Path:
    return settings.home / "api-key"


def signing_key(settings: Settings) -> SecretStr:
    """The secret that signs download links."""
    return settings.signing_key or SecretStr(secret_file(settings.home / "signing-key"))
