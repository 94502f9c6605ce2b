"""Three minutes of storm lose nothing and leave nothing behind."""

import random

import pytest
from rich.console import Console

from tests.acceptance.storm import run

pytestmark = pytest.mark.acceptance


def test_storm_loses_nothing_and_leaves_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    seed = random.SystemRandom().randrange(10**6)
    with capsys.disabled():  # a person sees the seed, and what it did
        checks = run(3, seed, Console(width=160))
    wrong = {check.question: check.wrong for check in checks if check.wrong}
    assert not wrong, f"seed {seed}: {wrong}"
