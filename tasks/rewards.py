"""Testing functions as the rewards of GRPO: each scores the completions of a step, in the sandbox or as a judge."""

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Literal, Self

import anyio.from_thread

from blocks.sandbox import Row, Sandbox
from blocks.sandbox_replies import OutOfTime, RowScore, TestingFailed
from emissary.judges import AnyFunction, JudgeFunction
from emissary.settings import settings
from emissary.testing_function_files import is_trusted
from tasks import judging
from tasks.attempt import Interrupted
from tasks.training_steps import Stopped

MAX_REWARD = 1e15
"""Training computes with rewards in 32 bits, and with their squares."""


class Rewards:
    """The testing functions of one run, as reward functions that TRL calls; open while it trains, in one thread.

    `group` is how many completions in a row are of the same prompt. A completion on which a function fails or runs out
    of time is counted in `failures`, and `last_failure` says which function and why; `tracebacks` has the first one of
    each function whose own code has one, in the order they came. With `on_failure` "lowest" it gets
    the lowest score of its group, 0 where there is none: whatever the function's range, a failure is no success. With
    "stop" it raises TestingFailed. A judge is asked from the event loop whose worker thread this is; one that is not to
    be had raises Unavailable.
    """

    def __init__(self, functions: Sequence[AnyFunction], *, group: int, on_failure: Literal["lowest", "stop"]) -> None:
        self._functions, self._group, self._on_failure = functions, group, on_failure
        self.failures, self.last_failure = 0, ""
        self.tracebacks: dict[str, str] = {}

    def __enter__(self) -> Self:
        # One event loop for the run: sandboxes live no longer than the thread that starts them.
        self._runner = asyncio.Runner()
        self._sandboxes = {
            function.name: Sandbox(
                function,
                seconds=settings().testing_seconds,
                row_seconds=settings().testing_row_seconds,
                isolation=settings().sandbox,
                trusted=is_trusted(function.name),
            )
            for function in self._functions
            if not isinstance(function, JudgeFunction)
        }
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._runner as runner:
            for sandbox in self._sandboxes.values():
                runner.run(sandbox.close())

    def callables(self) -> list[Callable[..., list[float]]]:
        """A reward function of TRL for each testing function, named like it."""
        return [self._reward(function) for function in self._functions]

    def _reward(self, function: AnyFunction) -> Callable[..., list[float]]:
        def reward(
            *, completions: list[str], input_text: list[str], expected_output: list[str], **_: Any
        ) -> list[float]:
            rows = list(zip(input_text, expected_output, completions, strict=True))
            scored = list(map(_bounded, self._scores(function, rows)))
            failed = [row for row in scored if row.score is None]
            if failed:
                self.failures += len(failed)
                self.last_failure = f"{function.name}: {failed[-1].error}"
                if traced := [row.traceback for row in failed if row.traceback]:
                    self.tracebacks.setdefault(function.name, traced[0])
                if self._on_failure == "stop":
                    raise TestingFailed(
                        f"Testing function {function.name!r} failed on {len(failed)} of {len(scored)} completions of a "
                        f"step: {failed[0].error}. Correct the function, or train with on_reward_failure `lowest`.",
                        failed[0].traceback,
                    )
            groups = [scored[at : at + self._group] for at in range(0, len(scored), self._group)]
            return [score for rows in groups for score in _with_lowest([row.score for row in rows])]

        reward.__name__ = function.name
        return reward

    def _scores(self, function: AnyFunction, rows: Sequence[Row]) -> list[RowScore]:
        if not isinstance(function, JudgeFunction):
            return self._runner.run(_score(self._sandboxes[function.name], rows))
        try:
            return anyio.from_thread.run(judging.score, function, rows)
        except Interrupted:
            raise Stopped from None  # while it waited for the judge


def _bounded(row: RowScore) -> RowScore:
    """The score, or an error where it is too large to be a reward."""
    if row.score is None or abs(row.score) <= MAX_REWARD:
        return row
    error = f"a reward must be from {-MAX_REWARD:g} to {MAX_REWARD:g}, not {row.score:g}"
    return RowScore(None, error, row.printed)


def _with_lowest(scores: Sequence[float | None]) -> list[float]:
    """The scores, the lowest of them where there is none."""
    lowest = min((score for score in scores if score is not None), default=0.0)
    return [lowest if score is None else score for score in scores]


async def _score(sandbox: Sandbox, rows: Sequence[Row]) -> list[RowScore]:
    """Every row's score, or its error, also where the function cannot be loaded or is too slow for all of them."""
    scores: list[RowScore] = []
    try:
        return await sandbox.run(rows)
    except TestingFailed as error:
        if isinstance(error, OutOfTime):
            scores = list(error.scores)
        return scores + [RowScore(None, str(error), traceback=error.traceback)] * (len(rows) - len(scores))
