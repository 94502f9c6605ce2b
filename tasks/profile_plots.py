"""A dataset's profile in pictures: classes, targets, lengths in tokens."""

import io
from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from emissary.data.profiling import DatasetProfile, Distribution

_MOST_CLASSES = 20
_NAME_CHARACTERS = 30


def plots(profile: DatasetProfile, class_counts: Mapping[str, int]) -> dict[str, bytes]:
    """PNG pictures by name: `classes`, `target` and `tokens`, those that there is something to show in."""
    found = {}
    if class_counts:
        found["classes"] = _classes(class_counts)
    if profile.target is not None:
        title = "similarity" if "similarity" in profile.fields else "target"
        found["target"] = _histogram(profile.target, title, None)
    if profile.tokens is not None:
        label = f"tokens of a row ({profile.tokens.base_model})"
        found["tokens"] = _histogram(profile.tokens.lengths, label, profile.tokens.context)
    return found


def _classes(counts: Mapping[str, int]) -> bytes:
    shown = sorted(counts.items(), key=lambda item: -item[1])[:_MOST_CLASSES][::-1]
    figure, axes = _axes("rows", "", height=1.2 + 0.25 * len(shown))
    axes.barh(range(len(shown)), [count for _, count in shown])
    names = [name if len(name) <= _NAME_CHARACTERS else f"{name[:_NAME_CHARACTERS]}…" for name, _ in shown]
    axes.set_yticks(range(len(shown)), names, parse_math=False)
    left_out = f", the largest {len(shown)} of {len(counts)}" if len(counts) > len(shown) else ""
    axes.set_title(f"Rows per class{left_out}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _png(figure)


def _histogram(values: Distribution, label: str, limit: int | None) -> bytes:
    figure, axes = _axes(label, "rows")
    assert values.histogram is not None
    axes.stairs(values.histogram["counts"], values.histogram["edges"], fill=True)
    if limit is not None and values.quantiles["max"] > limit / 2:
        axes.axvline(limit, color="tab:red", label=f"context: {limit}")
        axes.legend()
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    return _png(figure)


def _axes(x: str, y: str, height: float = 3.5) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7, height), dpi=90, layout="constrained")
    axes = figure.add_subplot(xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    return figure, axes


def _png(figure: Figure) -> bytes:
    # The canvas is named, so that no window system and no state of pyplot is involved: this runs in threads.
    picture = io.BytesIO()
    FigureCanvasAgg(figure).print_png(picture)
    return picture.getvalue()
