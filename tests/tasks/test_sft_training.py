import json
import math
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer
from trl import SFTTrainer

from emissary.errors import InvalidInput
from tasks import sft_training
from tasks.sft_rows import Conversation, tokenised
from tasks.training_steps import FinishedCheckpoint, LossPoint
from tests.tasks import sft_run
from tests.tasks.conftest import Trained
from tests.tasks.sft_run import ROWS, row, run


def test_every_epoch_leaves_a_checkpoint_with_falling_loss(trained: Trained) -> None:
    first, second = trained.checkpoints
    assert (first.number, first.epoch, second.number, second.epoch) == (1, 1.0, 2, 2.0)
    assert first.folder == trained.work_dir / "checkpoints" / "1"
    assert second.train_loss < first.train_loss
    assert first.test_loss is not None
    assert second.test_loss is not None
    assert second.test_loss < first.test_loss


def test_loss_points_and_progress_cover_all_steps(trained: Trained) -> None:
    assert [point.step for point in trained.points] == [2, 3, 4, 6, 8]
    assert trained.points[-1].epoch == 2.0
    assert trained.points[0].learning_rate == pytest.approx(1e-3)
    assert trained.progress == [step / 8 for step in range(9)]


def test_checkpoint_holds_what_users_download_and_names_no_folder(trained: Trained, model_dir: Path) -> None:
    folder = trained.checkpoints[-1].folder
    assert {file.name for file in folder.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "chat_template.jinja",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == (
        "SmolLM2-135M-Instruct"
    )
    for file in folder.iterdir():
        assert str(model_dir).encode() not in file.read_bytes()


def test_checkpoint_loads_with_peft(trained: Trained, model_dir: Path) -> None:
    folder = trained.checkpoints[-1].folder
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model_dir), folder)
    assert model.peft_config["default"].r == 2
    weights = load_file(folder / "adapter_model.safetensors")
    assert all(weight.any() for name, weight in weights.items() if "lora_B" in name)
    assert AutoTokenizer.from_pretrained(folder).chat_template


def test_failed_and_killed_training_resumes_to_the_same_bytes(trained: Trained, tmp_path: Path) -> None:
    def fail(_checkpoint: object) -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        run(tmp_path, on_checkpoint=fail)

    # The second life hands over checkpoint 1 again, and dies in epoch 2, a step after the state of step 6.
    killed = subprocess.run([sys.executable, "-m", sft_run.__name__, str(tmp_path), "7"], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "complete" / "1").exists()
    states = tmp_path / "trainer"
    assert (states / "checkpoint-6").exists()
    (states / "checkpoint-7").mkdir()
    (states / "checkpoint-7" / "trainer_state.json").write_text('{"epoch": 1.75, "glob')

    again = Trained(tmp_path)
    run(tmp_path, on_log=again.points.append, on_progress=again.progress.append, on_checkpoint=again.checkpoints.append)
    assert again.progress == [6 / 8, 7 / 8, 1.0]
    assert [checkpoint.number for checkpoint in again.checkpoints] == [2]
    assert again.checkpoints[0].train_loss == trained.checkpoints[1].train_loss
    assert again.checkpoints[0].test_loss == trained.checkpoints[1].test_loss
    assert [(point.step, point.loss) for point in again.points] == [(8, trained.points[-1].loss)]
    for number in ("1", "2"):
        for name in ("adapter_model.safetensors", "adapter_config.json"):
            uninterrupted = trained.work_dir / "checkpoints" / number / name
            assert (tmp_path / "checkpoints" / number / name).read_bytes() == uninterrupted.read_bytes()


def test_finished_training_does_nothing_again(trained: Trained) -> None:
    again = Trained(trained.work_dir)
    run(trained.work_dir, on_log=again.points.append, on_checkpoint=again.checkpoints.append)
    assert (again.points, again.checkpoints) == ([], [])


def test_training_in_another_thread_stops_when_asked(tmp_path: Path) -> None:
    progress: list[float] = []
    with ThreadPoolExecutor(1) as thread:
        thread.submit(
            run,
            tmp_path,
            parameters={"gradient_accumulation_steps": 2, "dynamic_loss": True},
            on_progress=progress.append,
            should_stop=lambda: len(progress) == 2,
        ).result()
    assert progress == [0.0, 0.25]
    assert not (tmp_path / "checkpoints").exists()


def test_dynamic_loss_weighs_tokens_by_their_probability(tmp_path: Path) -> None:
    points: list[LossPoint] = []
    run(
        tmp_path,
        parameters={"dynamic_loss": True, "logging_steps": 1},
        on_log=points.append,
        should_stop=lambda: bool(points),
    )
    # p × -log p is at most 1 / e, which the loss of unlearnt answers is far above.
    assert 0 < points[0].loss < math.exp(-1)


