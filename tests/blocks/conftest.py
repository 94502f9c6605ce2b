"""Running testing functions that the tests write."""

import asyncio
import textwrap
import warnings
from collections.abc import Callable
from typing import Literal

import pytest

from blocks.sandbox import RowScore, refusal, score_rows
from emissary.testing_function_files import TestingFunction

Score = Callable[..., list[RowScore]]


@pytest.fixture
def score_in() -> Score:
    """Scores rows with a function of this body, under an isolation of choice."""

    def run(
        body: str, rows: int = 100, seconds: float = 20, isolation: Literal["bwrap", "none"] = "bwrap"
    ) -> list[RowScore]:
        source = "def attempt(input_text, expected_output, predicted_output):\n" + textwrap.indent(
            textwrap.dedent(body).strip(), "    "
        )
        return asyncio.run(
            score_rows(
                TestingFunction(name="attempt", content=source),
                [(f"input {number}", f"expected {number}", f"{number}") for number in range(rows)],
                seconds=seconds,
                isolation=isolation,
                trusted=False,
            )
        )

    return run


@pytest.fixture
def score(score_in: Score) -> Score:
    """The same in the sandbox; where this machine refuses one, the test is skipped with a warning."""
    refused = refusal()
    if refused is not None:
        warnings.warn(f"THE SANDBOX IS NOT TESTED: this machine refuses namespaces: {refused}", stacklevel=1)
        pytest.skip(refused)
    return score_in
