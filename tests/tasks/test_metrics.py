import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emissary.metric_names import METRIC_NAMES
from emissary.serving.adapter_task import AdapterTask
from tasks.metrics import calibration_bins, class_metrics, metrics, similarity_threshold, text_metrics
from tasks.pooled_testing import Predictions

MULTICLASS = AdapterTask(task_type="classification", label_kind="multiclass", labels=["a", "b", "c"])
BINARY = AdapterTask(task_type="classification", label_kind="binary", labels=["food"])
MULTILABEL = AdapterTask(task_type="classification", label_kind="multilabel", labels=["a", "b"])
REGRESSION, EMBEDDING = AdapterTask(task_type="regression"), AdapterTask(task_type="embedding")


def made(task: AdapterTask, expected: Any, predicted: Any) -> Predictions:
    return Predictions(task, np.array(expected, dtype=float), np.array(predicted, dtype=float))


def test_multiclass_by_hand() -> None:
    # a → a, a → b, b → b; nothing is c.
    predictions = made(
        MULTICLASS, [[1, 0, 0], [1, 0, 0], [0, 1, 0]], [[0.9, 0.1, 0.0], [0.4, 0.6, 0.0], [0.2, 0.8, 0.0]]
    )
    found = metrics(predictions)
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["macro_f1"] == pytest.approx(2 / 3)  # both 2/3; c does not occur
    # Bins of one row each: |0.9 − 1|, |0.6 − 0|, |0.8 − 1|.
    assert found["expected_calibration_error"] == pytest.approx((0.1 + 0.6 + 0.2) / 3)
    classes = class_metrics(predictions)
    assert classes is not None
    assert classes["a"] == pytest.approx({"precision": 1.0, "recall": 0.5, "f1": 2 / 3, "support": 2})
    assert classes["b"] == pytest.approx({"precision": 0.5, "recall": 1.0, "f1": 2 / 3, "support": 1})
    assert classes["c"] == {"precision": None, "recall": None, "f1": None, "support": 0}


def test_binary_has_two_classes_and_its_probability_is_that_of_the_label() -> None:
    predictions = made(BINARY, [[1], [0], [0], [0]], [[0.9], [0.7], [0.2], [0.2]])
    assert metrics(predictions) == pytest.approx(
        {"accuracy": 0.75, "macro_f1": (2 / 3 + 0.8) / 2, "expected_calibration_error": (0.1 + 0.7 + 0.4) / 4}
    )
    classes = class_metrics(predictions)
    assert classes is not None
    assert [(name, values["support"]) for name, values in classes.items()] == [("negative", 3), ("positive", 1)]


def test_multilabel_counts_rows_and_labels() -> None:
    predictions = made(MULTILABEL, [[1, 0], [1, 1]], [[0.9, 0.1], [0.9, 0.2]])
    found = metrics(predictions)
    assert found["subset_accuracy"] == 0.5
    assert found["micro_f1"] == pytest.approx(0.8)
    assert found["macro_f1"] == pytest.approx(0.5)  # a: 1, b: never predicted


def test_the_list_of_names_has_every_metric() -> None:
    single, pair = [[1], [0]], [[1, 0], [0, 1]]
    found = [text_metrics(["a"], ["a"])]
    found += [metrics(made(task, pair, pair)) for task in (MULTICLASS, MULTILABEL)]
    found += [metrics(made(BINARY, single, single))]
    found += [metrics(made(task, [1.0, 0.0], [1.0, 0.0])) for task in (REGRESSION, EMBEDDING)]
    assert set().union(*found) == METRIC_NAMES


def test_regression_by_hand_and_where_it_is_undefined() -> None:
    found = metrics(made(REGRESSION, [1.0, 2.0, 3.0], [1.0, 2.0, 5.0]))
    assert found == pytest.approx({"mae": 2 / 3, "rmse": math.sqrt(4 / 3), "r2": -1.0, "spearman": 1.0})
    assert metrics(made(REGRESSION, [1.0], [3.0])) == {"mae": 2.0, "rmse": 2.0, "r2": None, "spearman": None}
    constant = metrics(made(REGRESSION, [1.0, 1.0], [3.0, 3.0]))
    assert constant == {"mae": 2.0, "rmse": 2.0, "r2": None, "spearman": None}


def test_threshold_is_the_one_that_tells_most_pairs_apart() -> None:
    predictions = made(EMBEDDING, [1.0, 0.8, 0.5, 0.1, -0.5], [0.9, 0.7, 0.3, 0.4, 0.0])
    assert similarity_threshold(predictions) == (pytest.approx(0.7), pytest.approx(0.8))
    assert metrics(predictions)["spearman"] == pytest.approx(0.9)
    assert similarity_threshold(made(EMBEDDING, [0.1, 0.2], [0.3, 0.4])) == (None, None)
    # Nothing is better than taking no pair for similar.
    assert similarity_threshold(made(EMBEDDING, [1, 0, 0], [0.1, 0.5, 0.9])) == (None, pytest.approx(2 / 3))


def test_texts_are_compared_whole_and_by_characters() -> None:
    assert text_metrics(["red", "green"], [" red\n", "green"]) == {"exact_match": 1.0, "chrf": 1.0}
    found = text_metrics(["the cat sat", ""], ["the cat is", "?"])
    assert found["exact_match"] == 0.0
    assert 0 < (found["chrf"] or 0) < 1


def test_outputs_that_are_not_finite_have_no_metrics() -> None:
    assert metrics(made(REGRESSION, [1.0], [math.nan])) == {}
    assert class_metrics(made(BINARY, [[1]], [[math.nan]])) is None


probability = st.floats(0, 1)
anything = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), probability, probability, probability), min_size=1, max_size=20))
def test_any_classification_has_metrics_between_zero_and_one(rows: list[tuple[int, float, float, float]]) -> None:
    expected = np.eye(3)[[row[0] for row in rows]]
    for task, of_task in ((MULTICLASS, slice(0, 3)), (BINARY, slice(0, 1)), (MULTILABEL, slice(0, 2))):
        predictions = Predictions(task, expected[:, of_task], np.array([row[1:] for row in rows])[:, of_task])
        found = metrics(predictions)
        assert all(0 <= value <= 1 + 1e-9 for value in found.values() if value is not None), found
        counts, _, _ = calibration_bins(predictions)
        assert counts.sum() == len(rows) * (2 if task is MULTILABEL else 1)
        classes = class_metrics(predictions)
        assert classes is not None
        json.dumps([found, classes], allow_nan=False)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(anything, anything), min_size=1, max_size=20))
def test_any_numbers_have_metrics_or_null(rows: list[tuple[float, float]]) -> None:
    expected, predicted = zip(*rows, strict=True)
    json.dumps(metrics(made(REGRESSION, expected, predicted)), allow_nan=False)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=1, max_size=20))
def test_accuracy_at_the_threshold_is_that_of_the_pairs(rows: list[tuple[float, float]]) -> None:
    expected, cosine = (np.array(values) for values in zip(*rows, strict=True))
    threshold, accuracy = similarity_threshold(Predictions(EMBEDDING, expected, cosine))
    if accuracy is not None:
        taken = cosine >= (math.inf if threshold is None else threshold)
        assert accuracy == pytest.approx((taken == (expected >= 0.5)).mean())
