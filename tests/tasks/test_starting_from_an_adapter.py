"""Training that goes on with the adapter of an earlier one: by SFT, by GRPO, and for pooled tasks."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from emissary.errors import InvalidInput
from tasks.reward_steps import RewardPoint
from tasks.training_steps import FinishedCheckpoint, LossPoint
from tests.tasks import grpo_run, pooled_run, sft_run
from tests.tasks.conftest import Trained
from tests.tasks.sft_run import ROWS

STILL = {"num_train_epochs": 1, "learning_rate": 1e-12}
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def parent(trained: Trained) -> FinishedCheckpoint:
    return trained.checkpoints[-1]


def resumed_bytes(run: ModuleType, work_dir: Path, kill_at: int, parent: Path, checkpoint: int) -> bytes:
    """The weights of a checkpoint of a training that was killed at a step and called again."""
    command = [sys.executable, "-m", run.__name__, str(work_dir), str(kill_at), str(parent)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert not (work_dir / "checkpoints" / str(checkpoint)).exists()
    if run is pooled_run:
        run.run("multiclass", work_dir, adapter_dir=parent)
    else:
        run.run(work_dir, adapter_dir=parent)
    return (work_dir / "checkpoints" / str(checkpoint) / WEIGHTS).read_bytes()


def test_sft_starts_from_the_parents_loss_and_goes_on_falling(
    trained: Trained, parent: FinishedCheckpoint, tmp_path: Path
) -> None:
    (still, moved) = (Trained(tmp_path / name) for name in ("still", "moved"))
    sft_run.run(still.work_dir, adapter_dir=parent.folder, on_checkpoint=still.checkpoints.append, parameters=STILL)
    assert still.checkpoints[0].test_loss == pytest.approx(parent.test_loss, abs=1e-3)
    assert trained.checkpoints[0].test_loss != pytest.approx(parent.test_loss, abs=0.1)
    sft_run.run(moved.work_dir, adapter_dir=parent.folder, on_checkpoint=moved.checkpoints.append)
    assert moved.checkpoints[-1].test_loss is not None
    assert parent.test_loss is not None
    assert moved.checkpoints[-1].test_loss < parent.test_loss


def test_outcome_is_one_adapter_of_the_parents_shape_that_peft_loads_on_the_base_model(
    parent: FinishedCheckpoint, model_dir: Path, tmp_path: Path
) -> None:
    # As the parent has them, whatever is asked for.
    asked = {"lora_r": 8, "lora_alpha": 64, "lora_dropout": 0.0}
    sft_run.run(tmp_path, adapter_dir=parent.folder, parameters=STILL | asked)
    folder = tmp_path / "checkpoints" / "1"
    assert not [path for path in folder.iterdir() if path.is_dir()]
    config = json.loads((folder / "adapter_config.json").read_text())
    before = json.loads((parent.folder / "adapter_config.json").read_text())
    assert config == before | {"lora_dropout": 0.0}
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model_dir), folder)
    assert model.peft_config["default"].r == 2
    weights, first = load_file(folder / WEIGHTS), load_file(parent.folder / WEIGHTS)
    assert set(weights) == set(first)
    assert all((weights[name] - first[name]).abs().max() < 1e-6 for name in first)


@pytest.mark.acceptance
def test_killed_sft_resumes_to_the_same_bytes(parent: FinishedCheckpoint, tmp_path: Path) -> None:
    sft_run.run(tmp_path / "whole", adapter_dir=parent.folder)
    whole = (tmp_path / "whole" / "checkpoints" / "2" / WEIGHTS).read_bytes()
    assert resumed_bytes(sft_run, tmp_path / "killed", 7, parent.folder, 2) == whole
    assert whole != (parent.folder / WEIGHTS).read_bytes()


@pytest.mark.acceptance
def test_grpo_is_held_near_the_checkpoint_it_starts_from(parent: FinishedCheckpoint, tmp_path: Path) -> None:
    points: list[LossPoint] = []
    grpo_run.run(tmp_path, adapter_dir=parent.folder, on_log=points.append)
    kl = [point.kl for point in points if isinstance(point, RewardPoint)]
    assert kl[0] == pytest.approx(0, abs=1e-4)  # from the base model it is 0.2
    assert kl[-1] is not None
    assert kl[-1] > 1e-4
    folder = tmp_path / "checkpoints" / "2"
    assert not [path for path in folder.iterdir() if path.is_dir()]  # no copy of the reference


@pytest.mark.acceptance
def test_killed_grpo_resumes_to_the_same_bytes(parent: FinishedCheckpoint, tmp_path: Path) -> None:
    grpo_run.run(tmp_path / "whole", adapter_dir=parent.folder)
    whole = (tmp_path / "whole" / "checkpoints" / "2" / WEIGHTS).read_bytes()
    assert resumed_bytes(grpo_run, tmp_path / "killed", 3, parent.folder, 2) == whole


@pytest.mark.acceptance
def test_sft_goes_on_from_grpo(parent: FinishedCheckpoint, tmp_path: Path) -> None:
    grpo_run.run(tmp_path / "grpo", adapter_dir=parent.folder, parameters={"num_train_epochs": 1})
    folder = tmp_path / "grpo" / "checkpoints" / "1"
    sft_run.run(tmp_path / "sft", adapter_dir=folder, parameters=STILL)
    config = json.loads((tmp_path / "sft/checkpoints/1/adapter_config.json").read_text())
    assert (config["r"], config["lora_dropout"]) == (2, 0.1)


@pytest.mark.parametrize("kind", ["multiclass", "numbers", "pairs"])
def test_pooled_task_starts_from_the_parents_adapter_and_head(kind: str, tmp_path: Path) -> None:
    before: list[FinishedCheckpoint] = []
    after: list[FinishedCheckpoint] = []
    pooled_run.run(kind, tmp_path / "parent", on_checkpoint=before.append, parameters={"save_steps": 100})
    folder = before[-1].folder
    pooled_run.run(kind, tmp_path / "still", adapter_dir=folder, on_checkpoint=after.append, parameters=STILL)
    assert after[0].test_loss == pytest.approx(before[-1].test_loss, rel=0.02, abs=1e-3)
    assert (after[0].folder / "task.json").read_bytes() == (folder / "task.json").read_bytes()
    weights, first = load_file(after[0].folder / WEIGHTS), load_file(folder / WEIGHTS)
    assert set(weights) == set(first)
    assert all((weights[name] - first[name]).abs().max() < 1e-6 for name in first)


@pytest.mark.acceptance
def test_killed_pooled_training_resumes_to_the_same_bytes_and_moves_the_head(tmp_path: Path) -> None:
    pooled_run.run("multiclass", tmp_path / "parent", parameters={"num_train_epochs": 1})
    parent = tmp_path / "parent" / "checkpoints" / "1"
    pooled_run.run("multiclass", tmp_path / "whole", adapter_dir=parent)
    whole = tmp_path / "whole" / "checkpoints" / "4" / WEIGHTS
    assert resumed_bytes(pooled_run, tmp_path / "killed", 7, parent, 4) == whole.read_bytes()
    first, last = load_file(parent / WEIGHTS), load_file(whole)
    heads = [name for name in first if "lora" not in name]
    assert heads
    assert all((first[name] != last[name]).any() for name in heads)


def test_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    pooled_run.run("pairs", tmp_path / "parent", parameters={"num_train_epochs": 1})
    with pytest.raises(InvalidInput, match="does not fit the base model"):
        sft_run.run(tmp_path / "child", adapter_dir=tmp_path / "parent/checkpoints/1", train_rows=ROWS[:2])
