"""The plan of a storm, which its seed alone decides."""

import pytest

from tests.acceptance.storm_plan import KILLS, WORK, plan


def test_same_seed_plans_the_same_and_another_something_else() -> None:
    assert plan(7, 3) == plan(7, 3)
    assert plan(7, 3) != plan(8, 3)


@pytest.mark.parametrize("seed", range(20))
def test_three_minutes_have_most_kills_and_thirty_have_all_of_everything(seed: int) -> None:
    short = {(step.action, step.signal) for step in plan(seed, 3) if step.signal}
    assert len(short) >= len(set(KILLS)) - 3
    long = plan(seed, 30)
    assert {(step.action, step.signal) for step in long if step.signal} == set(KILLS)
    assert {step.action for step in long if step.signal is None} == set(WORK)
    assert [step.at for step in long] == sorted(step.at for step in long)
