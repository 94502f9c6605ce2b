"""Fixtures that all tests share."""

import logging
import socket
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from emissary import model_files
from emissary.client import Client
from emissary.settings import Settings, settings
from emissary.up import Platform, running
from tests.web_server import ADDRESS

# Examples are bounded by their number: the clock of a shared machine says nothing about the code.
hypothesis.settings.register_profile("project", deadline=None)
hypothesis.settings.load_profile("project")

BASE_MODEL = "SmolLM2-135M-Instruct"
ENCODER = "all-MiniLM-L6-v2"
SHOWN = "shown: "
"""What a test records as a property `shown: TITLE` is printed at the end under that title, whichever process ran it."""


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print it."""
    shown: dict[str, list[str]] = defaultdict(list)
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        if getattr(report, "when", "") == "call":
            for name, text in report.user_properties:
                if name.startswith(SHOWN):
                    shown[name.removeprefix(SHOWN)].append(text)
    for title, texts in shown.items():
        terminalreporter.section(title)
        terminalreporter.write("\n".join(texts) + "\n")


_SERVERS = ("platform", "backends")
"""Fixtures of a session that start processes."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Have the tests of a file share a process, and files that use the same servers, so these are started once."""
    groups: dict[str, str] = {}
    for item in items:
        file = item.location[0]
        groups[file] = next((server for server in _SERVERS if server in item.fixturenames), groups.get(file, file))
    for item in items:
        item.add_marker(pytest.mark.xdist_group(groups[item.location[0]]))


@pytest.fixture(scope="session")
def base_model_dir() -> Path:
    """Folder of the small base model, fetched once into EMISSARY_HOME where EMISSARY_MODELS does not have it.

    The small encoder is, too: once a platform of the tests has named a home of its own, it would be fetched into that.
    """
    model_files.fetch(ENCODER, Settings())
    return model_files.fetch(BASE_MODEL, Settings())


def free_port() -> int:
    """A port of the loopback address that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def platform(base_model_dir: Path) -> Iterator[Platform]:
    """The whole platform with real parts, in a home of its own."""
    # Not pytest's folder: that is closed to other users, and PostgreSQL runs as one when the tests run as root.
    with tempfile.TemporaryDirectory(prefix="emissary-test-") as home, pytest.MonkeyPatch.context() as patch:
        for name in ("PREFECT_API_URL", "EMISSARY_DATABASE_URL", "EMISSARY_API_KEY"):
            patch.delenv(name, raising=False)
        values = {
            "EMISSARY_HOME": home,
            "EMISSARY_MODELS": str(base_model_dir.parent),
            "EMISSARY_PORT": str(free_port()),
            "EMISSARY_PREFECT_PORT": str(free_port()),
            "EMISSARY_MAX_UPLOAD_MB": "1",
            "EMISSARY_COLD_START_HOLD": "180",
            # What tests fetch from the web is there.
            "EMISSARY_ALLOW_PRIVATE_URLS": ADDRESS,
            # Names of models that tests make up would be looked up.
            "HF_HUB_OFFLINE": "1",
        }
        for name, value in values.items():
            patch.setenv(name, value)
        settings.cache_clear()  # tests that look behind the API see what it sees
        with running(Settings(), logging.getLogger("tests").info) as started:
            yield started
    settings.cache_clear()
    assert threading.active_count() < 50


@pytest.fixture(scope="session")
def client(platform: Platform) -> Client:
    """A client with the first key."""
    return Client(platform.api_url, platform.api_key)
