"""Running testing functions that the tests write."""

import asyncio
import textwrap
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import pytest

from blocks.bubblewrap import refusal
from blocks.sandbox import run_rows, score_rows
from blocks.sandbox_replies import RowScore
from emissary.settings import settings
from emissary.testing_function_files import TestingFunction

Score = Callable[..., list[RowScore]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An EMISSARY_HOME of the test's own, in this process."""
    monkeypatch.setattr(settings(), "home", tmp_path)
    return tmp_path


def _function(body: str, dependencies: Sequence[str]) -> TestingFunction:
    source = "def attempt(input_text, expected_output, predicted_output):\n" + textwrap.indent(
        textwrap.dedent(body).strip(), "    "
    )
    return TestingFunction(name="attempt", content=source, dependencies=list(dependencies))


def _rows(count: int) -> list[tuple[str, str, str]]:
    return [(f"input {number}", f"expected {number}", f"{number}") for number in range(count)]


@pytest.fixture
def score_in() -> Score:
    """Scores rows with a function of this body, under an isolation of choice."""

    def run(
        body: str,
        rows: int = 100,
        seconds: float = 20,
        isolation: Literal["bwrap", "none"] = "bwrap",
        dependencies: Sequence[str] = (),
    ) -> list[RowScore]:
        function = _function(body, dependencies)
        return asyncio.run(score_rows(function, _rows(rows), seconds=seconds, isolation=isolation, trusted=False))

    return run


@pytest.fixture
def namespaces() -> None:
    """Where this machine refuses a sandbox, the test is skipped with a warning."""
    refused = refusal()
    if refused is not None:
        warnings.warn(f"THE SANDBOX IS NOT TESTED: this machine refuses namespaces: {refused}", stacklevel=1)
        pytest.skip(refused)


@pytest.fixture
def score(namespaces: None, score_in: Score) -> Score:
    """As `score_in`, in the sandbox."""
    return score_in


@pytest.fixture
def score_each(namespaces: None) -> Score:
    """The same, where any number of rows may fail."""

    def run(body: str, rows: int = 2, row_seconds: float = 20, seconds: float = 30) -> list[RowScore]:
        limits = {"seconds": seconds, "row_seconds": row_seconds}
        return asyncio.run(run_rows(_function(body, ()), _rows(rows), **limits, isolation="bwrap", trusted=False))

    return run
