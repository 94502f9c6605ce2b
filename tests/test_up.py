from pathlib import Path

import pytest

from emissary.settings import Settings
from emissary.up import running
from tests.conftest import free_port


class Stop(Exception):
    """Ends the start of a platform."""


def test_a_platform_without_isolation_says_so_as_it_starts(tmp_path: Path) -> None:
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if line.startswith("PostgreSQL"):
            raise Stop

    chosen = Settings(home=tmp_path, sandbox="none", prefect_port=free_port())
    with pytest.raises(Stop), running(chosen, say):
        pass
    assert said[0].startswith("EMISSARY_SANDBOX=none: testing functions can read this machine's files")
