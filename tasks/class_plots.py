"""Plots of a classification's test results, readable with 2 classes and with 100."""

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from sklearn.metrics import (
    auc,
    average_precision_score,
    confusion_matrix,
    multilabel_confusion_matrix,
    precision_recall_curve,
    roc_curve,
)

from tasks.drawing import BLACK, BLUE, COLOURS, GREY, new_figure, set_title, short
from tasks.metrics import calibration_bins, decisions, metrics
from tasks.pooled_testing import Numbers, Predictions

MOST_CLASSES = 100
_COLOURED = 7
_NUMBERED = 30
_CURVE_POINTS = 500
_DECISIONS = ["true positive", "false negative", "false positive", "true negative"]

Curve = tuple[Numbers, Numbers, float]
"""x, y, and the area under it."""


def confusion(predictions: Predictions) -> Figure:
    """Rows of each class by the class that was predicted; if multilabel, right and wrong decisions of each label."""
    made = decisions(predictions)
    if predictions.task.label_kind == "multilabel":
        counts = multilabel_confusion_matrix(made.expected, made.predicted, labels=range(len(made.names)))
        table = np.stack([counts[:, 1, 1], counts[:, 1, 0], counts[:, 0, 1], counts[:, 0, 0]], axis=1)
        shown = _most_frequent(table[:, :2].sum(1))
        title = _title("Decisions on each label", shown, made.names)
        names = [made.names[i] for i in shown]
        return _heat_map(table[shown], names, _DECISIONS, "decision", "label", title, table[shown].sum(1))
    table = confusion_matrix(made.expected, made.predicted, labels=range(len(made.names)))
    shown = _most_frequent(table.sum(1))
    names = [made.names[i] for i in shown]
    title = _title("Confusion matrix", shown, made.names)
    return _heat_map(table[np.ix_(shown, shown)], names, names, "predicted", "expected", title, table.sum(1)[shown])


def precision_recall(predictions: Predictions) -> Figure | None:
    """Precision over recall, per class; None where no class has test rows."""

    def curve(expected: Numbers, scores: Numbers) -> Curve | None:
        if not expected.any():
            return None
        precision, recall, _ = precision_recall_curve(expected, scores, drop_intermediate=True)
        return recall, precision, float(average_precision_score(expected, scores))

    figure = _curves(predictions, curve, "Precision and recall", "AP")
    if figure is not None:
        figure.axes[0].set(xlabel="recall", ylabel="precision")
    return figure


def roc(predictions: Predictions) -> Figure | None:
    """True over false positive rate, per class; None where no class has both rows of it and others."""

    def curve(expected: Numbers, scores: Numbers) -> Curve | None:
        if expected.all() or not expected.any():
            return None
        false_positive, true_positive, _ = roc_curve(expected, scores)
        return false_positive, true_positive, float(auc(false_positive, true_positive))

    figure = _curves(predictions, curve, "ROC", "AUC")
    if figure is not None:
        axes = figure.axes[0]
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1)
        axes.set(xlabel="false positive rate", ylabel="true positive rate")
    return figure


def calibration(predictions: Predictions) -> Figure:
    """How often the model is right over how sure it is, above how many rows that are."""
    counts, probability, right = calibration_bins(predictions)
    figure = new_figure(6, 6.5)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    above.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="perfectly calibrated")
    filled = counts > 0
    above.plot(probability[filled], right[filled], color=BLUE, marker="o", label="checkpoint")
    multiclass = predictions.task.label_kind == "multiclass"
    above.set(xlim=(0, 1), ylim=(-0.03, 1.03), ylabel="share that is right" if multiclass else "share that applies")
    above.legend(loc="upper left", frameon=False)
    above.grid(alpha=0.3)
    edges = np.linspace(0, 1, len(counts) + 1)
    below.bar(edges[:-1], counts, width=np.diff(edges), align="edge", color=BLUE, edgecolor="white")
    below.set(
        xlabel=f"probability of the {'predicted ' if multiclass else ''}label",
        ylabel="rows" if predictions.task.label_kind != "multilabel" else "rows × labels",
    )
    below.grid(axis="y", alpha=0.3)
    below.set_axisbelow(True)
    error = metrics(predictions)["expected_calibration_error"]
    set_title(above, f"Calibration: expected calibration error {error:.3f}")
    return figure


def _most_frequent(rows: Numbers) -> Numbers:
    """Indices of the classes that are shown, at most 100 of them: those with the most rows, in their own order."""
    return np.sort(np.argsort(-rows, kind="stable")[:MOST_CLASSES])


