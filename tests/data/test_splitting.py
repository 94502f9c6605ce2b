from collections import Counter

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emissary.data.splitting import downsample, split
from emissary.errors import InvalidInput

PERCENT = st.floats(1, 99)
SEED = st.integers(0, 2**32)


@given(rows=st.integers(0, 300), percent=PERCENT, seed=SEED)
def test_split_is_complete_disjoint_and_repeatable(rows, percent, seed):
    train, test = split(rows, percent, seed)
    assert sorted(train + test) == list(range(rows))
    assert (train, test) == split(rows, percent, seed)
    if rows >= 2:
        assert train
        assert test
        assert abs(len(test) - rows * percent / 100) <= 1


@given(strata=st.lists(st.sampled_from("abcd"), min_size=2, max_size=200), percent=PERCENT, seed=SEED)
def test_every_stratum_gives_its_share(strata, percent, seed):
    train, test = split(len(strata), percent, seed, strata)
    assert sorted(train + test) == list(range(len(strata)))
    assert train
    assert test
    held_out = Counter(strata[index] for index in test)
    for stratum, size in Counter(strata).items():
        assert abs(held_out[stratum] - size * percent / 100) < 1


@given(groups=st.lists(st.integers(0, 40), min_size=2, max_size=150), percent=PERCENT, seed=SEED)
def test_rows_of_a_group_stay_together_and_the_share_is_met_to_within_a_group(groups, percent, seed):
    hypothesis.assume(len(set(groups)) > 1)
    strata = [group % 3 for group in groups]
    train, test = split(len(groups), percent, seed, strata, groups)
    assert sorted(train + test) == list(range(len(groups)))
    assert train
    assert test
    assert not {groups[index] for index in train} & {groups[index] for index in test}
    assert (train, test) == split(len(groups), percent, seed, strata, groups)
    held_out = Counter(strata[index] for index in test)
    for stratum, size in Counter(strata).items():
        largest = max(count for group, count in Counter(groups).items() if group % 3 == stratum)
        assert abs(held_out[stratum] - size * percent / 100) < largest + 1


def test_rows_that_all_have_the_same_input_cannot_be_split():
    with pytest.raises(InvalidInput, match="All rows have the same input"):
        split(3, 50, 1, groups=["a"] * 3)


def test_class_of_one_row_is_trained_on_rather_than_tested():
    strata = ["rare", *["often"] * 9]
    for seed in range(20):
        assert 0 in split(10, 45, seed, strata)[0]


def test_seed_decides_which_rows_are_held_out():
    assert split(100, 20, 1)[1] != split(100, 20, 2)[1]
    singles = [str(index) for index in range(100)]
    assert split(100, 20, 1, singles)[1] != split(100, 20, 2, singles)[1]


def test_single_row_is_trained_on():
    assert split(1, 99, 0) == ([0], [])


@pytest.mark.parametrize("percent", [0, -1, 100, float("nan")])
def test_split_outside_1_to_99_is_refused(percent):
    with pytest.raises(InvalidInput, match="must be from 1 to 99"):
        split(10, percent, 0)


def test_strata_of_another_length_are_refused():
    with pytest.raises(ValueError, match="2 strata for 3 rows"):
        split(3, 50, 0, ["a", "b"])


@given(indices=st.lists(st.integers(), unique=True), percent=st.floats(0.1, 100), seed=SEED)
def test_downsample_keeps_the_share_in_order(indices, percent, seed):
    kept = downsample(indices, percent, seed)
    assert kept == [index for index in indices if index in set(kept)]
    assert len(kept) == (max(1, round(len(indices) * percent / 100)) if indices else 0)
    assert kept == downsample(indices, percent, seed)


@given(strata=st.lists(st.sampled_from("abcd"), min_size=1, max_size=200), percent=st.floats(0.1, 100), seed=SEED)
def test_downsample_keeps_the_share_of_every_stratum(strata, percent, seed):
    kept = downsample(range(len(strata)), percent, seed, strata)
    assert len(kept) == max(1, round(len(strata) * percent / 100))
    assert kept == sorted(set(kept))
    found = Counter(strata[index] for index in kept)
    for stratum, size in Counter(strata).items():
        assert abs(found[stratum] - size * percent / 100) < 1 or len(kept) == 1


def test_hundred_percent_keeps_all():
    assert downsample([5, 3, 4], 100, 1) == [5, 3, 4]


@pytest.mark.parametrize("percent", [0, -5, 101, float("nan")])
def test_downsample_size_out_of_range_is_refused(percent):
    with pytest.raises(InvalidInput, match="downsample_size must be above 0 and at most 100"):
        downsample([1, 2], percent, 0)
