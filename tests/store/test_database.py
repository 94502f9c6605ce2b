"""The embedded PostgreSQL server."""

import json
import tempfile
from pathlib import Path

import pytest

from emissary.settings import Settings
from emissary.store.database import catalogue_server


@pytest.mark.parametrize("left", [json.dumps([2**22 + 1]), "[12"], ids=["dead holder", "half-written list"])
def test_server_stops_though_an_earlier_holder_was_killed(left: str) -> None:
    # Not pytest's folder: that is closed to other users, and PostgreSQL runs as one when the tests run as root.
    with tempfile.TemporaryDirectory(prefix="emissary-test-") as home:
        settings = Settings(home=Path(home), database_url=None)
        with catalogue_server(settings):
            pass
        Path(home, "postgres", ".handle_pids.json").write_text(left)
        with catalogue_server(settings):
            assert Path(home, "postgres", "postmaster.pid").is_file()
        assert not Path(home, "postgres", "postmaster.pid").exists()
