"""The walk through the contract, and the table of what it found in the test run's summary."""

from typing import Any

import pytest

from emissary.up import Platform
from tests.contract.scenario import OPERATIONS, Seen, faults, walk

_SEEN = pytest.StashKey[Seen]()


@pytest.fixture(scope="session")
def seen(platform: Platform, pytestconfig: pytest.Config) -> Seen:
    """Operation → status code → what its answers had wrong."""
    found = walk(platform)
    pytestconfig.stash[_SEEN] = found
    return found


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    seen = config.stash.get(_SEEN, None)
    if seen is None:
        return
    terminalreporter.section("the contract, operation by operation")
    bad = {name: faults(name, seen) for name in OPERATIONS}
    for name in OPERATIONS:
        codes = " ".join(str(code) for code in sorted(seen[name]))
        terminalreporter.write_line(f"{name:32} {codes:24} {bad[name][0] if bad[name] else 'ok'}")
    terminalreporter.write_line(f"{sum(not wrong for wrong in bad.values())} of {len(OPERATIONS)}")
