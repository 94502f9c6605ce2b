"""What the steps of a GRPO training tell the caller: the rewards, and when they teach nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tasks.rewards import Rewards
from tasks.training_steps import LossPoint, Steps

IDLE_STEPS = 20
"""Steps without any difference between rewards after which there is a warning; half of a job with fewer than 40."""

OnWarning = Callable[[Literal["reward_failures", "equal_rewards"], str, Sequence[str]], None]
"""Gets what a warning is about, the sentence, and the first tracebacks of functions that had none before."""


@dataclass(frozen=True)
class RewardPoint(LossPoint):
    """The loss with the rewards of the completions sampled since the point before, as means over the steps.

    `reward` is the weighted sum, `reward_std` its standard deviation over a step's completions, `reward_group_std` that
    over the completions of one prompt, `rewards` the score of each testing function, `equal_groups` the share of
    prompts whose completions all got the same reward (of which nothing is learnt), `reward_failures` how often a
    function failed on a completion, `completion_length` in tokens, `entropy` of the next token in nats, `kl` the
    divergence from the base model in nats per token (None with beta 0), `clip_ratio` the share of tokens whose
    probability ratio was clipped: 0 where every step samples anew.
    """

    reward: float
    reward_std: float
    reward_group_std: float
    rewards: dict[str, float]
    equal_groups: float
    reward_failures: int
    completion_length: float
    entropy: float
    kl: float | None
    clip_ratio: float


class RewardSteps(Steps):
    """As Steps, with RewardPoints, and with warnings of functions that fail and of rewards without differences."""

    def __init__(self, rewards: Rewards, on_warning: OnWarning, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._rewards, self._on_warning = rewards, on_warning
        self._failures, self._told = 0, 0
        self._idle_since, self._idle_steps = 0, IDLE_STEPS

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        self._idle_steps = min(IDLE_STEPS, max(1, state.max_steps // 2))
        # A resumed run counts on.
        for logs in state.log_history:
            if "loss" in logs:
                self._idle_from(logs["step"], logs)
        super().on_train_begin(_args, state, _control)

    def _point(self, point: LossPoint, logs: dict[str, float]) -> RewardPoint:
        failures, self._failures = self._rewards.failures - self._failures, self._rewards.failures
        if failures:
            tracebacks = list(self._rewards.tracebacks.values())
            new, self._told = tracebacks[self._told :], len(tracebacks)
            self._on_warning(
                "reward_failures",
                f"Up to step {point.step}, testing functions failed {failures} more "
                f"{'time' if failures == 1 else 'times'}; each counts as the lowest of its group. Try the function on "
                "such rows, and correct it or them. The last was "
                f"{self._rewards.last_failure}",
                new,
            )
        idle_from = self._idle_from(point.step, logs)
        if idle_from is not None:
            self._on_warning(
                "equal_rewards",
                f"Of the steps {idle_from} to {point.step} nothing was learnt: all completions of each prompt got the "
                "same reward. Raise temperature or num_generations, reward what is nearly right too, or train by SFT "
                "first.",
                (),
            )
        return RewardPoint(
            **asdict(point),
            reward=logs["reward"],
            reward_std=logs["reward_std"],
            reward_group_std=logs["reward_group_std"],
            rewards={
                name.split("/")[1]: value
                for name, value in logs.items()
                if name.startswith("rewards/") and name.endswith("/mean")
            },
            equal_groups=logs["frac_reward_zero_std"],
            reward_failures=failures,
            completion_length=logs["completions/mean_length"],
            entropy=logs["entropy"],
            kl=logs.get("kl"),
            clip_ratio=logs["clip_ratio/region_mean"],
        )

    def _idle_from(self, step: int, logs: Mapping[str, float]) -> int | None:
        """The first of the steps, up to `step` with its `logs`, that taught nothing and are enough for a warning."""
        since = self._idle_since
        if logs["frac_reward_zero_std"] < 1:
            self._idle_since = step
        elif step - since >= self._idle_steps:
            self._idle_since = step
            return since + 1
        return None
