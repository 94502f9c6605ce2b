"""When a GRPO training warns, and with what."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.reward_steps import RewardSteps
from tasks.training_steps import Caller

DIFFERENT, EQUAL = 0.5, 1.0
"""Shares of prompts whose completions all got the same reward."""


class Training:
    """A training of `max_steps` steps of which each is logged, from a state that has the logs of `history`."""

    def __init__(self, max_steps: int, history: Sequence[dict[str, float]] = ()) -> None:
        self.warnings: list[tuple[str, str, Sequence[str]]] = []
        self.rewards: Any = SimpleNamespace(failures=0, last_failure="picky: no", tracebacks={})
        self.state = SimpleNamespace(global_step=0, epoch=0.0, max_steps=max_steps, log_history=list(history))
        self.state.global_step = max((int(logs["step"]) for logs in history), default=0)
        caller = Caller(*[lambda _: None] * 4, should_stop=lambda: False, should_save=lambda: False)
        self.steps = RewardSteps(
            self.rewards, lambda *warning: self.warnings.append(warning), max_steps, caller, lambda _number: None
        )
        self.steps.on_train_begin(None, self.state, None)

    def run(self, *equal_groups: float) -> "Training":
        """Do a step for each, of which it is the share of equal groups."""
        for share in equal_groups:
            self.state.global_step += 1
            logs = dict.fromkeys(
                ("loss", "learning_rate", "reward", "reward_std", "reward_group_std", "entropy",
                 "completions/mean_length", "clip_ratio/region_mean"),
                0.0,
            )  # fmt: skip
            logs |= {"frac_reward_zero_std": share, "step": self.state.global_step}
            self.steps.on_log(SimpleNamespace(learning_rate=0.1), self.state, None, logs)
            self.state.log_history.append(logs)
        return self

    @property
    def idle(self) -> list[str]:
        """The steps of which a warning says that nothing was learnt."""
        return [
            sentence.partition(" nothing was learnt")[0].removeprefix("Of the steps ")
            for about, sentence, _ in self.warnings
            if about == "equal_rewards"
        ]


@pytest.mark.parametrize(
    ("steps", "warned"),
    [(1, ["1 to 1"]), (4, ["1 to 2", "3 to 4"]), (30, ["1 to 15", "16 to 30"]), (100, ["1 to 20", "21 to 40"])],
)
def test_twenty_steps_that_teach_nothing_are_warned_of_or_half_of_a_short_job(steps: int, warned: list[str]) -> None:
    assert Training(steps).run(*[EQUAL] * min(steps, 40)).idle == warned


def test_a_step_that_teaches_something_begins_the_count_anew() -> None:
    assert Training(10).run(*[EQUAL] * 4, DIFFERENT, *[EQUAL] * 5).idle == ["6 to 10"]


@pytest.mark.parametrize("before", [[EQUAL] * 7, [DIFFERENT] * 3 + [EQUAL] * 4, [EQUAL] * 23])
def test_a_resumed_run_counts_on(before: list[float]) -> None:
    alone = Training(100).run(*before, *[EQUAL] * 20)
    first = Training(100).run(*before)
    ending = {"train_runtime": 1.0, "step": float(len(before))}
    again = Training(100, [*first.state.log_history, ending]).run(*[EQUAL] * 20)
    assert alone.idle == first.idle + again.idle


def test_a_warning_of_failures_comes_with_the_tracebacks_that_are_new() -> None:
    training = Training(100)
    for failures, tracebacks in ((1, {}), (2, {"a": "in a"}), (3, {"a": "in a"}), (4, {"a": "in a", "b": "in b"})):
        training.rewards.failures, training.rewards.tracebacks = failures, tracebacks
        training.run(DIFFERENT)
    assert [list(told) for _, _, told in training.warnings] == [[], ["in a"], [], ["in b"]]
