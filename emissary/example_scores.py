"""How good predictions for an example's test rows are, and how good those of baselines, by scikit-learn and SciPy."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error

from emissary.baselines import label_baselines, number_baselines
from emissary.example_rows import Rows

Metric = Literal["exact match", "accuracy", "macro F1", "mean absolute error", "Spearman"]


def scored(metric: Metric, expected: Sequence[Any], predicted: Sequence[Any]) -> float:
    """The metric of predictions, to three decimals.

    exact match: of texts. accuracy: of labels that exclude each other, and macro F1: of labels that do not, both given
    as one map for each row, from label to 0 or 1 or to its probability. Mean absolute error and Spearman: of numbers.
    """
    value = _value(metric, expected, predicted)
    return round(float(value), 3)


def better(metric: Metric, score: float, other: float) -> bool:
    """Whether `score` is better than `other`: lower for the mean absolute error, else higher."""
    return score < other if metric == "mean absolute error" else score > other


def baseline_scores(metric: Metric, train: Rows, test: Rows) -> dict[str, float]:
    """What baselines without a language model, trained on `train`, score on `test`: of labels or of numbers."""
    if metric == "mean absolute error":
        predictions = number_baselines(train[0], train[1], test[0])
        return {name: scored(metric, test[1], found.tolist()) for name, found in predictions.items()}
    names = sorted(test[1][0])
    marked = _matrix(train[1], names)
    several = metric == "macro F1"
    found = label_baselines(train[0], marked if several else marked.argmax(1), test[0], several=several)
    chosen = {name: rows if several else np.eye(len(names))[rows] for name, rows in found.items()}
    return {
        name: scored(metric, test[1], [dict(zip(names, row, strict=True)) for row in rows])
        for name, rows in chosen.items()
    }


def _value(metric: Metric, expected: Sequence[Any], predicted: Sequence[Any]) -> Any:
    if metric == "Spearman":
        return spearmanr(expected, predicted).statistic
    if metric == "mean absolute error":
        return mean_absolute_error(expected, predicted)
    if metric == "exact match":
        return accuracy_score([text.strip() for text in expected], [text.strip() for text in predicted])
    names = sorted(expected[0])
    truth, found = _matrix(expected, names), _matrix(predicted, names)
    if metric == "accuracy":
        return accuracy_score(truth.argmax(1), found.argmax(1))
    return f1_score(truth, found > 0.5, average="macro", zero_division=0)


def _matrix(rows: Sequence[Mapping[str, float]], names: Sequence[str]) -> NDArray[Any]:
    return np.array([[row[name] for name in names] for row in rows])
