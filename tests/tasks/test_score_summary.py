"""What scores say: intervals by SciPy, paired differences, the worst rows."""

import numpy as np
import pytest

from emissary.schemas.training_jobs import Interval
from tasks.score_summary import interval, summary


def answered(rows: int) -> list[tuple[str, str, str]]:
    return [(f"question {row}", "right", f"answer {row}") for row in range(1, rows + 1)]


def test_interval_is_that_of_the_normal_approximation_where_that_holds() -> None:
    values = np.random.default_rng(1).normal(3, 2, 400)
    found = interval(list(values))
    assert found.mean == pytest.approx(values.mean())
    half = 1.96 * values.std() / 20
    assert (found.low, found.high) == (
        pytest.approx(values.mean() - half, abs=0.1 * half),
        pytest.approx(values.mean() + half, abs=0.1 * half),
    )
    assert interval(list(values)) == found


def test_interval_holds_the_true_mean_about_as_often_as_it_says() -> None:
    draws = np.random.default_rng(2).binomial(1, 0.6, (200, 80)).astype(float)
    intervals = [interval(list(scores)) for scores in draws]
    assert 0.9 <= np.mean([found.low <= 0.6 <= found.high for found in intervals]) <= 0.99


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param([0.25], Interval(mean=0.25, low=None, high=None), id="one row"),
        pytest.param([1.0, 1.0, 1.0], Interval(mean=1, low=1, high=1), id="always the same"),
    ],
)
def test_interval_of_what_does_not_vary(values: list[float], expected: Interval) -> None:
    assert interval(values) == expected


def test_difference_is_paired() -> None:
    base = [float(row % 10) for row in range(60)]
    found = summary(answered(60), {"score": [value + 0.5 for value in base]}, {"score": base})["score"]
    # The rows differ a lot from each other, the checkpoint from the base model by the same in each.
    assert found.difference == Interval(mean=0.5, low=0.5, high=0.5)
    assert found.base == interval(base)
    assert found.high is not None
    assert found.low is not None
    assert found.high - found.low > 1


def test_rows_without_a_score_count_for_nothing() -> None:
    scores = {"score": [1.0, None, 0.0, 1.0], "broken": [None] * 4}
    found = summary(answered(4), scores, {"score": [0.0, 1.0, None, 0.0], "broken": [1.0] * 4})
    assert list(found) == ["score"]
    assert (found["score"].rows, found["score"].mean) == (3, pytest.approx(2 / 3))
    assert found["score"].base is not None
    assert found["score"].base.mean == pytest.approx(1 / 3)
    assert found["score"].difference == Interval(mean=1, low=1, high=1)
    assert [worst.row for worst in found["score"].worst] == [3, 1, 4]


@pytest.mark.parametrize("base", [{}, {"score": [None, None]}], ids=["not tested", "not scored"])
def test_without_scores_of_the_base_model_there_is_no_difference(base: dict[str, list[float | None]]) -> None:
    found = summary(answered(2), {"score": [0.0, 1.0]}, base)["score"]
    assert (found.base, found.difference) == (None, None)


@pytest.mark.parametrize(
    ("function", "worst"),
    [
        pytest.param("exact_match_shared", list(range(1, 11)), id="lowest score"),
        pytest.param("regression_mae_shared", list(range(12, 2, -1)), id="highest error"),
    ],
)
def test_the_worst_ten_rows_come_worst_first(function: str, worst: list[int]) -> None:
    found = summary(answered(12), {function: [float(row) for row in range(12)]}, {})[function].worst
    assert [row.row for row in found] == worst
    assert (found[0].input, found[0].output) == (f"question {worst[0]}", f"answer {worst[0]}")
    assert found[0].score == worst[0] - 1


def test_texts_are_cut_and_have_no_nul() -> None:
    (row,) = summary([("x" * 501, "x" * 500, "a\0b")], {"score": [0.5]}, {})["score"].worst
    assert row.input == "x" * 499 + "…"
    assert row.expected_output == "x" * 500
    assert row.output == "a\N{REPLACEMENT CHARACTER}b"


def test_many_rows_are_resampled_in_little_memory() -> None:
    found = interval([float(row % 2) for row in range(50_000)])
    assert found.mean == 0.5
    assert found.low is not None
    assert found.low == pytest.approx(0.5 - 1.96 * 0.5 / 50_000**0.5, abs=0.001)
