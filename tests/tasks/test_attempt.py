"""A process of its own per case, since what is tested ends it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest

from emissary.settings import settings
from tests.jobs import until
from tests.own_home import own_catalogue
from tests.postgres import catalogue_away

ROW = "tr-1"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with own_catalogue() as address:
        yield address


def lease(address: str) -> tuple[int, int]:
    """(token, beats) of the row's lease."""
    with psycopg.connect(address) as connection:
        found = connection.execute("SELECT token, beats FROM leases WHERE id = %s", (ROW,)).fetchone()
    assert found is not None
    return int(found[0]), int(found[1])


def take_over(address: str) -> None:
    with psycopg.connect(address) as connection:
        connection.execute("UPDATE leases SET token = token + 1, beats = 0 WHERE id = %s", (ROW,))


@pytest.fixture
def holder(address: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the row's lease, and answers each line on its input."""
    with psycopg.connect(address) as connection:
        connection.execute("DELETE FROM leases")
        values = (ROW, str(uuid4()), "here:1:0.0")
        connection.execute("INSERT INTO leases (id, token, flow_run_id, holder) VALUES (%s, 1, %s, %s)", values)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.tasks.lease_holder", ROW],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    yield process
    process.kill()
    process.communicate()


def ask(holder: subprocess.Popen[str], what: str) -> object:
    assert holder.stdin is not None
    assert holder.stdout is not None
    holder.stdin.write(what + "\n")
    holder.stdin.flush()
    line = holder.stdout.readline()
    return json.loads(line) if line else None


def test_process_gives_signs_of_life(address: str, holder: subprocess.Popen[str]) -> None:
    until(lambda: lease(address), lambda found: found[1] >= 2, 30)
    assert lease(address)[0] == 1
    assert ask(holder, "require") == "held"


def test_process_ends_without_a_crash_when_another_took_its_row(address: str, holder: subprocess.Popen[str]) -> None:
    take_over(address)
    assert holder.wait(30) == 0


def test_nothing_is_published_by_a_process_whose_row_another_took(address: str, holder: subprocess.Popen[str]) -> None:
    take_over(address)
    assert ask(holder, "require") is None  # it ended instead of answering
    assert holder.wait(30) == 0


def test_process_lives_through_an_outage_of_the_catalogue(address: str, holder: subprocess.Popen[str]) -> None:
    with catalogue_away(settings().home):
        assert holder.stdin is not None
        holder.stdin.write("require\n")
        holder.stdin.flush()
        with pytest.raises(subprocess.TimeoutExpired):
            holder.wait(3)
    assert holder.stdout is not None
    assert json.loads(holder.stdout.readline()) == "held"
    before = lease(address)[1]
    until(lambda: lease(address), lambda found: found[1] > before, 30)


def test_run_that_is_stuck_when_cancelled_is_killed_within_five_seconds(holder: subprocess.Popen[str]) -> None:
    assert ask(holder, "cancel") is True
    assert holder.wait(5) == -signal.SIGKILL


def test_run_that_its_worker_gives_back_saves_and_stops(holder: subprocess.Popen[str]) -> None:
    assert ask(holder, "must") == [False, False]
    assert ask(holder, "reschedule") == [False, True]
    assert ask(holder, "end") == "ends by signal 15"


def test_run_saves_and_fails_with_a_sentence_when_its_time_is_over(holder: subprocess.Popen[str]) -> None:
    assert ask(holder, "over time") == [False, True]
    assert "raise them and resume it" in str(ask(holder, "end"))
