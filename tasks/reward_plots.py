"""What a GRPO training reports over its steps, as pictures."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tasks.drawing import BLACK, COLOURS, new_figure, set_title, short

_MARKED_STEPS = 50
_POLICY = {
    "kl": "KL divergence\n(nats per token)",
    "entropy": "entropy\n(nats)",
    "completion_length": "completion length\n(tokens)",
    "clip_ratio": "clip ratio\n(share of tokens)",
    "equal_groups": "equal groups\n(share of prompts)",
    "reward_group_std": "reward within groups\n(standard deviation)",
}


def rewards(points: Sequence[dict[str, Any]], title: str) -> Figure:
    """The rewards over the steps: each function's score, and the weighted sum with its standard deviation.

    `points` are dicts as of RewardPoint, in any order; of several for one step, which a resumed training reports, the
    last counts. Without points, the axes are empty.
    """
    steps, shown = _by_step(points)
    figure = new_figure()
    axes = figure.add_subplot(xlabel="step", ylabel="score", xlim=(0, max(steps, default=1)))
    marker = "." if len(steps) <= _MARKED_STEPS else None
    means = [point["reward"] for point in shown]
    spread = [point["reward_std"] for point in shown]
    axes.plot(steps, means, color=BLACK, marker=marker, linewidth=2, label="weighted sum")
    low, high = ([mean + sign * std for mean, std in zip(means, spread, strict=True)] for sign in (-1, 1))
    axes.fill_between(steps, low, high, color=BLACK, alpha=0.12, linewidth=0, label="± standard deviation")
    colours = [colour for colour in COLOURS if colour != BLACK]
    for number, name in enumerate(sorted({name for point in shown for name in point["rewards"]})):
        round_, colour = divmod(number, len(colours))
        axes.plot(
            steps,
            [point["rewards"].get(name) for point in shown],
            color=colours[colour],
            # There may be more functions than colours.
            linestyle=("-", "--", ":")[round_ % 3],
            marker=marker,
            linewidth=1.2,
            label=short(name),
        )
    for text in figure.legend(loc="outside right upper", fontsize=9, frameon=False).get_texts():
        text.set_parse_math(False)
    _finish(axes)
    set_title(axes, title)
    return figure


def policy(points: Sequence[dict[str, Any]], title: str) -> Figure:
    """What the policy does over the steps, in panels: KL divergence, entropy, completion length, clip ratio, share of
    groups with equal rewards, and the reward's standard deviation within groups.

    `points` are as for `rewards`. A panel without values is left out: of KL with beta 0, and of what an earlier version
    did not measure.
    """
    steps, shown = _by_step(points)
    panels = {name: label for name, label in _POLICY.items() if any(point.get(name) is not None for point in shown)}
    rows = max(1, math.ceil(len(panels) / 2))
    figure = new_figure(width=10, height=1 + 2 * rows)
    grid = figure.subplots(rows, 2, sharex=True, squeeze=False).ravel()
    marker = "." if len(steps) <= _MARKED_STEPS else None
    for axes, (name, label) in zip(grid, panels.items(), strict=False):
        values = [math.nan if point.get(name) is None else point[name] for point in shown]
        # Unclipped, a line along 0 is seen.
        axes.plot(steps, values, color=COLOURS[0], marker=marker, clip_on=False)
        axes.set_ylabel(label)
        axes.set_ylim(bottom=min(0.0, np.nanmin(values)))
        _finish(axes)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    for axes in grid[: len(panels)][-2:]:
        axes.set(xlabel="step", xlim=(0, max(steps)))
        axes.tick_params(labelbottom=True)
    set_title(figure, title)
    return figure


def _by_step(points: Sequence[dict[str, Any]]) -> tuple[list[int], list[dict[str, Any]]]:
    by_step = {point["step"]: point for point in points}
    steps = sorted(by_step)
    return steps, [by_step[step] for step in steps]


def _finish(axes: Any) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
