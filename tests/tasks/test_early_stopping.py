"""When training ends early, and that a killed one ends at the same epoch with the same bytes."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tasks.early_stopping import epochs_since_best
from tasks.training_steps import FinishedCheckpoint
from tests.tasks.pooled_run import run

VALUES = st.floats(allow_nan=False)


@given(st.lists(VALUES, min_size=1, max_size=20))
def test_only_a_better_value_counts_as_better(values: list[float]) -> None:
    since = epochs_since_best(values)
    best = values[-1 - since]
    assert all(value < best for value in values[: -1 - since])
    assert all(value <= best for value in values[len(values) - since :])


class Killed(Exception):
    """Ends a training within a step."""


def stopping(asked: list[int], work_dir: Path, killed_at: float = 2.0) -> list[FinishedCheckpoint]:
    """A training that ends with checkpoint 3 of 4, or dies at a share of its steps; asking draws random numbers."""
    checkpoints: list[FinishedCheckpoint] = []

    def ends_with(number: int) -> bool:
        asked.append(number)
        torch.rand(5)  # as loading a model to test with does
        return number == 3

    def on_progress(share: float) -> None:
        if share >= killed_at:
            raise Killed

    run("multiclass", work_dir, on_checkpoint=checkpoints.append, ends_with=ends_with, on_progress=on_progress)
    return checkpoints


def test_killed_training_ends_at_the_same_epoch_with_the_same_bytes(tmp_path: Path) -> None:
    asked: list[int] = []
    assert [checkpoint.number for checkpoint in stopping(asked, tmp_path / "whole")] == [1, 2, 3]
    assert asked == [1, 2, 3]
    with pytest.raises(Killed):
        stopping([], tmp_path / "killed", killed_at=7 / 12)  # in epoch 3
    resumed: list[int] = []
    assert [checkpoint.number for checkpoint in stopping(resumed, tmp_path / "killed")] == [3]
    assert resumed == [2, 3]
    whole, again = (tmp_path / life / "checkpoints/3/adapter_model.safetensors" for life in ("whole", "killed"))
    assert whole.read_bytes() == again.read_bytes()
    # Called once more it is asked again, and does no step beyond.
    asked_again: list[int] = []
    assert stopping(asked_again, tmp_path / "killed") == []
    assert asked_again == [3]
