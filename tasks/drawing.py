"""Pictures by matplotlib without a window system and without pyplot's state: runs draw in threads."""

import io
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

BLUE, ORANGE, GREY, BLACK = "#0072B2", "#D55E00", "#999999", "#000000"
COLOURS = [BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D00", BLACK]
"""Told apart by colour-blind people: the palette of Okabe and Ito 2008, its yellow darkened for a white ground."""
MAX_LABEL = 24


def new_figure(width: float = 8, height: float = 4.5) -> Figure:
    """An empty figure of this size in inches, 120 pixels each."""
    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def png(figure: Figure) -> bytes:
    """The figure as a PNG."""
    picture = io.BytesIO()
    FigureCanvasAgg(figure).print_png(picture)
    return picture.getvalue()


def set_title(where: Any, title: str) -> None:
    """Set the title of axes or a figure, taken literally."""
    write = where.suptitle if isinstance(where, Figure) else where.set_title
    write(title, parse_math=False)


def short(label: str) -> str:
    """A label in one line of at most 24 characters."""
    line = " ".join(label.split())
    return line if len(line) <= MAX_LABEL else f"{line[: MAX_LABEL - 1]}…"
