import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import stdev

import pytest
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from blocks.sandbox_replies import TestingFailed
from emissary.errors import InvalidInput
from emissary.testing_function_files import TestingFunction
from tasks.reward_steps import RewardPoint
from tasks.training_steps import LossPoint
from tests.tasks import grpo_run
from tests.tasks.conftest import Trained
from tests.tasks.grpo_run import SHARE_OF_E, function, run
from tests.tasks.sft_run import ROWS, row


@pytest.fixture(scope="module")
def grpo_trained(single_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    done = Trained(tmp_path_factory.mktemp("grpo"))
    run(
        done.work_dir,
        on_log=done.points.append,
        on_progress=done.progress.append,
        on_checkpoint=done.checkpoints.append,
        on_completions=done.tables.append,
    )
    return done


def reward_point(point: LossPoint) -> RewardPoint:
    assert isinstance(point, RewardPoint)
    return point


def test_checkpoints_come_each_epoch_when_that_is_sooner_than_save_steps(
    grpo_trained: Trained, model_dir: Path
) -> None:
    assert [(point.number, point.epoch) for point in grpo_trained.checkpoints] == [(1, 1.0), (2, 2.0)]
    assert grpo_trained.progress == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert all(checkpoint.test_loss is None for checkpoint in grpo_trained.checkpoints)
    folder = grpo_trained.checkpoints[-1].folder
    assert folder == grpo_trained.work_dir / "checkpoints" / "2"
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == (
        "SmolLM2-135M-Instruct"
    )
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model_dir), folder)
    assert model.peft_config["default"].r == 2
    first, second = (load_file(point.folder / "adapter_model.safetensors") for point in grpo_trained.checkpoints)
    assert any((first[name] != second[name]).any() for name in first)


def test_points_report_rewards_of_all_functions_and_what_the_model_does(grpo_trained: Trained) -> None:
    points = [reward_point(point) for point in grpo_trained.points]
    assert [point.step for point in points] == [1, 2, 3, 4]
    assert all(set(point.rewards) == {"share_of_e", "length"} for point in points)
    assert all(point.reward == pytest.approx(point.rewards["share_of_e"]) for point in points)
    assert any(point.rewards["length"] > 5 for point in points)
    assert any(point.reward_std > 0 for point in points)
    assert all(0 < point.completion_length <= 8 for point in points)
    assert all(point.entropy > 0 for point in points)
    assert points[0].kl == pytest.approx(0, abs=1e-4)  # the new adapter changes nothing yet
    assert points[-1].kl is not None
    assert points[-1].kl > 0
    assert all(0 <= point.equal_groups <= 1 for point in points)
    assert {point.reward_failures for point in points} == {0}
    assert {point.clip_ratio for point in points} == {0.0}  # each step samples anew, so no ratio is far from 1
    assert points[1].learning_rate > points[-1].learning_rate > 0
    json.dumps([asdict(point) for point in points], allow_nan=False)


