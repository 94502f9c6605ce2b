"""Testing functions as the rewards of GRPO: each scores the completions of a step, in the sandbox."""

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from blocks.sandbox import score_rows
from blocks.sandbox_replies import RowScore, TestingFailed
from emissary.settings import settings
from emissary.testing_function_files import TestingFunction, is_trusted

Triple = tuple[str, str, str]
"""(input, expected output, predicted output)"""


class Rewards:
    """The testing functions of one run, as reward functions that TRL calls; open while it trains.

    A completion on which a function fails or runs out of time scores 0 and is counted in `failures`; `last_failure`
    says which function and why.
    """

    def __init__(self, functions: Sequence[TestingFunction]) -> None:
        self._functions = functions
        self.failures, self.last_failure = 0, ""

    def __enter__(self) -> Self:
        # One event loop for the run: sandboxes live no longer than the thread that starts them.
        self._runner = asyncio.Runner()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._runner.close()

    def callables(self) -> list[Callable[..., list[float]]]:
        """A reward function of TRL for each testing function, named like it."""
        return [self._reward(function) for function in self._functions]

    def _reward(self, function: TestingFunction) -> Callable[..., list[float]]:
        def reward(
            *, completions: list[str], input_text: list[str], expected_output: list[str], **_: Any
        ) -> list[float]:
            triples = list(zip(input_text, expected_output, completions, strict=True))
            scores = self._runner.run(_score(function, triples))
            for row in scores:
                if row.score is None:
                    self.failures += 1
                    self.last_failure = f"{function.name}: {row.error}"
            return [row.score if row.score is not None else 0.0 for row in scores]

        reward.__name__ = function.name
        return reward


async def _score(function: TestingFunction, triples: Sequence[Triple]) -> list[RowScore]:
    """Every row's score, or the error it ended with.

    The sandbox gives up on all rows where too many fail; each then gets a process and its share of the time.
    """
    try:
        return await _sandboxed(function, triples, settings().testing_seconds)
    except TestingFailed:
        seconds = settings().testing_seconds / len(triples)
        return [await _score_alone(function, triple, seconds) for triple in triples]


async def _score_alone(function: TestingFunction, triple: Triple, seconds: float) -> RowScore:
    try:
        return (await _sandboxed(function, [triple], seconds))[0]
    except TestingFailed as error:
        return RowScore(None, str(error))


async def _sandboxed(function: TestingFunction, triples: Sequence[Triple], seconds: float) -> list[RowScore]:
    return await score_rows(
        function, triples, seconds=seconds, isolation=settings().sandbox, trusted=is_trusted(function.name)
    )
