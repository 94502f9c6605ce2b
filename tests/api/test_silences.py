"""How long runs have shown no sign of life, by what was seen."""

from uuid import uuid4

from emissary.api.silences import LONGEST_GAP, Silences

A, B = uuid4(), uuid4()


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_silence_grows_until_another_sign_is_seen() -> None:
    clock = Clock()
    silences = Silences(clock)
    assert silences.look({A: 1}) == {A: 0.0}
    for seconds in (2.0, 4.0, 6.0):
        clock.now = 100.0 + seconds
        assert silences.look({A: 1}) == {A: seconds}
    clock.now += 2
    assert silences.look({A: 2}) == {A: 0.0}


def test_each_run_has_its_own_silence_and_one_that_is_not_seen_is_forgotten() -> None:
    clock = Clock()
    silences = Silences(clock)
    silences.look({A: 1})
    clock.now += 2
    assert silences.look({A: 1, B: 1}) == {A: 2.0, B: 0.0}
    clock.now += 2
    assert silences.look({B: 1}) == {B: 2.0}
    assert silences.look({A: 1, B: 1}) == {A: 0.0, B: 2.0}


def test_time_in_which_nothing_was_seen_does_not_count() -> None:
    clock = Clock()
    silences = Silences(clock)
    silences.look({A: 1})
    clock.now += LONGEST_GAP
    assert silences.look({A: 1}) == {A: LONGEST_GAP}
    clock.now += LONGEST_GAP + 0.1
    assert silences.look({A: 1}) == {A: 0.0}
