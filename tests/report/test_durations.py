"""How a job's time is divided among its stages."""

from typing import Any

from emissary.report.durations import STAGES, durations

WAITING, PREPARING, TRAINING, TESTING = STAGES


def events(*kinds: tuple[int, str]) -> list[dict[str, Any]]:
    return [{"created_at": at, "kind": kind, "details": {}} for at, kind in kinds]


def losses(*times: float) -> list[dict[str, Any]]:
    return [{"timestamp": time, "loss": 1.0} for time in times]


def test_every_second_of_a_job_is_in_one_stage() -> None:
    told = (
        (0, "queued"),
        (5, "started"),
        (6, "warning"),
        (40, "epoch"),
        (40, "testing"),
        (50, "tested"),
        (52, "succeeded"),
    )
    spent = durations(events(*told), losses(12.5, 39.9, 40.4), now=1000)
    assert spent == {WAITING: 5, PREPARING: 7.5, TRAINING: 27.5, TESTING: 12}


def test_stage_of_a_job_that_goes_on_ends_now() -> None:
    assert durations(events((0, "queued"), (5, "started")), losses(10), now=60) == {
        WAITING: 5,
        PREPARING: 5,
        TRAINING: 50,
    }


def test_runs_of_a_resumed_job_are_added_up_without_the_time_between_them() -> None:
    told = (0, "queued"), (1, "started"), (30, "testing"), (40, "failed"), (500, "queued"), (503, "resumed")
    again = (510, "tested"), (520, "succeeded")
    spent = durations(events(*told, *again), losses(11, 29), now=1000)
    assert spent == {WAITING: 4, PREPARING: 17, TRAINING: 19, TESTING: 20}


def test_test_for_early_stopping_is_part_of_the_training() -> None:
    told = (
        (0, "queued"),
        (1, "started"),
        (20, "epoch"),
        (30, "tested"),
        (50, "epoch"),
        (51, "testing"),
        (52, "succeeded"),
    )
    spent = durations(events(*told), losses(10, 45), now=1000)
    assert spent == {WAITING: 1, PREPARING: 9, TRAINING: 41, TESTING: 1}
