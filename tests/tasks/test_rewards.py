from typing import Any

import pytest

from emissary.settings import settings
from tasks.rewards import Rewards
from tasks.training import described
from tests.tasks.grpo_run import function


@pytest.fixture
def short_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings(), "testing_seconds", 20.0)


def columns(outputs: list[str]) -> dict[str, Any]:
    """What TRL passes to a reward function."""
    return {
        "prompts": [[1, 2]] * len(outputs),
        "completions": outputs,
        "completion_ids": [[3]] * len(outputs),
        "input_text": ["asked"] * len(outputs),
        "expected_output": ["wanted"] * len(outputs),
        "trainer_state": None,
    }


def test_functions_see_input_expected_and_predicted_output_and_keep_their_names() -> None:
    seen = function("seen", "float((input_text, expected_output) == ('asked', 'wanted')) + len(predicted_output)")
    with Rewards([seen, function("one", "1")]) as rewards:
        first, second = rewards.callables()
        assert (first.__name__, second.__name__) == ("seen", "one")
        assert first(**columns(["a", "", "ccc"])) == [2.0, 1.0, 4.0]
        assert second(**columns(["a", "b"])) == [1.0, 1.0]
        assert rewards.failures == 0


def test_rows_that_raise_give_no_number_or_end_the_process_score_0_and_are_counted() -> None:
    body = "{'raise': lambda: 1 / 0, 'nan': lambda: float('nan'), 'exit': lambda: __import__('os')._exit(1)}"
    bad = function("bad", f"{body}.get(predicted_output, lambda: 0.5)()")
    with Rewards([bad]) as rewards:
        (reward,) = rewards.callables()
        assert reward(**columns(["a", "raise", "b", "nan", "exit", "c"])) == [0.5, 0.0, 0.5, 0.0, 0.0, 0.5]
        assert rewards.failures == 3
        assert reward(**columns(["raise"])) == [0.0]
        assert rewards.failures == 4
        assert rewards.last_failure.startswith("bad: ")
        assert "ZeroDivisionError" in rewards.last_failure


@pytest.mark.acceptance
@pytest.mark.usefixtures("short_limit")
def test_row_that_never_ends_scores_0_and_the_others_are_scored() -> None:
    endless = function("endless", "sum(iter(lambda: 1, 0)) if predicted_output == 'hang' else 1.0")
    with Rewards([endless]) as rewards:
        (reward,) = rewards.callables()
        assert reward(**columns(["a", "hang"])) == [1.0, 0.0]
        assert rewards.failures == 1


def test_points_are_described_with_all_their_numbers() -> None:
    point = {"timestamp": 1, "step": 2, "epoch": 0.5, "learning_rate": 1e-5, "loss": 0.25, "rewards": {"a": 1.0}}
    assert described(point | {"kl": None, "reward_failures": 0}) == (
        "loss 0.2500, rewards/a 1.0000, reward_failures 0.0000"
    )
