"""The walk through the contract, and the table of what it found in the test run's summary."""

from dataclasses import replace
from typing import Any

import pytest

from emissary.up import Platform
from tests.contract.scenario import OPERATIONS, Seen, faults, walk
from tests.keys import make_key

_SEEN = pytest.StashKey[Seen]()
SUMMARIES = pytest.StashKey[dict[str, list[str]]]()


@pytest.fixture(scope="session")
def seen(platform: Platform, pytestconfig: pytest.Config) -> Seen:
    """Operation → status code → what its answers had wrong."""
    found = walk(replace(platform, api_key=make_key("contract")))
    pytestconfig.stash[_SEEN] = found
    return found


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for which, lines in config.stash.get(SUMMARIES, {}).items():
        terminalreporter.section(f"schemathesis by {which}")
        terminalreporter.write("\n".join(lines) + "\n")
    seen = config.stash.get(_SEEN, None)
    if seen is None:
        return
    terminalreporter.section("the contract, operation by operation")
    bad = {name: faults(name, seen) for name in OPERATIONS}
    for name in OPERATIONS:
        codes = " ".join(str(code) for code in sorted(seen[name]))
        terminalreporter.write_line(f"{name:32} {codes:24} {bad[name][0] if bad[name] else 'ok'}")
    terminalreporter.write_line(f"{sum(not wrong for wrong in bad.values())} of {len(OPERATIONS)}")