def _title(what: str, shown: Numbers, names: list[str]) -> str:
    left_out = f" (the {len(shown)} most frequent of {len(names)} classes)" if len(shown) < len(names) else ""
    return what + left_out


def _heat_map(
    table: Numbers, rows: list[str], columns: list[str], across: str, down: str, title: str, totals: Numbers
) -> Figure:
    """Counts as a table, coloured by their share of the row's total, up to 30 columns with the numbers."""
    totals = totals[:, None]
    share = np.divide(table, totals, out=np.zeros(table.shape), where=totals > 0)
    numbered, few = len(columns) <= _NUMBERED, len(columns) <= 4
    size = 10 if len(rows) <= 12 else 8 if len(rows) <= _NUMBERED else 6
    cell = 0.5 if numbered and len(rows) <= _NUMBERED else 0.14
    figure = new_figure(6.5 if few else 3.5 + cell * len(columns), max(4.5, 2.5 + cell * len(rows)))
    axes = figure.add_subplot()
    # Where there are many classes, a class's mistakes are spread thin: the root makes small shares visible.
    norm = Normalize(0, 1) if numbered else PowerNorm(0.5, 0, 1)
    picture = axes.imshow(share, cmap="Blues", norm=norm, aspect="auto")
    level = few and all(len(name) <= 15 for name in columns)
    axes.set_xticks(range(len(columns)), map(short, columns), rotation=0 if level else 90, fontsize=max(size, 8 * few))
    axes.set_yticks(range(len(rows)), map(short, rows), fontsize=size)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_parse_math(False)
    if numbered:
        for (row, column), count in np.ndenumerate(table):
            colour = "white" if share[row, column] > 0.5 else BLACK
            axes.text(column, row, f"{count:.0f}", ha="center", va="center", color=colour, fontsize=size)
    axes.set(xlabel=across, ylabel=down)
    axes.spines[:].set_visible(False)
    figure.colorbar(picture, ax=axes, label="share of the row", aspect=30)
    set_title(axes, title)
    return figure


def _curves(
    predictions: Predictions, curve: Callable[[Numbers, Numbers], Curve | None], what: str, area: str
) -> Figure | None:
    """A curve per class that has one, with the area under it. Of more than 7 classes those with the least area are
    coloured, and the others grey.
    """
    shown = _most_frequent(predictions.expected.sum(0))
    expected, scores = predictions.expected[:, shown], predictions.predicted[:, shown]
    found = [(index, made) for index in range(len(shown)) if (made := curve(expected[:, index], scores[:, index]))]
    if not found:
        return None
    names = [predictions.task.labels[index] for index in shown]
    found.sort(key=lambda entry: entry[1][2])
    figure = new_figure(7.5, 5)
    axes = figure.add_subplot()
    handles: list[Any] = []
    texts: list[str] = []
    for position, (index, (x, y, size)) in reversed(list(enumerate(found))):
        coloured = position < _COLOURED
        colour = COLOURS[position] if coloured else "#cccccc"
        (line,) = axes.plot(*_thinned(x, y), color=colour, linewidth=1.8 if coloured else 0.8)
        if coloured:
            handles.append(line)
            texts.append(f"{size:.3f}  {short(names[index])}")
        elif position == _COLOURED:
            handles.append(line)
            texts.append(f"{len(found) - _COLOURED} other classes, better than these")
    if len(names) > 1 and (micro := curve(expected.ravel(), scores.ravel())):
        (line,) = axes.plot(*_thinned(*micro[:2]), color=BLACK, linestyle="--", linewidth=1.8)
        handles.append(line)
        texts.append(f"{micro[2]:.3f}  all classes (micro average)")
    legend = figure.legend(handles[::-1], texts[::-1], loc="outside right upper", title=area, fontsize=9, frameon=False)
    legend.set_alignment("left")
    for text in legend.get_texts():
        text.set_parse_math(False)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.03))
    axes.grid(alpha=0.3)
    set_title(axes, _title(what, shown, predictions.task.labels))
    return figure


def _thinned(x: Numbers, y: Numbers) -> tuple[Numbers, Numbers]:
    """The curve in at most 500 points."""
    if len(x) <= _CURVE_POINTS:
        return x, y
    kept = np.linspace(0, len(x) - 1, _CURVE_POINTS).astype(int)
    return x[kept], y[kept]