@pytest.mark.acceptance
def test_dynamic_loss_learns_the_common_answer_and_not_the_improbable_one(base_model_dir: Path, tmp_path: Path) -> None:
    """On rows of which few contradict the many, with the whole model, to which the common answer is plausible."""
    common, rare = (row("What is the capital of France?", answer) for answer in ("Paris.", "Purple soup."))
    tokenizer = AutoTokenizer.from_pretrained(base_model_dir)

    def surprise(answer: Conversation, adapter: Path | None) -> float:
        model = AutoModelForCausalLM.from_pretrained(base_model_dir, dtype=torch.float32)
        model = PeftModel.from_pretrained(model, adapter) if adapter else model
        rows, _ = tokenised([answer], tokenizer, 64)
        with torch.no_grad():
            return float(model(**{name: torch.tensor([rows[0][name]]) for name in ("input_ids", "labels")}).loss)

    found = {}
    for dynamic in (False, True):
        checkpoints: list[FinishedCheckpoint] = []
        run(
            tmp_path / str(dynamic),
            model_dir=base_model_dir,
            train_rows=[common] * 14 + [rare] * 2,
            test_rows=[],
            parameters={"dynamic_loss": dynamic, "num_train_epochs": 3, "save_steps": 100},
            on_checkpoint=checkpoints.append,
        )
        found[dynamic] = [surprise(answer, checkpoints[-1].folder) for answer in (common, rare)]
    before = surprise(rare, None)
    assert max(found[False][0], found[True][0]) < 0.3, "the common answer is not learnt"
    assert found[False][1] < before - 1
    assert found[True][1] > before - 0.5


@pytest.mark.parametrize("dynamic", [False, True])
def test_loss_and_gradient_are_those_of_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dynamic: bool
) -> None:
    """TRL's loss for dynamic fine-tuning, else that of transformers, whose logits are those of the prompt too."""
    theirs = SFTTrainer.compute_loss if dynamic else Trainer.compute_loss
    ours = sft_training._Trainer.compute_loss
    compared: list[list[float]] = []

    def compute_loss(self: Any, model: Any, inputs: dict[str, Any], *arguments: Any, **named: Any) -> Any:
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        found = []
        for compute in (ours, theirs):
            loss = compute(self, model, dict(inputs), num_items_in_batch=inputs["labels"].ne(-100).sum())
            gradients = torch.autograd.grad(loss, weights)
            found.append([loss.item(), *(gradient.norm().item() for gradient in gradients)])
        assert found[0] == pytest.approx(found[1], rel=1e-3, abs=1e-6)
        compared.append(found[0])
        return ours(self, model, inputs, *arguments, **named)

    monkeypatch.setattr(sft_training, "default_dtype", lambda _: torch.float32)
    monkeypatch.setattr(sft_training._Trainer, "compute_loss", compute_loss)
    parameters = {"dynamic_loss": dynamic, "lora_dropout": 0.0}
    run(tmp_path, test_rows=[], parameters=parameters, should_stop=lambda: len(compared) == 3)
    assert len(compared) == 3
    assert all(found[0] > 0 and any(found[1:]) for found in compared)


def test_training_that_is_to_save_ends_behind_its_step_and_goes_on_from_there(trained: Trained, tmp_path: Path) -> None:
    progress: list[float] = []
    states: list[str] = []
    run(
        tmp_path,
        on_progress=progress.append,
        on_state=lambda folder: states.append(folder.name),
        should_save=lambda: len(progress) == 3,
    )
    assert progress == [0.0, 1 / 8, 2 / 8]
    assert states == ["checkpoint-2"]
    again = Trained(tmp_path)
    run(tmp_path, on_progress=again.progress.append, on_checkpoint=again.checkpoints.append)
    assert again.progress[0] == 2 / 8
    for number in ("1", "2"):
        resumed = tmp_path / "checkpoints" / number / "adapter_model.safetensors"
        uninterrupted = trained.work_dir / "checkpoints" / number / "adapter_model.safetensors"
        assert resumed.read_bytes() == uninterrupted.read_bytes()


def test_state_that_the_caller_takes_away_is_not_missed(trained: Trained, tmp_path: Path) -> None:
    taken: list[str] = []

    def take(folder: Path) -> None:
        taken.append(folder.name)
        for file in folder.rglob("*"):
            if file.is_file():
                file.unlink()

    again = Trained(tmp_path)
    run(tmp_path, on_state=take, on_checkpoint=again.checkpoints.append)
    assert taken == ["checkpoint-3", "checkpoint-4", "checkpoint-6", "checkpoint-8"]
    assert [checkpoint.train_loss for checkpoint in again.checkpoints] == [
        checkpoint.train_loss for checkpoint in trained.checkpoints
    ]


def test_divergence_names_the_learning_rate(tmp_path: Path) -> None:
    parameters = {"learning_rate": 1e30, "warmup_ratio": 0.0, "logging_steps": 1}
    with pytest.raises(InvalidInput, match=r"Lower learning_rate, which is 1e\+30") as raised:
        run(tmp_path, parameters=parameters)
    assert raised.value.code == "training_diverged"
    assert not (tmp_path / "checkpoints").exists()


def test_no_training_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no training rows"):
        run(tmp_path, train_rows=[], test_rows=ROWS)
