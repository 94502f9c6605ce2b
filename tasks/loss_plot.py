"""The loss of a training over its steps, as a picture."""

from collections.abc import Sequence
from typing import Any

from matplotlib.ticker import MaxNLocator

from tasks.drawing import new_figure, png, set_title


def loss_curve_png(points: Sequence[dict[str, Any]], title: str) -> bytes:
    """A PNG of the training loss over the steps.

    `points` are dicts with at least "step" and "loss", in any order; of several for one step, which a resumed
    training reports, the last counts. Without points, the axes are empty.
    """
    values = {point["step"]: point["loss"] for point in points}
    steps = sorted(values)
    figure = new_figure()
    axes = figure.add_subplot(xlabel="step", ylabel="training loss", xlim=(0, max(steps, default=1)))
    axes.plot(steps, [values[step] for step in steps], marker="." if len(steps) <= 50 else None)
    axes.set_ylim(bottom=min(0.0, *values.values()) if values else 0)
    set_title(axes, title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    return png(figure)
