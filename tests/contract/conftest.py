"""The walk through the contract."""

from dataclasses import replace

import pytest

from emissary.up import Platform
from tests.contract.scenario import Seen, walk
from tests.keys import make_key


@pytest.fixture(scope="session")
def seen(platform: Platform) -> Seen:
    """Operation → status code → what its answers had wrong."""
    return walk(replace(platform, api_key=make_key("contract")))
