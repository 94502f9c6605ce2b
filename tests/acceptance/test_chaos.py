"""Three minutes of storm lose nothing and leave nothing behind."""

import random
from collections.abc import Callable
from io import StringIO

import pytest
from rich.console import Console

from tests.acceptance.audit import table
from tests.acceptance.storm import run
from tests.conftest import SHOWN

pytestmark = pytest.mark.acceptance


def test_storm_loses_nothing_and_leaves_nothing(record_property: Callable[[str, str], None]) -> None:
    seed = random.SystemRandom().randrange(10**6)
    checks = run(3, seed, Console(width=160))
    audit = StringIO()
    Console(width=100, file=audit).print(table(checks, f"make chaos MINUTES=3 SEED={seed}"))
    record_property(f"{SHOWN}three minutes of storm", audit.getvalue())
    wrong = {check.question: check.wrong for check in checks if check.wrong}
    assert not wrong, f"seed {seed}: {wrong}"
