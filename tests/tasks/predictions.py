"""Predictions made up of random numbers by a seed, for metrics and plots."""

import numpy as np

from emissary.serving.adapter_task import AdapterTask
from tasks.pooled_testing import Predictions


def classified(kind: str, rows: int, labels: int, seed: int = 0) -> Predictions:
    """Of a classifier that is mostly right."""
    generator = np.random.default_rng(seed)
    task = AdapterTask(task_type="classification", label_kind=kind, labels=[f"label {n}" for n in range(labels)])  # type: ignore[arg-type]
    noise = generator.normal(size=(rows, labels))
    if kind == "multiclass":
        expected = np.eye(labels)[generator.integers(labels, size=rows)]
        odds = np.exp(noise + 3 * expected)
        return Predictions(task, expected, odds / odds.sum(1, keepdims=True))
    expected = (generator.random((rows, labels)) < 0.4).astype(float)
    return Predictions(task, expected, 1 / (1 + np.exp(1 - noise - 3 * expected)))


def regressed(rows: int, seed: int = 0) -> Predictions:
    """Of a regression with some error."""
    generator = np.random.default_rng(seed)
    target = generator.gamma(2, 50, rows)
    return Predictions(AdapterTask(task_type="regression"), target, target * 0.9 + generator.normal(size=rows) * 10)


def compared(rows: int, seed: int = 0) -> Predictions:
    """Of an embedding whose cosines follow the similarities."""
    generator = np.random.default_rng(seed)
    similarity = generator.uniform(-1, 1, rows)
    cosine = np.clip(similarity * 0.8 + generator.normal(size=rows) * 0.1, -1, 1)
    return Predictions(AdapterTask(task_type="embedding"), similarity, cosine)
