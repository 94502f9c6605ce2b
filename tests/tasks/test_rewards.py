from typing import Any, Literal

import psutil
import pytest

from blocks.sandbox_replies import TestingFailed
from emissary.settings import settings
from emissary.testing_function_files import TestingFunction
from tasks.rewards import Rewards
from tasks.training import described
from tests.tasks.grpo_run import function


def opened(*functions: TestingFunction, group: int = 3, on_failure: Literal["lowest", "stop"] = "lowest") -> Rewards:
    return Rewards(functions, group=group, on_failure=on_failure)


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
    with opened(seen, function("one", "1")) as rewards:
        first, second = rewards.callables()
        assert (first.__name__, second.__name__) == ("seen", "one")
        assert first(**columns(["a", "", "ccc"])) == [2.0, 1.0, 4.0]
        assert second(**columns(["a", "b"])) == [1.0, 1.0]
        assert rewards.failures == 0


MIXED = function(
    "mixed",
    "{'raise': lambda: 1 / 0, 'nan': lambda: float('nan'), 'exit': lambda: __import__('os')._exit(1)}"
    ".get(predicted_output, lambda: float(predicted_output))()",
)


def test_rows_that_raise_give_no_number_or_end_the_process_get_the_lowest_score_of_their_group() -> None:
    with opened(MIXED) as rewards:
        (reward,) = rewards.callables()
        outputs = ["-3", "raise", "-2", "nan", "exit", "0.5", "raise", "nan", "exit"]
        assert reward(**columns(outputs)) == [-3.0, -3.0, -2.0, 0.5, 0.5, 0.5, 0.0, 0.0, 0.0]
        assert rewards.failures == 6
        assert reward(**columns(["raise"])) == [0.0]
        assert rewards.failures == 7
        assert rewards.last_failure == "mixed: ZeroDivisionError: division by zero (line 2)"
        assert reward(**columns(["1e15", "-1e16", "2"])) == [1e15, 2.0, 2.0]
        assert rewards.last_failure == "mixed: a reward must be from -1e+15 to 1e+15, not -1e+16"


def test_the_first_traceback_of_each_function_is_kept() -> None:
    where = function("where", "{'1': lambda: 1 / 0, '2': lambda: float('no'), '3': lambda: None}[predicted_output]()")
    with opened(where, MIXED) as rewards:
        first, second = rewards.callables()
        for outputs in (["3"], ["1"], ["2"]):  # of the first one no code has failed
            first(**columns(outputs))
        second(**columns(["raise"]))
        assert list(rewards.tracebacks) == ["where", "mixed"]
        assert "in where" in rewards.tracebacks["where"]
        assert rewards.tracebacks["where"].endswith("ZeroDivisionError: division by zero\n")


def test_a_failure_stops_where_that_is_wanted() -> None:
    with opened(MIXED, on_failure="stop") as rewards:
        (reward,) = rewards.callables()
        assert reward(**columns(["1", "2", "3"])) == [1.0, 2.0, 3.0]
        with pytest.raises(
            TestingFailed, match=r"'mixed' failed on 2 of 3 completions .*: ZeroDivisionError"
        ) as failure:
            reward(**columns(["1", "raise", "nan"]))
        assert "line 2, in mixed" in failure.value.traceback


def test_a_function_is_loaded_once_for_all_steps_and_its_process_ends_with_them() -> None:
    content = "calls = []\ndef counted(input_text, expected_output, predicted_output):\n    "
    counted = TestingFunction(name="counted", content=content + "calls.append(1)\n    return len(calls)\n")
    others = set(psutil.Process().children())
    with opened(counted) as rewards:
        (reward,) = rewards.callables()
        assert [reward(**columns(["a", "b"])) for _ in range(3)] == [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
        (process,) = set(psutil.Process().children()) - others
    assert not process.is_running()


def test_a_function_that_cannot_be_loaded_fails_on_every_row() -> None:
    with opened(TestingFunction(name="broken", content="import nothing_of_that_name")) as rewards:
        (reward,) = rewards.callables()
        assert reward(**columns(["a", "b"])) == [0.0, 0.0]
        assert rewards.failures == 2
        assert "No module named 'nothing_of_that_name'" in rewards.last_failure


def test_row_that_never_ends_gets_the_lowest_and_the_others_are_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings(), "testing_row_seconds", 1.0)
    endless = function("endless", "sum(iter(lambda: 1, 0)) if predicted_output == 'hang' else float(predicted_output)")
    with opened(endless) as rewards:
        (reward,) = rewards.callables()
        assert reward(**columns(["4", "hang", "5"])) == [4.0, 4.0, 5.0]
        assert rewards.last_failure == "endless: the function did not score the row within 1 s"


def test_rows_behind_the_time_limit_are_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings(), "testing_seconds", 2.0)
    slow = function("slow", "__import__('time').sleep(600 * (predicted_output == 'hang')) or 7")
    with opened(slow) as rewards:
        (reward,) = rewards.callables()
        assert reward(**columns(["a", "hang", "b"])) == [7.0, 7.0, 7.0]
        assert rewards.failures == 2
        assert "scored 1 of 3 rows within 2 s" in rewards.last_failure


def test_points_are_described_with_all_their_numbers() -> None:
    point = {"timestamp": 1, "step": 2, "epoch": 0.5, "learning_rate": 1e-5, "loss": 0.25, "rewards": {"a": 1.0}}
    assert described(point | {"kl": None, "reward_failures": 0}) == (
        "loss 0.2500, rewards/a 1.0000, reward_failures 0.0000"
    )
