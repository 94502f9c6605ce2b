import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tasks.loss_plot import loss_curve_png


def picture(points: list[dict[str, Any]], title: str = "t") -> Any:
    return np.asarray(Image.open(io.BytesIO(loss_curve_png(points, title))))


def test_curve_is_a_png_of_the_points() -> None:
    curve = picture([{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}])
    assert curve.shape[:2] == (540, 960)
    assert (curve != picture([{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5}])).any()


def test_losses_of_any_size_are_in_the_picture() -> None:
    high = picture([{"step": 1, "loss": 5.0}, {"step": 2, "loss": 3.0}])
    assert (high != picture([{"step": 1, "loss": 5.0}, {"step": 2, "loss": 4.0}])).any()


def test_a_repeated_step_counts_once_and_order_does_not_matter() -> None:
    points = [{"step": 2, "loss": 1.0}, {"step": 1, "loss": 9.0}, {"step": 1, "loss": 2.0}]
    assert (picture(points) == picture([{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}])).all()


def test_learning_rates_are_in_the_picture_where_there_are_any() -> None:
    points = [{"step": 1, "loss": 5.0, "learning_rate": 1e-4}, {"step": 2, "loss": 3.0, "learning_rate": 5e-5}]
    with_rates = picture(points)
    assert (with_rates != picture([{"step": 1, "loss": 5.0}, {"step": 2, "loss": 3.0}])).any()
    assert (with_rates != picture([points[0], points[1] | {"learning_rate": 2e-5}])).any()


@pytest.mark.parametrize("title", ["costs $5 and $x_", "ticket_to_json"])
def test_titles_are_taken_literally_and_no_points_is_no_error(title: str) -> None:
    assert picture([], title).size
