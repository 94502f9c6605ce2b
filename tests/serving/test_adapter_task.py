import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emissary.serving.adapter_task import standardisation


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=30))
def test_targets_of_any_size_have_a_mean_among_them_and_a_deviation(targets):
    mean, deviation = standardisation(targets)
    largest = max(map(abs, targets))
    assert min(targets) - 1e-9 * largest <= mean <= max(targets) + 1e-9 * largest
    assert math.isfinite(deviation)
    assert deviation > 0
    if len(set(targets)) == 1:
        assert (mean, deviation) == (targets[0], 1.0)


def test_deviation_is_that_of_all_targets():
    assert standardisation([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]) == pytest.approx((5.0, 2.0))
