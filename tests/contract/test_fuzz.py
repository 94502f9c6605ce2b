"""Generated requests, bounded: no 5xx, no answer outside its schema, nothing accepted that should be refused.

The phase that goes through every field of every request is left to tests/acceptance/test_fuzz.py.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from emissary.api.app import create_app
from emissary.client import Client
from emissary.up import Platform
from tests.conftest import SHOWN
from tests.contract.fuzzing import PHASES, clean, fuzz, fuzzable_contract, prepare, summary


@pytest.fixture(scope="module")
def prepared(platform: Platform) -> Iterator[tuple[Client, dict[str, str]]]:
    client, ids = prepare(platform)
    yield client, ids
    clean(client)


@pytest.mark.parametrize("which", PHASES)
def test_nothing_generated_breaks_the_api(
    prepared: tuple[Client, dict[str, str]],
    tmp_path: Path,
    record_property: Callable[[str, str], None],
    which: str,
) -> None:
    client, ids = prepared
    ours = create_app().openapi()
    document = ours if which == "our document" else fuzzable_contract(ours)
    options = ("--generation-deterministic", "--phases", PHASES[which].replace("coverage,", ""))
    said = fuzz(client, ids, document, tmp_path, *options, examples=3, scenarios=15)
    record_property(f"{SHOWN}schemathesis by {which}", summary(said))
