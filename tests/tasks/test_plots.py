import io
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from tasks import class_plots, number_plots
from tasks.checkpoint_report import of_predictions, of_texts
from tasks.drawing import png
from tasks.pooled_testing import Predictions
from tests.tasks.predictions import classified, compared, regressed

CURVES = (class_plots.precision_recall, class_plots.roc)


def ticks(figure: Figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize(
    ("predictions", "names"),
    [
        (classified("binary", 40, 1), ["confusion_matrix", "precision_recall", "roc", "calibration"]),
        (classified("multiclass", 60, 3), ["confusion_matrix", "precision_recall", "roc", "calibration"]),
        (classified("multilabel", 40, 3), ["confusion_matrix", "precision_recall", "roc", "calibration"]),
        (regressed(50), ["predicted_vs_true", "residuals"]),
        (compared(50), ["similarity_histogram"]),
    ],
    ids=["binary", "multiclass", "multilabel", "regression", "embedding"],
)
def test_a_report_has_the_plots_of_its_task(predictions: Predictions, names: list[str]) -> None:
    report = of_predictions(predictions)
    assert list(report.plots) == names
    assert all(Image.open(io.BytesIO(picture)).width >= 600 for picture in report.plots.values())


def test_plots_of_the_same_predictions_are_the_same_bytes() -> None:
    assert of_predictions(regressed(50)).plots == of_predictions(regressed(50)).plots


def test_confusion_matrix_counts_rows_of_expected_by_predicted() -> None:
    predictions = classified("multiclass", 50, 2)
    predictions.predicted[:] = [[0.1, 0.9]] * 50  # always the second
    figure = class_plots.confusion(predictions)
    shown = [int(text.get_text()) for text in figure.axes[0].texts]
    first, second = (int(predictions.expected[:, index].sum()) for index in (0, 1))
    assert shown == [0, first, 0, second]
    assert ticks(figure) == ["label 0", "label 1"]


def test_decisions_on_a_label_are_counted_by_kind() -> None:
    predictions = classified("multilabel", 50, 2)
    predictions.predicted[:] = 1.0
    first, second = (int(predictions.expected[:, index].sum()) for index in (0, 1))
    shown = [int(text.get_text()) for text in class_plots.confusion(predictions).axes[0].texts]
    assert shown == [first, 0, 50 - first, 0, second, 0, 50 - second, 0]


def test_of_many_classes_the_most_frequent_are_shown_and_the_worst_are_named() -> None:
    predictions = classified("multiclass", 600, 130)
    figure = class_plots.confusion(predictions)
    assert len(ticks(figure)) == 100
    assert "the 100 most frequent of 130 classes" in figure.axes[0].get_title()
    assert not figure.axes[0].texts
    for draw in CURVES:
        drawn = draw(predictions)
        assert drawn is not None
        names = legend(drawn)
        assert len(names) == 9
        assert "micro average" in names[0]
        areas = [float(name.split()[0]) for name in names[1:-1]]
        assert areas == sorted(areas)
        assert "93 other classes" in names[-1]


def test_classes_without_rows_have_no_curve() -> None:
    predictions = classified("multiclass", 30, 3)
    only = Predictions(predictions.task, np.eye(3)[[1] * 30], predictions.predicted)
    drawn = class_plots.precision_recall(only)
    assert drawn is not None
    assert [name.split(maxsplit=1)[1] for name in legend(drawn)] == ["all classes (micro average)", "label 1"]
    assert class_plots.roc(only) is None
    assert list(of_predictions(only).plots) == ["confusion_matrix", "precision_recall", "calibration"]


def test_labels_are_taken_literally_and_cut() -> None:
    labels = ["$x_{", "_hidden", "a\nb", "x" * 500, "%s \\frac"]
    predictions = classified("multiclass", 30, len(labels))
    task = predictions.task.model_copy(update={"labels": labels})
    named = Predictions(task, predictions.expected, predictions.predicted)
    figure = class_plots.confusion(named)
    assert ticks(figure) == ["$x_{", "_hidden", "a b", "x" * 23 + "…", "%s \\frac"]
    curves = class_plots.roc(named)
    assert curves is not None
    assert {name.split(maxsplit=1)[1] for name in legend(curves)} > set(ticks(figure))
    assert all(map(png, (figure, curves, number_plots.score_histogram({"$x_{": [0.5]}))))


@pytest.mark.parametrize("draw", [number_plots.predicted_vs_true, number_plots.residuals])
def test_numbers_of_any_size_and_count_are_drawn(draw: Callable[[Predictions], Figure]) -> None:
    one, many = regressed(1), regressed(2500)
    same = Predictions(one.task, np.zeros(3), np.zeros(3))
    huge = Predictions(one.task, np.array([-1e300, 1e300]), np.array([1e-300, 1e300]))
    for predictions in (one, many, same, huge):
        assert png(draw(predictions))


def test_pairs_are_drawn_by_each_similarity_that_occurs_or_by_bands() -> None:
    pairs = compared(40)
    assert len(number_plots.similarity_histogram(pairs).axes) == 4
    two = Predictions(pairs.task, (pairs.expected > 0).astype(float), pairs.predicted)
    figure = number_plots.similarity_histogram(two)
    assert [axes.get_title("left").split(":")[0] for axes in figure.axes] == ["similarity 1", "similarity 0"]
    assert png(number_plots.similarity_histogram(compared(1)))


def test_scores_are_drawn_and_without_a_function_chrf() -> None:
    tested = [("in", "red", "red"), ("in", "green", "blue")]
    with_scores = of_texts(tested, {"exact": [1.0, None], "failed": [None, None]})
    assert list(with_scores.plots) == ["score_histogram"]
    assert of_texts(tested, {}).plots != with_scores.plots
    assert of_texts(tested, {}).metrics == with_scores.metrics


def test_outputs_that_are_not_finite_are_reported_as_nothing(caplog: pytest.LogCaptureFixture) -> None:
    predictions = regressed(3)
    predictions.predicted[1] = np.nan
    with caplog.at_level(logging.WARNING):
        report = of_predictions(predictions)
    assert (report.metrics, report.class_metrics, report.plots) == ({}, None, {})
    assert "not all finite" in caplog.text


def test_a_plot_that_cannot_be_drawn_is_left_out_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> bytes:
        raise RuntimeError("no font")

    monkeypatch.setattr("tasks.checkpoint_report.png", broken)
    with caplog.at_level(logging.WARNING):
        report = of_predictions(regressed(3))
    assert report.metrics["mae"] is not None
    assert report.plots == {}
    assert "residuals was left out" in caplog.text
