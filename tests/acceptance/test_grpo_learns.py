"""GRPO learns: from an SFT checkpoint it answers unseen rows better, which the same steps on noise do not do."""

from collections.abc import Callable

import pytest

from benchmarks.grpo_learns import BASE, CONTROL, GRPO, SFT, measure, table
from tests.conftest import SHOWN

pytestmark = pytest.mark.acceptance

MARGIN = 0.15


def test_grpo_lifts_the_reward_on_unseen_rows_and_noise_does_not(
    record_property: Callable[[str, object], None],
) -> None:
    outcomes = measure(seed=42)
    record_property(f"{SHOWN}GRPO from an SFT checkpoint, beside noise", table(outcomes))
    assert outcomes[SFT].score > outcomes[BASE].score
    gained = {name: outcomes[name].score - outcomes[SFT].score for name in (GRPO, CONTROL)}
    assert gained[GRPO] > MARGIN
    assert gained[CONTROL] < MARGIN / 2
