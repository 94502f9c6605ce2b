import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emissary.data.rebalancing import rebalance, row_counts
from emissary.errors import InvalidInput

CLASSES = st.lists(st.sampled_from("abc"), min_size=1, max_size=60)


@settings(deadline=None)
@given(CLASSES, st.lists(st.integers(0, 100), min_size=3, max_size=3).filter(any), st.integers(0, 9))
def test_ratios_keep_the_total_and_are_met_to_within_a_row(classes: list[str], parts: list[int], seed: int) -> None:
    rows = [*classes, "a", "b", "c"]
    ratios = {label: part / sum(parts) for label, part in zip("abc", parts, strict=True)}
    counts = row_counts(ratios, "abc", len(rows))
    chosen = rebalance(rows, counts, seed)
    assert len(chosen) == len(rows)
    found = Counter(rows[index] for index in chosen)
    assert all(abs(found[label] - ratio * len(rows)) <= 1 for label, ratio in ratios.items())
    assert chosen == rebalance(rows, counts, seed) == sorted(chosen)


@given(
    st.lists(st.floats(0, 1), min_size=2, max_size=8).filter(lambda parts: sum(parts) > 0.01),
    st.floats(-9e-7, 9e-7),
    st.integers(0, 10_000_000),
)
def test_ratios_that_are_rounded_keep_the_total_of_many_rows(parts: list[float], off: float, rows: int) -> None:
    ratios = {str(number): part / sum(parts) * (1 + off) for number, part in enumerate(parts)}
    counts = row_counts(ratios, ratios, rows)
    assert sum(counts.values()) == rows
    assert all(abs(counts[label] - ratio / (1 + off) * rows) < 1.001 for label, ratio in ratios.items())


def test_ratios_that_sum_to_a_little_more_than_one_keep_the_total() -> None:
    counts = row_counts({"a": 0.5000005, "b": 0.5000004}, "ab", 10_000_000)
    assert sum(counts.values()) == 10_000_000


def test_what_sums_to_one_is_ratios() -> None:
    assert row_counts({"a": 1, "b": 0}, "ab", 10) == {"a": 10, "b": 0}


def test_ten_thousand_classes_are_rebalanced_in_a_moment() -> None:
    classes = [str(number % 10_000) for number in range(50_000)]
    counts = row_counts(dict.fromkeys(classes[:10_000], 2.0), classes[:10_000], len(classes))
    began = time.process_time()
    assert len(rebalance(classes, counts, 1)) == 20_000
    assert time.process_time() - began < 3


@settings(deadline=None)
@given(CLASSES, st.lists(st.integers(0, 100), min_size=3, max_size=3).filter(lambda parts: sum(parts) > 1))
def test_numbers_are_met_exactly_repeating_rows_only_where_there_are_too_few(
    classes: list[str], parts: list[int]
) -> None:
    rows = [*classes, "a", "b", "c"]
    wanted = dict(zip("abc", map(float, parts), strict=True))
    chosen = rebalance(rows, row_counts(wanted, "abc", len(rows)), 1)
    found, there = Counter(rows[index] for index in chosen), Counter(rows)
    assert {label: found[label] for label in "abc"} == wanted
    for label in "abc":
        distinct = {index for index in chosen if rows[index] == label}
        assert len(distinct) == min(found[label], there[label])


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"a": 0.5, "b": 0.4}, "sum to 1"),
        ({"a": 0.5, "b": 0.5, "z": 0.0}, "'z' is no class"),
        ({"a": 1.0}, "'b' is missing"),
        ({"a": -1.0, "b": 2.0}, "0 or more"),
        ({"a": float("nan"), "b": 1.0}, "0 or more"),
        ({"a": 0.0, "b": 0.0}, "must sum to 1 to"),
        ({"a": 1e300, "b": 1.0}, "must sum to 1 to"),
    ],
)
def test_what_cannot_be_is_refused(wanted: dict[str, float], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        row_counts(wanted, "ab", 10)


def test_a_class_without_a_row_cannot_be_had() -> None:
    with pytest.raises(InvalidInput, match="no training row is left of the class 'b'"):
        rebalance(["a"], {"a": 1, "b": 1}, 1)
