"""Generated requests, at length and with a new seed every time; tests/contract/test_fuzz.py is the bounded run."""

from collections.abc import Callable
from pathlib import Path

import pytest

from emissary.api.app import create_app
from emissary.up import Platform
from tests.conftest import SHOWN
from tests.contract.fuzzing import PHASES, clean, fuzz, fuzzable_contract, prepare, summary


@pytest.mark.acceptance
@pytest.mark.parametrize("which", PHASES)
def test_nothing_generated_breaks_the_api(
    platform: Platform, tmp_path: Path, record_property: Callable[[str, str], None], which: str
) -> None:
    client, ids = prepare(platform)
    ours = create_app().openapi()
    document = ours if which == "our document" else fuzzable_contract(ours)
    try:
        said = fuzz(client, ids, document, tmp_path, "--phases", PHASES[which], examples=25, scenarios=50)
    finally:
        clean(client)
    record_property(f"{SHOWN}schemathesis by {which}, at length", summary(said))
