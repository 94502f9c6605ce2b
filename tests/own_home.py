"""A home and a catalogue of their own, without the rest of the platform, for tests of what runs do in them."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from emissary.settings import Settings, settings
from emissary.store.database import companion_database, migrate
from emissary.store.embedded_server import embedded_server


@contextmanager
def own_home(**variables: str) -> Iterator[Path]:
    """EMISSARY_HOME in an empty folder while the block runs, and these variables; also for this process's settings."""
    # Not pytest's folder: that is closed to other users, and PostgreSQL runs as one when the tests run as root.
    with (
        tempfile.TemporaryDirectory(prefix="emissary-own-", ignore_cleanup_errors=True) as home,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name in ("EMISSARY_ARTIFACTS", "EMISSARY_DATABASE_URL"):
            patch.delenv(name, raising=False)
        for name, value in {"EMISSARY_HOME": home, **variables}.items():
            patch.setenv(name, value)
        # Those of the platform that other tests run beside come back afterwards.
        for name, value in Settings():
            patch.setattr(settings(), name, value)
        yield Path(home)


@contextmanager
def own_catalogue() -> Iterator[str]:
    """The address of an empty catalogue on a PostgreSQL of its own, which the settings name while the block runs."""
    with own_home() as home, embedded_server(home / "postgres") as server, pytest.MonkeyPatch.context() as patch:
        address = companion_database(server.get_uri(), "emissary")
        migrate(address)
        patch.setenv("EMISSARY_DATABASE_URL", address)
        patch.setattr(settings(), "database_url", address)
        yield address
