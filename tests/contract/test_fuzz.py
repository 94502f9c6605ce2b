"""Requests generated from our document, bounded: no 5xx, no answer outside its schema, nothing accepted wrongly.

The phase that goes through every field of every request, and requests generated from the contract, are left to
tests/acceptance/test_fuzz.py.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from emissary.api.app import create_app
from emissary.client import Client
from emissary.up import Platform
from tests.conftest import SHOWN
from tests.contract.fuzzing import PHASES, clean, fuzz, prepare, summary


@pytest.fixture(scope="module")
def prepared(platform: Platform) -> Iterator[tuple[Client, dict[str, str]]]:
    client, ids = prepare(platform)
    yield client, ids
    clean(client)


def test_nothing_generated_breaks_the_api(
    prepared: tuple[Client, dict[str, str]], tmp_path: Path, record_property: Callable[[str, str], None]
) -> None:
    client, ids = prepared
    options = ("--generation-deterministic", "--phases", PHASES["our document"].replace("coverage,", ""))
    said = fuzz(client, ids, create_app().openapi(), tmp_path, *options, examples=3, scenarios=15)
    record_property(f"{SHOWN}schemathesis by our document", summary(said))
