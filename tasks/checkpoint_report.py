"""What is known of a checkpoint over the whole test set: metrics and plots."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sacrebleu.metrics import CHRF

from tasks import class_plots, number_plots
from tasks.checkpoint_testing import REPORT
from tasks.drawing import png
from tasks.metrics import Metrics, class_metrics, metrics, text_metrics
from tasks.pooled_testing import Predictions

logger = logging.getLogger(__name__)

_PLOTS: dict[str, dict[str, Callable[[Predictions], Figure | None]]] = {
    "classification": {
        "confusion_matrix": class_plots.confusion,
        "precision_recall": class_plots.precision_recall,
        "roc": class_plots.roc,
        "calibration": class_plots.calibration,
    },
    "regression": {
        "predicted_vs_true": number_plots.predicted_vs_true,
        "residuals": number_plots.residuals,
    },
    "embedding": {"similarity_histogram": number_plots.similarity_histogram},
}


@dataclass(frozen=True)
class Report:
    """Metrics, those of each class of a classification, and plots: name → PNG."""

    metrics: Metrics
    class_metrics: dict[str, Metrics] | None
    plots: dict[str, bytes]

    def write(self, folder: Path) -> None:
        """Write report.json, with the metrics and the names of the plots, and <name>.png of each plot."""
        known = {"metrics": self.metrics, "class_metrics": self.class_metrics, "plots": list(self.plots)}
        (folder / REPORT).write_text(json.dumps(known))
        for name, picture in self.plots.items():
            (folder / f"{name}.png").write_bytes(picture)


def of_predictions(predictions: Predictions) -> Report:
    """The report on classification, regression or embedding; it is empty where the model's outputs are not finite."""
    if not np.isfinite(predictions.predicted).all():
        logger.warning("The model's outputs are not all finite numbers, so there are no metrics and plots of them")
        return Report({}, None, {})
    drawn = {
        name: _drawn(name, partial(draw, predictions)) for name, draw in _PLOTS[predictions.task.task_type].items()
    }
    plots = {name: picture for name, picture in drawn.items() if picture is not None}
    return Report(metrics(predictions), class_metrics(predictions), plots)


def of_texts(tested: Sequence[tuple[str, str, str]], scores: Mapping[str, Sequence[float | None]]) -> Report:
    """The report on text generation, of (input, expected output, output) per row and each testing function's scores.

    Where no function gave a score, the rows' chrF is drawn.
    """
    _, expected, outputs = zip(*tested, strict=True)
    given = {name: [value for value in values if value is not None] for name, values in scores.items()}
    shown = {name: values for name, values in given.items() if values}
    if not shown:
        chrf = CHRF()
        shown = {"chrF": [chrf.sentence_score(row[2], [row[1]]).score / 100 for row in tested]}
    picture = _drawn("score_histogram", lambda: number_plots.score_histogram(shown))
    return Report(text_metrics(expected, outputs), None, {} if picture is None else {"score_histogram": picture})


def _drawn(name: str, draw: Callable[[], Figure | None]) -> bytes | None:
    """The plot as a PNG; None where there is nothing to draw.

    A plot that cannot be drawn, because of a font or of numbers beyond matplotlib's, is not worth the job.
    """
    try:
        figure = draw()
        return None if figure is None else png(figure)
    except Exception as error:
        logger.warning("The plot %s was left out, for it could not be drawn: %r", name, error)
        return None
