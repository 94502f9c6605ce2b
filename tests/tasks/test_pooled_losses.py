"""What the dynamic losses do: at the level of rows, and to a training on skewed data."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from emissary.serving.adapter_task import AdapterTask
from emissary.serving.pooled import PooledModel
from tasks.pooled_losses import BETA, class_weights, row_losses
from tasks.pooled_rows import Example
from tasks.pooled_testing import predict_rows
from tasks.training_steps import FinishedCheckpoint
from tests.tasks.pooled_run import FOOD, NUMBERS, SPORT, TASKS, WEATHER, encoder_dir, run

EVEN = {"multiclass": torch.ones(3), "binary": torch.ones(1, 2)}


@pytest.mark.parametrize("kind", ["multiclass", "binary"])
def test_focal_loss_turns_to_rows_that_are_hard(kind: str) -> None:
    outputs, targets = torch.tensor([[3.0, 0.0, 0.0]] * 2), torch.tensor([0, 1])
    if kind == "binary":
        outputs, targets = torch.tensor([[3.0]] * 2), torch.tensor([[1.0], [0.0]])
    easy, hard = row_losses(TASKS[kind], outputs, targets, False, None)
    focal_easy, focal_hard = row_losses(TASKS[kind], outputs, targets, True, EVEN[kind])
    assert focal_hard / focal_easy > 10 * hard / easy
    certainty = torch.exp(-hard)
    assert focal_hard == pytest.approx(float((1 - certainty) ** 2 * hard))  # Lin et al., equation 4


def test_hubers_loss_grows_no_faster_than_the_error() -> None:
    outputs, targets = torch.tensor([[0.0], [0.0]]), torch.tensor([0.1, 10.0])
    near, far = row_losses(TASKS["numbers"], outputs, targets, True, None)
    assert far == pytest.approx(9.5)
    assert near == pytest.approx(0.005)


def multiclass(*counts: int) -> torch.Tensor:
    """Weights of classes that have so many rows."""
    task = AdapterTask(task_type="classification", label_kind="multiclass", labels=[str(n) for n in range(len(counts))])
    weights = class_weights(task, [Example([[1]], index) for index, count in enumerate(counts) for _ in range(count)])
    assert weights is not None
    return weights


@given(st.lists(st.integers(0, 60), min_size=2, max_size=5).filter(any))
def test_weights_of_classes_are_the_inverse_of_their_effective_numbers(counts: list[int]) -> None:
    weights = multiclass(*counts).tolist()
    assert sum(weights) == pytest.approx(len(counts))
    effective = [(1 - BETA**count) / (1 - BETA) for count in counts]
    products = [weight * number for weight, number in zip(weights, effective, strict=True) if number]
    assert products == pytest.approx([products[0]] * len(products), rel=1e-4)
    assert [weight == 0 for weight in weights] == [count == 0 for count in counts]


def test_weights_follow_rows_where_they_are_few_and_level_off_where_they_are_many() -> None:
    few, many = multiclass(10, 100), multiclass(8_000, 16_000)
    assert float(few[0] / few[1]) == pytest.approx(10, rel=0.05)
    assert float(many[0] / many[1]) == pytest.approx(1, rel=0.01)


def test_each_label_of_several_is_a_decision_of_its_own() -> None:
    task = AdapterTask(task_type="classification", label_kind="multilabel", labels=["a", "b"])
    rows = [Example([[1]], [float(number < 1), float(number < 5)]) for number in range(10)]
    weights = class_weights(task, rows)
    assert weights is not None
    assert weights.shape == (2, 2)
    assert float(weights[0, 1] / weights[0, 0]) == pytest.approx(9, rel=0.05)
    assert weights[1].tolist() == pytest.approx([1, 1])
    assert class_weights(TASKS["numbers"], []) is None


def predictions(kind: str, work_dir: Path, rows: list[Any], tested: list[Any], **parameters: Any) -> list[list[str]]:
    """(expected, predicted) of each row of `tested` after a training on `rows`."""
    checkpoints: list[FinishedCheckpoint] = []
    run(
        kind, work_dir, train_rows=rows, test_rows=[], on_checkpoint=checkpoints.append,
        parameters={"save_steps": 100} | parameters,
    )  # fmt: skip
    model = PooledModel(encoder_dir(), TASKS[kind].task_type)
    model.load_adapter("trained", checkpoints[-1].folder)
    answered, _ = predict_rows(model, tested, "trained", lambda _: None)
    return [list(row[1:]) for row in answered]


def test_dynamic_loss_finds_more_of_a_rare_class(tmp_path: Path) -> None:
    def row(text: str, is_food: bool) -> dict[str, Any]:
        return {"prompt": text, "labels": {"food": int(is_food)}}

    often = [row(f"{text}, {when}", False) for text in SPORT + WEATHER for when in ("today", "again", "they say")]
    rows = [*often, row(FOOD[0], True), row(FOOD[1], True)]
    unseen = [row(text, True) for text in (*FOOD[2:], "boil the rice and drain it", "a pinch of pepper and some oil")]
    recall = {}
    for dynamic in (False, True):
        answers = predictions("binary", tmp_path / str(dynamic), rows, unseen, num_train_epochs=2, dynamic_loss=dynamic)
        recall[dynamic] = sum(predicted == "positive" for _, predicted in answers) / len(unseen)
    assert recall[True] > recall[False]


def test_dynamic_loss_is_pulled_less_by_an_outlier(tmp_path: Path) -> None:
    rows = [*NUMBERS, {"prompt": "the price is 70 euros", "target": 1000.0}]
    error = {}
    for dynamic in (False, True):
        work_dir = tmp_path / str(dynamic)
        answers = predictions("numbers", work_dir, rows, NUMBERS[:6], num_train_epochs=8, dynamic_loss=dynamic)
        error[dynamic] = sum(abs(float(expected) - float(predicted)) for expected, predicted in answers)
    assert error[True] < error[False]
