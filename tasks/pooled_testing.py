"""A checkpoint's predictions for the test rows of classification, regression and embedding."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from emissary.serving.adapter_task import AdapterTask
from emissary.serving.pooled import PooledModel
from tasks.pooled_rows import Row, cosine, expected_text, input_text, predicted_text, texts

ROWS_AT_ONCE = 16
Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Predictions:
    """The numbers behind a checkpoint's answers, in the rows' order.

    Classification: `expected` (rows, labels) has 1 where a label applies, `predicted` (rows, labels) its probability.
    Regression: target and prediction (rows,), in the unit of the targets. Embedding: similarity and cosine (rows,).
    """

    task: AdapterTask
    expected: Numbers
    predicted: Numbers


def predict_rows(
    model: PooledModel, rows: Sequence[Row], adapter: str | None, on_progress: Callable[[float], None]
) -> tuple[list[tuple[str, str, str]], Predictions]:
    """(input, expected output, predicted output) of each row, in the rows' order, as testing functions get them, and
    the numbers behind them.

    `adapter` is the name of a loaded adapter, None the base model, which has embeddings only. A text longer than the
    model's context loses its end. `on_progress` gets the share of rows done, 0 to 1; what it raises ends the work.
    """
    task = model.task(adapter)
    order = sorted(range(len(rows)), key=lambda index: -len(input_text(rows[index])))
    tested: dict[int, tuple[str, str, str]] = {}
    predicted: dict[int, Any] = {}
    for start in range(0, len(rows), ROWS_AT_ONCE):
        indices = order[start : start + ROWS_AT_ONCE]
        ready = [model.row(text, adapter, cut=True) for index in indices for text in texts(rows[index])]
        outputs = model.run(ready)
        per_row = len(ready) // len(indices)
        for position, index in enumerate(indices):
            row, of_row = rows[index], outputs[position * per_row : (position + 1) * per_row]
            tested[index] = (input_text(row), expected_text(row, task), predicted_text(of_row, task))
            predicted[index] = _predicted(of_row, task)
        on_progress(len(tested) / len(rows))
    numbers = Predictions(
        task,
        np.array([_expected(row, task) for row in rows], dtype=np.float64),
        np.array([predicted[index] for index in range(len(rows))], dtype=np.float64),
    )
    return [tested[index] for index in range(len(rows))], numbers


def _expected(row: Row, task: AdapterTask) -> float | list[int]:
    if task.task_type == "classification":
        return [row["labels"].get(label) or 0 for label in task.labels]
    return float(row["target"] if task.task_type == "regression" else row["similarity"])


def _predicted(outputs: Sequence[Tensor], task: AdapterTask) -> Any:
    """The model's outputs for the row's texts as a number, or a probability per label."""
    if task.task_type == "classification":
        return task.probabilities(outputs[0]).numpy()
    if task.task_type == "regression":
        return float(outputs[0])
    return cosine(outputs)
