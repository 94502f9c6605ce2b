"""The loss and the learning rate of a training over its steps, as a picture."""

from collections.abc import Sequence
from typing import Any

from matplotlib.ticker import MaxNLocator

from tasks.drawing import new_figure, png, set_title


def loss_curve_png(points: Sequence[dict[str, Any]], title: str) -> bytes:
    """A PNG of the training loss over the steps, and below it of the learning rate where the points have one.

    `points` are dicts with at least "step" and "loss", in any order; of several for one step, which a resumed
    training reports, the last counts. Without points, the axes are empty.
    """
    last = {point["step"]: point for point in points}
    steps = sorted(last)
    losses = [last[step]["loss"] for step in steps]
    rates = [last[step].get("learning_rate") for step in steps]
    marker = "." if len(steps) <= 50 else None
    figure = new_figure()
    shown = any(rate is not None for rate in rates)
    axes = figure.add_subplot(211 if shown else 111, ylabel="training loss", xlim=(0, max(steps, default=1)))
    axes.plot(steps, losses, marker=marker)
    if any(losses):
        axes.set_ylim(min(0.0, *losses), max(losses) + 0.08 * (max(losses) - min(0.0, *losses)))
    set_title(axes, title)
    axes.grid(alpha=0.3)
    if shown:
        axes.tick_params(labelbottom=False)
        axes = figure.add_subplot(212, ylabel="learning rate", xlim=axes.get_xlim())
        axes.plot(steps, [float("nan") if rate is None else rate for rate in rates], marker=marker)
        axes.set_ylim(bottom=0)
        axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
        axes.grid(alpha=0.3)
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return png(figure)