def test_tables_have_completions_of_every_point_with_their_rewards(grpo_trained: Trained) -> None:
    assert [len(table) for table in grpo_trained.tables] == [4, 8, 16]
    table = grpo_trained.tables[-1]
    assert [entry["at step"] for entry in table] == [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4
    asked = {row["messages"][-2]["content"]: row["messages"][-1]["content"] for row in ROWS[:4]}
    for entry in table:
        assert asked[entry["input"]] == entry["expected_output"]
        assert entry["length"] == len(entry["output"])
        assert entry["weighted sum"] == entry["share_of_e"]
    for point in map(reward_point, grpo_trained.points):
        scores = [entry["length"] for entry in table if entry["at step"] == point.step]
        assert point.rewards["length"] == pytest.approx(sum(scores) / 4)
        sums = [entry["weighted sum"] for entry in table if entry["at step"] == point.step]
        assert point.reward_group_std == pytest.approx((stdev(sums[:2]) + stdev(sums[2:])) / 2, abs=1e-4)


@pytest.mark.acceptance
def test_killed_training_resumes_to_the_same_completions_and_bytes(grpo_trained: Trained, tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-m", grpo_run.__name__, str(tmp_path), "3"], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "complete" / "1").exists()
    assert not (tmp_path / "checkpoints" / "2").exists()
    again = Trained(tmp_path)
    run(
        tmp_path,
        on_log=again.points.append,
        on_progress=again.progress.append,
        on_checkpoint=again.checkpoints.append,
        on_completions=again.tables.append,
    )
    assert again.tables == grpo_trained.tables[2:]
    assert again.progress == [2 / 4, 3 / 4, 1.0]
    assert [checkpoint.number for checkpoint in again.checkpoints] == [2]
    repeated = [replace(point, timestamp=0) for point in again.points]
    assert repeated == [replace(point, timestamp=0) for point in grpo_trained.points[2:]]
    for number in ("1", "2"):
        name = Path("checkpoints", number, "adapter_model.safetensors")
        assert (tmp_path / name).read_bytes() == (grpo_trained.work_dir / name).read_bytes()


def test_finished_training_does_nothing_again(grpo_trained: Trained) -> None:
    again = Trained(grpo_trained.work_dir)
    run(again.work_dir, on_log=again.points.append, on_checkpoint=again.checkpoints.append)
    assert (again.points, again.checkpoints) == ([], [])


def test_failing_functions_and_equal_rewards_are_counted_and_warned_of(tmp_path: Path) -> None:
    points: list[RewardPoint] = []
    warnings: list[tuple[str, str, Sequence[str]]] = []
    picky = function("picky", "1.0 if 'red' in expected_output else 1 / 0")
    run(
        tmp_path,
        train_rows=[row("Say it.", "red"), row("Say it.", "green")],
        functions=[picky],
        weights={"picky": 1.0},
        parameters={"num_train_epochs": 1, "loss_type": "dr_grpo", "beta": 0.0},
        on_log=lambda point: points.append(reward_point(point)),
        on_warning=lambda *warning: warnings.append(warning),
    )
    (point,) = points
    assert (point.reward, point.reward_failures, point.equal_groups) == (0.5, 2, 1.0)
    assert point.kl is None
    (failures_about, failed, (traceback,)), (idle_about, idle, none) = warnings
    assert (failures_about, idle_about, none) == ("reward_failures", "equal_rewards", ())
    assert "line 2, in picky" in traceback
    assert failed.startswith(
        "Up to step 1, testing functions failed 2 more times; each counts as the lowest of its group. Try the "
        "function on such rows, and correct it or them. The last was picky:"
    )
    assert "ZeroDivisionError: division by zero (line 2)" in failed
    assert idle.startswith(
        "Of the steps 1 to 1 nothing was learnt: all completions of each prompt got the same reward."
    )


def test_a_failure_counts_within_the_completions_of_its_prompt(tmp_path: Path) -> None:
    points: list[RewardPoint] = []
    # One of the two completions of each prompt fails, and so gets the score of the other.
    body = "calls = []\ndef half(input_text, expected_output, predicted_output):\n    calls.append(1)\n"
    body += "    return (5 if expected_output == 'red' else -5) if len(calls) % 2 else None\n"
    run(
        tmp_path,
        train_rows=[row("Say it.", "red"), row("Say it.", "green")],
        functions=[TestingFunction(name="half", content=body)],
        weights={"half": 1.0},
        parameters={"num_train_epochs": 1},
        on_log=lambda point: points.append(reward_point(point)),
    )
    (point,) = points
    assert (point.reward, point.reward_failures, point.equal_groups) == (0.0, 2, 1.0)
    assert (point.reward_std > 5, point.reward_group_std) == (True, 0.0)


def test_a_failure_ends_the_training_where_that_is_wanted(tmp_path: Path) -> None:
    parameters = {"on_reward_failure": "stop"}
    with pytest.raises(TestingFailed, match=r"'broken' failed on 4 of 4 completions of a step: ZeroDivisionError"):
        run(tmp_path, functions=[function("broken", "1 / 0")], weights={"broken": 1.0}, parameters=parameters)


def test_long_prompts_lose_their_beginning_and_are_counted(tmp_path: Path) -> None:
    rows = [row("word " * 100, "red"), row("Say it.", "green")]
    assert run(tmp_path, train_rows=rows, functions=[SHARE_OF_E], should_stop=lambda: True) == 1


def test_fewer_rows_than_a_step_takes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="A step takes 2 prompts, but there are 1 training rows"):
        run(tmp_path, train_rows=ROWS[:1])
