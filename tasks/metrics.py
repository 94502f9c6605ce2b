"""Metrics of a checkpoint over the whole test set, by scikit-learn, SciPy and sacreBLEU; None where one is undefined.

Importing them takes a third of a second, so this is imported where testing needs it.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sacrebleu.metrics import CHRF
from scipy.stats import binned_statistic, spearmanr
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    mean_absolute_error,
    precision_recall_fscore_support,
    r2_score,
    roc_curve,
    root_mean_squared_error,
)

from tasks.pooled_testing import Numbers, Predictions

Metrics = dict[str, float | None]

CALIBRATION_BINS = 15
SIMILAR = 0.5
"""A pair of this similarity or more counts as similar."""


def text_metrics(expected: Sequence[str], outputs: Sequence[str]) -> Metrics:
    """`exact_match`, the share of outputs that equal the expected ones, white space at both ends apart; and `chrf` of
    all rows together, 0 to 1: sacreBLEU's chrF2 (Popović 2015) divided by 100.
    """
    stripped = [[text.strip() for text in texts] for texts in (expected, outputs)]
    return {
        "exact_match": float(accuracy_score(*stripped)),
        "chrf": _number(CHRF().corpus_score(list(outputs), [list(expected)]).score / 100),
    }


def metrics(predictions: Predictions) -> Metrics:
    """Metrics of classification, regression or embedding, as the functions below; none where the model's outputs are
    not finite.
    """
    if not np.isfinite(predictions.predicted).all():
        return {}
    kinds = {"classification": _classification, "regression": _regression, "embedding": _embedding}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of what is undefined: the value says so
        return kinds[predictions.task.task_type](predictions)


@dataclass(frozen=True)
class Decisions:
    """The labels that apply and those that are predicted: an index into `names` per row, or (multilabel) 0 and 1 per
    row and name. Binary has the names `negative` and `positive`.
    """

    names: list[str]
    expected: Numbers
    predicted: Numbers


def decisions(predictions: Predictions) -> Decisions:
    """What the probabilities of a classification speak for."""
    task, expected, predicted = predictions.task, predictions.expected, predictions.predicted
    if task.label_kind == "multiclass":
        return Decisions(task.labels, expected.argmax(1), predicted.argmax(1))
    if task.label_kind == "binary":
        return Decisions(["negative", "positive"], expected[:, 0], (predicted[:, 0] > 0.5).astype(float))
    return Decisions(task.labels, expected, (predicted > 0.5).astype(float))


def class_metrics(predictions: Predictions) -> dict[str, Metrics] | None:
    """`precision`, `recall`, `f1` and `support` (rows of the class) per class; None where it is no classification.

    Precision is undefined for a class that is never predicted, recall for one without rows.
    """
    if predictions.task.task_type != "classification" or not np.isfinite(predictions.predicted).all():
        return None
    made = decisions(predictions)
    values = precision_recall_fscore_support(
        made.expected, made.predicted, labels=range(len(made.names)), average=None, zero_division=np.nan
    )
    return {
        label: {"precision": _number(precision), "recall": _number(recall), "f1": _number(f1), "support": int(support)}
        for label, precision, recall, f1, support in zip(made.names, *values, strict=True)
    }


def calibration_bins(predictions: Predictions) -> tuple[Numbers, Numbers, Numbers]:
    """Rows, mean probability, and share that was right, of each of 15 equally wide bins of probability (NaN if empty).

    Multiclass: the probability of the predicted label, and whether it is the right one. Else the probability of each
    label, and whether it applies.
    """
    if predictions.task.label_kind == "multiclass":
        made = decisions(predictions)
        probability, right = predictions.predicted.max(1), made.expected == made.predicted
    else:
        probability, right = predictions.predicted.ravel(), predictions.expected.ravel()
    bins = {"bins": CALIBRATION_BINS, "range": (0, 1)}
    counts = binned_statistic(probability, None, "count", **bins).statistic
    means = binned_statistic(probability, [probability, right], "mean", **bins).statistic
    return counts, means[0], means[1]


def similarity_threshold(predictions: Predictions) -> tuple[float | None, float | None]:
    """The cosine from which on pairs are best taken for similar, and the share of pairs that this gets right.

    Similar are those of `SIMILAR` or more. The threshold is chosen on the same pairs, so the accuracy is the highest
    that any threshold has. None where all pairs are of one kind.
    """
    similar = predictions.expected >= SIMILAR
    if similar.all() or not similar.any():
        return None, None
    false_positive, true_positive, thresholds = roc_curve(similar, predictions.predicted, drop_intermediate=False)
    accuracy = true_positive * similar.mean() + (1 - false_positive) * (1 - similar.mean())
    best = int(accuracy.argmax())
    return _number(thresholds[best]), _number(accuracy[best])


def _classification(predictions: Predictions) -> Metrics:
    """Accuracy (of the whole set of labels if multilabel), macro F1 over the classes that occur, micro F1 if
    multilabel; and expected calibration error (Guo et al. 2017, https://arxiv.org/abs/1706.04599).
    """
    made = decisions(predictions)
    labels = range(len(made.names))
    macro = f1_score(made.expected, made.predicted, labels=labels, average="macro", zero_division=np.nan)
    exact = float(accuracy_score(made.expected, made.predicted))
    counts, mean_probability, right = calibration_bins(predictions)
    error = np.average(np.nan_to_num(np.abs(mean_probability - right)), weights=counts)
    rest = {"macro_f1": _number(macro), "expected_calibration_error": _number(error)}
    if predictions.task.label_kind != "multilabel":
        return {"accuracy": exact} | rest
    micro = f1_score(made.expected, made.predicted, average="micro", zero_division=np.nan)
    return {"subset_accuracy": exact, "micro_f1": _number(micro)} | rest


def _regression(predictions: Predictions) -> Metrics:
    """Mean absolute error, root mean squared error, R² (undefined for targets that are all the same), Spearman's rank
    correlation (also for predictions).
    """
    expected, predicted = predictions.expected, predictions.predicted
    return {
        "mae": _number(mean_absolute_error(expected, predicted)),
        "rmse": _number(root_mean_squared_error(expected, predicted)),
        "r2": _number(r2_score(expected, predicted, force_finite=False)),
        "spearman": _spearman(predictions),
    }


def _embedding(predictions: Predictions) -> Metrics:
    """Spearman's rank correlation of cosine and similarity, and `similarity_threshold`."""
    threshold, accuracy = similarity_threshold(predictions)
    return {"spearman": _spearman(predictions), "threshold_accuracy": accuracy, "threshold": threshold}


def _spearman(predictions: Predictions) -> float | None:
    if len(predictions.expected) < 2:
        return None
    return _number(spearmanr(predictions.expected, predictions.predicted).statistic)


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
