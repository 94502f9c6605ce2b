"""Which checkpoint is the best one."""

from typing import Any

import pytest

from emissary.store.tables import Checkpoint
from tasks.testing import best

FUNCTIONS = ["first", "second"]


def row(number: int, scores: dict[str, Any] | None = None, test_loss: float | None = None) -> Checkpoint:
    return Checkpoint(training_job_id="tr-1", number=number, artifact="a", scores=scores, test_loss=test_loss)


@pytest.mark.parametrize(
    ("rows", "functions", "expected"),
    [
        pytest.param([], FUNCTIONS, None, id="no checkpoint"),
        pytest.param([row(1), row(2)], FUNCTIONS, None, id="nothing tested"),
        pytest.param([row(1), row(2)], [], None, id="nothing tested, no function asked for"),
        pytest.param([row(1, {}), row(2, {})], FUNCTIONS, None, id="every function failed on every row"),
        pytest.param(
            [row(1, {"first": 0.2, "second": 0.9}), row(2, {"first": 0.3, "second": 0.1})],
            FUNCTIONS,
            2,
            id="first function decides, not the second",
        ),
        pytest.param(
            [row(1, {"first": 0.9}, 2.0), row(2, {"first": 0.8}, 0.1)], FUNCTIONS, 1, id="score is before test loss"
        ),
        pytest.param([row(1, {"first": 0.5}, 0.9), row(2, {"first": 0.5}, 0.4)], FUNCTIONS, 2, id="tie to lower loss"),
        pytest.param([row(1, {"first": 0.5}), row(2, {"first": 0.5}, 0.4)], FUNCTIONS, 2, id="tie to a known loss"),
        pytest.param(
            [row(3, {"first": 0.5}, 0.4), row(2, {"first": 0.5}, 0.4)], FUNCTIONS, 2, id="tie in both to the earlier"
        ),
        pytest.param([row(1, {"first": 0.5}), row(2, {"first": 0.5})], FUNCTIONS, 1, id="tie, no loss"),
        pytest.param([row(1, {"first": 0.0}), row(2)], FUNCTIONS, 1, id="a score of 0 is a score"),
        pytest.param([row(1, {"first": -2.0}), row(2, {"first": -1.0})], FUNCTIONS, 2, id="negative scores"),
        pytest.param(
            [row(1, {"second": 1.0}, 0.1), row(2, {"first": 0.1}, 0.9)], FUNCTIONS, 2, id="first function failed on one"
        ),
        pytest.param([row(1, None, 0.7), row(2, None, 0.5), row(3, None, 0.6)], [], 2, id="no function: lowest loss"),
        pytest.param([row(1, None, 0.5), row(2, None, 0.5)], [], 1, id="no function: tie to the earlier"),
    ],
)
def test_best_checkpoint(rows: list[Checkpoint], functions: list[str], expected: int | None) -> None:
    assert best(rows, functions) == expected
    assert best(rows[::-1], functions) == expected


def test_of_an_error_the_lowest_mean_is_the_best() -> None:
    error = "regression_mae_shared"
    rows = [row(1, {error: 9.0}, 0.1), row(2, {error: 3.5}, 0.4), row(3, {error: 3.5}, 0.3), row(4, {})]
    assert best(rows, [error, "second"]) == 3
