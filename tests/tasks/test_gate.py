"""The gate's rules on numbers alone."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emissary.schemas.decisions import GateRule
from emissary.schemas.pipelines import Gate
from tasks.gate import Measured, apply, confidence, differences, sentence

FIRST = "exact_match_shared"
ERROR = "regression_mae_shared"
scores = st.lists(st.one_of(st.none(), st.floats(-5, 5, allow_nan=False)), min_size=1, max_size=12)
whole = st.lists(st.integers(-3, 3).map(float), min_size=2, max_size=12)
pair = st.integers(1, 12).flatmap(
    lambda n: st.tuples(*[st.lists(scores.map(lambda s: s[0]), min_size=n, max_size=n)] * 2)
)


def measured(values: list[float | None], recalls: dict[str, float | None] | None = None, name: str = FIRST) -> Measured:
    return Measured({name: values}, recalls or {})


def found(
    gate: Gate, challenger: Measured, champion: Measured | None, first: str = FIRST
) -> dict[str, tuple[object, bool]]:
    rules = apply(gate, first, challenger, champion)
    return {f"{rule.rule}:{rule.of}": (rule.found, rule.passed) for rule in rules}


def test_without_a_champion_only_minimum_scores_apply() -> None:
    gate = Gate(minimum_score={FIRST: 0.5}, confidence=0.9, class_tolerance=0.1, minimum_improvement=1.0)
    assert found(gate, measured([1.0, 0.0]), None) == {f"minimum_score:{FIRST}": (0.5, True)}
    assert found(gate, measured([1.0, 0.0, 0.0]), None) == {f"minimum_score:{FIRST}": (pytest.approx(1 / 3), False)}


def test_error_is_better_the_lower_it_is() -> None:
    gate = Gate(minimum_score={ERROR: 1.0}, minimum_improvement=0.5, confidence=0.9)
    better = found(gate, measured([0.5] * 4, name=ERROR), measured([1.5] * 4, name=ERROR), ERROR)
    worse = found(gate, measured([1.5] * 4, name=ERROR), measured([0.5] * 4, name=ERROR), ERROR)
    assert better == {
        f"minimum_score:{ERROR}": (0.5, True),
        f"minimum_improvement:{ERROR}": (1.0, True),
        f"confidence:{ERROR}": (1.0, True),
    }
    assert worse == {
        f"minimum_score:{ERROR}": (1.5, False),
        f"minimum_improvement:{ERROR}": (-1.0, False),
        f"confidence:{ERROR}": (0.0, False),
    }


def test_class_that_got_worse_by_more_than_the_tolerance_is_named() -> None:
    champion = measured([1.0], {"a": 0.9, "b": 0.9, "unseen": None})
    challenger = measured([1.0], {"a": 0.85, "b": 0.7, "unseen": None})
    rules = apply(Gate(class_tolerance=0.1), FIRST, challenger, champion)
    assert [(rule.of, rule.passed) for rule in rules if rule.rule == "class_tolerance"] == [("a", True), ("b", False)]
    assert "class_tolerance of b is -0.2, wanted -0.1" in sentence(rules, champion=True)


@pytest.mark.parametrize(
    ("found", "compared"), [(0.2, "better than"), (0.0, "as good as"), (-0.2, "worse than"), (None, "better than")]
)
def test_rules_that_are_met_say_how_it_compares(found: float | None, compared: str) -> None:
    rule = GateRule(rule="minimum_improvement", of="f", wanted=-1.0, found=found, passed=True)
    assert sentence([rule], champion=True) == f"The one rule of the gate is met; {compared} what was deployed."
    assert sentence([rule, rule], champion=True).startswith("All 2 rules of the gate are met; ")
    assert sentence([], champion=False) == "The gate has no rules; compared with nothing, for nothing was deployed."


def test_what_cannot_be_measured_is_not_met() -> None:
    gate = Gate(minimum_score={FIRST: -1.0}, minimum_improvement=-1.0, confidence=0.01)
    rules = apply(gate, FIRST, measured([None, None]), measured([0.0, 0.0]))
    assert [(rule.found, rule.passed) for rule in rules] == [(None, False)] * 3


@given(pair)
def test_equal_models_are_never_better_by_anything(both: tuple[list[float | None], list[float | None]]) -> None:
    values, _ = both
    rules = found(Gate(minimum_improvement=0.01, confidence=0.01), measured(values), measured(values))
    assert not any(passed for _, passed in rules.values())


@given(pair)
def test_improvement_has_the_opposite_sign_when_the_two_change_places(
    both: tuple[list[float | None], list[float | None]],
) -> None:
    ours, theirs = map(measured, both)
    if None in (*both[0], *both[1]):
        return
    there, back = (found(Gate(), *order)[f"minimum_improvement:{FIRST}"] for order in ((ours, theirs), (theirs, ours)))
    assert isinstance(there[0], float)
    assert isinstance(back[0], float)
    assert there[0] == pytest.approx(-back[0])
    assert there[1] or back[1]


@given(pair)
def test_only_rows_that_both_were_scored_on_are_compared(both: tuple[list[float | None], list[float | None]]) -> None:
    ours, theirs = both
    compared = differences(FIRST, measured(ours), measured(theirs))
    assert len(compared) == sum(a is not None and b is not None for a, b in zip(ours, theirs, strict=True))


@given(whole)
@settings(max_examples=15)
def test_confidence_is_a_share_and_grows_with_every_difference(values: list[float]) -> None:
    low, high = confidence(values), confidence([value + 1 for value in values])
    assert low is not None
    assert high is not None
    assert 0 <= low <= high <= 1
    assert low == confidence(values)
    if min(values) > 0:
        assert low == 1
    if max(values) <= 0:
        assert low == 0


def test_one_row_gives_no_confidence() -> None:
    assert confidence([1.0]) is None
