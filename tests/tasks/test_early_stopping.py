"""When training ends early, and that a killed one ends at the same epoch with the same bytes."""

import signal
import subprocess
import sys
from pathlib import Path

import torch
from hypothesis import given
from hypothesis import strategies as st

from tasks.early_stopping import epochs_since_best
from tasks.training_steps import FinishedCheckpoint
from tests.tasks import pooled_run
from tests.tasks.pooled_run import run

VALUES = st.floats(allow_nan=False)


@given(st.lists(VALUES, min_size=1, max_size=20))
def test_only_a_better_value_counts_as_better(values: list[float]) -> None:
    since = epochs_since_best(values)
    best = values[-1 - since]
    assert all(value < best for value in values[: -1 - since])
    assert all(value <= best for value in values[len(values) - since :])


def stopping(asked: list[int], work_dir: Path) -> list[FinishedCheckpoint]:
    """A training that ends with checkpoint 3 of 4, asked of after drawing random numbers."""
    checkpoints: list[FinishedCheckpoint] = []

    def ends_with(number: int) -> bool:
        asked.append(number)
        torch.rand(5)  # as loading a model to test with does
        return number == 3

    run("multiclass", work_dir, on_checkpoint=checkpoints.append, ends_with=ends_with)
    return checkpoints


def test_killed_training_ends_at_the_same_epoch_with_the_same_bytes(tmp_path: Path) -> None:
    asked: list[int] = []
    assert [checkpoint.number for checkpoint in stopping(asked, tmp_path / "whole")] == [1, 2, 3]
    assert asked == [1, 2, 3]
    # Killed at the first step of epoch 3; nothing was asked there.
    killed = subprocess.run([sys.executable, "-m", pooled_run.__name__, str(tmp_path / "killed"), "7"], check=False)
    assert killed.returncode == -signal.SIGKILL
    resumed: list[int] = []
    assert [checkpoint.number for checkpoint in stopping(resumed, tmp_path / "killed")] == [3]
    assert resumed == [2, 3]
    whole, again = (tmp_path / life / "checkpoints/3/adapter_model.safetensors" for life in ("whole", "killed"))
    assert whole.read_bytes() == again.read_bytes()
    # Called once more it is asked again, and does no step beyond.
    asked_again: list[int] = []
    assert stopping(asked_again, tmp_path / "killed") == []
    assert asked_again == [3]
