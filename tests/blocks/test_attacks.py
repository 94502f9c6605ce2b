"""The sandbox holds against what `attempts.py` lists, as root and as another user. `-rA` lists attempt by attempt."""

import os
import re
from collections.abc import Callable
from functools import cache

import pytest

from tests.blocks import attacks
from tests.blocks.attacks import Isolation, Outcome
from tests.blocks.attempts import ATTEMPTS, Attempt
from tests.conftest import SHOWN

NAMES = [attempt.name for attempt in ATTEMPTS]
HARMLESS = [attempt for attempt in ATTEMPTS if attempt.works_outside]


@cache
def became(user: int, isolation: Isolation) -> dict[str, Outcome]:
    return attacks.outcomes_of(user, isolation)


@pytest.mark.usefixtures("namespaces")
@pytest.mark.parametrize("user", [0, attacks.NOBODY], ids=["root", "other"])
@pytest.mark.parametrize("attempt", ATTEMPTS, ids=NAMES)
def test_an_attack_is_contained(attempt: Attempt, user: int) -> None:
    if os.geteuid() != 0:
        if user == 0:
            pytest.skip("the tests do not run as root")
        user = os.geteuid()
    outcome = became(user, "bwrap")[attempt.name]
    assert not outcome.harm
    assert outcome.error is not None, "it worked"
    assert attempt.stopped_by(outcome.error), outcome.error


@pytest.mark.parametrize("attempt", HARMLESS, ids=[attempt.name for attempt in HARMLESS])
def test_it_is_the_sandbox_that_stops_it(attempt: Attempt) -> None:
    assert became(os.geteuid(), "none")[attempt.name].error is None


@pytest.mark.usefixtures("namespaces")
def test_what_was_tried_is_told(record_property: Callable[[str, object], None]) -> None:
    for user in sorted({os.geteuid(), attacks.NOBODY}) if os.geteuid() == 0 else [os.geteuid()]:
        found = became(user, "bwrap")
        count = sum(attacks.contained(attempt, found[attempt.name]) for attempt in ATTEMPTS)
        record_property(f"{SHOWN}attacks on the sandbox", f"as uid {user}: {count} of {len(ATTEMPTS)} contained")


def test_names_of_attempts_are_theirs_alone_and_those_of_the_table() -> None:
    assert len(set(NAMES)) == len(NAMES) >= 40
    table = (attacks.REPOSITORY / "docs" / "attacks.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| (.+?) \| contained", table, re.MULTILINE) == NAMES
