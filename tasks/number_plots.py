"""Plots of the test results of regression and embedding, and of scores."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tasks.drawing import BLACK, BLUE, ORANGE, new_figure, set_title
from tasks.metrics import metrics, similarity_threshold
from tasks.pooled_testing import Numbers, Predictions

_POINTS = 2000
"""Above this number of rows, points would cover each other: their density is drawn instead."""
_BANDS = 4


def predicted_vs_true(predictions: Predictions) -> Figure:
    """Each row's prediction over its target."""
    expected, predicted = predictions.expected, predictions.predicted
    figure = new_figure(6, 6)
    axes = figure.add_subplot()
    low, high = _limits(np.concatenate([expected, predicted]))
    axes.plot([low, high], [low, high], color=BLACK, linestyle=":", linewidth=1)
    _points(figure, axes, expected, predicted)
    axes.set(xlim=(low, high), ylim=(low, high), xlabel="true", ylabel="predicted", aspect="equal")
    axes.grid(alpha=0.3)
    found = metrics(predictions)
    set_title(axes, f"Predicted and true: R² {_shown(found['r2'])}, MAE {_shown(found['mae'])}")
    return figure


def residuals(predictions: Predictions) -> Figure:
    """How much too high each prediction is, over the prediction, and how often."""
    predicted, over = predictions.predicted, predictions.predicted - predictions.expected
    figure = new_figure(8, 4.5)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[3, 1])
    _points(figure, left, predicted, over)
    right.hist(over, bins=30, range=_limits(over), orientation="horizontal", color=BLUE, edgecolor="white")
    for axes in (left, right):
        axes.axhline(0, color=BLACK, linestyle=":", linewidth=1)
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
    left.set(xlabel="predicted", ylabel="predicted − true", xlim=_limits(predicted), ylim=_limits(over))
    right.set(xlabel="rows")
    rmse = metrics(predictions)["rmse"]
    set_title(figure, f"Residuals: RMSE {_shown(rmse)}, mean {_shown(float(over.mean()))}")
    return figure


def similarity_histogram(predictions: Predictions) -> Figure:
    """How often pairs have which cosine, by the similarity that they should have."""
    expected, cosines = predictions.expected, predictions.predicted
    bands = _bands(expected)
    figure = new_figure(7, 1.6 + 1.2 * len(bands))
    grid = figure.subplots(len(bands), 1, sharex=True, squeeze=False)[::-1, 0]
    low = min(-1.0 if cosines.min() < -0.25 else -0.25, 0.0)
    threshold, accuracy = similarity_threshold(predictions)
    for axes, (name, within) in zip(grid, bands, strict=True):
        axes.hist(cosines[within], bins=40, range=(low, 1), color=BLUE, edgecolor="white")
        axes.axvline(float(cosines[within].mean()), color=ORANGE, linewidth=1.5)
        axes.set(xlim=(low, 1.01), ylabel="pairs")
        axes.set_title(f"similarity {name}: {int(within.sum())} pairs", loc="left", fontsize=9)
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
        if threshold is not None:
            axes.axvline(threshold, color=BLACK, linestyle="--", linewidth=1)
    grid[0].set_xlabel("cosine (solid line: mean" + ("; dashed: threshold)" if threshold is not None else ")"))
    told = f", accuracy {accuracy:.3f} at the threshold {threshold:.2f}" if threshold is not None else ""
    spearman = metrics(predictions)["spearman"]
    set_title(figure, f"Cosine by similarity: Spearman {_shown(spearman)}{told}")
    return figure


def score_histogram(scores: Mapping[str, Sequence[float]]) -> Figure:
    """How often each testing function gave which score."""
    rows = -(-len(scores) // 2) if len(scores) > 1 else 1
    figure = new_figure(8 if len(scores) > 1 else 6, 0.8 + 2.4 * rows)
    grid = figure.subplots(rows, min(len(scores), 2), squeeze=False).ravel()
    for axes, (name, values) in zip(grid, scores.items(), strict=False):
        given = np.asarray(values, dtype=np.float64)
        unit = given.min() >= 0 and given.max() <= 1
        axes.hist(given, bins=20, range=(0, 1) if unit else _limits(given), color=BLUE, edgecolor="white")
        axes.axvline(float(given.mean()), color=ORANGE, linewidth=1.5)
        axes.set(ylabel="rows", xlabel=f"score (mean {_shown(float(given.mean()))})")
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
        axes.set_title(name, fontsize=10, parse_math=False)
    for axes in grid[len(scores) :]:
        axes.set_visible(False)
    set_title(figure, "Scores of the test rows")
    return figure


def _points(figure: Figure, axes: Any, x: Numbers, y: Numbers) -> None:
    if len(x) <= _POINTS:
        alpha = 0.8 if len(x) <= 200 else 0.35
        axes.scatter(x, y, s=18, color=BLUE, alpha=alpha, linewidths=0)
        return
    density = axes.hexbin(x, y, gridsize=50, bins="log", mincnt=1, cmap="viridis", extent=(*_limits(x), *_limits(y)))
    figure.colorbar(density, ax=axes, label="rows", shrink=0.8)


def _limits(values: Numbers) -> tuple[float, float]:
    """From a little below the least to a little above the largest, also where they are the same."""
    low, high = float(values.min()), float(values.max())
    margin = 0.04 * (high - low) or 0.04 * abs(high) or 1.0
    return low - margin, high + margin


def _bands(similarity: Numbers) -> list[tuple[str, Any]]:
    """The pairs by similarity: each that occurs, where these are at most 5, else in four bands of equal width."""
    found = np.unique(similarity)
    if len(found) <= _BANDS + 1:
        return [(f"{value:.3g}", similarity == value) for value in found]
    edges = np.linspace(found[0], found[-1], _BANDS + 1)
    band = np.clip(np.digitize(similarity, edges) - 1, 0, _BANDS - 1)
    named = [(f"{edges[index]:.2f} to {edges[index + 1]:.2f}", band == index) for index in range(_BANDS)]
    return [(name, within) for name, within in named if within.any()]


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3g}"
