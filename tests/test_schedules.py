"""Windows of schedules: when they are open, across midnight and clock changes, and as Prefect's cron schedules."""

import asyncio
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from prefect.server.schemas.schedules import CronSchedule

from emissary.schedules import closing_cron, is_open, next_opening, of_engine, opening_cron
from emissary.schemas.schedules import DAYS, Day, Schedule

NEW_YORK = ZoneInfo("America/New_York")


def schedule(start: str, end: str, *days: Day, timezone: str = "America/New_York") -> Schedule:
    return Schedule(timezone=timezone, start_time=start, end_time=end, days=list(days or DAYS))


def local(text: str, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=NEW_YORK, fold=fold)


@pytest.mark.parametrize(
    ("moment", "is_in"),
    [
        ("2026-11-23T09:59:59", False),  # a Monday
        ("2026-11-23T10:00", True),
        ("2026-11-23T17:59:59", True),
        ("2026-11-23T18:00", False),
        ("2026-11-24T12:00", False),
        ("2026-11-25T12:00", True),
    ],
)
def test_window_is_open_from_its_start_to_before_its_end_on_its_days(moment: str, *, is_in: bool) -> None:
    assert is_open(schedule("10:00", "18:00", "monday", "wednesday"), local(moment)) == is_in


@pytest.mark.parametrize(
    ("moment", "is_in"),
    [
        ("2026-11-27T21:59", False),  # a Friday
        ("2026-11-27T22:00", True),
        ("2026-11-28T05:59", True),
        ("2026-11-28T06:00", False),
        ("2026-11-28T23:00", False),
        ("2026-11-27T03:00", False),
    ],
)
def test_window_past_midnight_belongs_to_the_day_it_starts_on(moment: str, *, is_in: bool) -> None:
    assert is_open(schedule("22:00", "06:00", "friday"), local(moment)) == is_in


def test_window_that_ends_at_midnight_ends_on_the_next_day() -> None:
    evening = schedule("20:00", "00:00", "sunday")
    assert is_open(evening, local("2026-11-22T23:59"))
    assert not is_open(evening, local("2026-11-23T00:00"))


def test_without_a_schedule_there_is_no_time_it_is_closed() -> None:
    management = {"management_type": "inactive_timeout", "management_config": {"inactive_duration": 5}}
    assert is_open(of_engine(management), local("2026-11-22T23:59"))


@pytest.mark.parametrize(
    ("moment", "opening"),
    [
        ("2026-11-23T09:00", "2026-11-23T10:00"),
        ("2026-11-23T10:00", "2026-11-30T10:00"),
        ("2026-11-24T10:00", "2026-11-30T10:00"),
    ],
)
def test_next_opening_is_after_the_moment(moment: str, opening: str) -> None:
    assert next_opening(schedule("10:00", "18:00", "monday"), local(moment)) == local(opening)


def hours_open(wanted: Schedule, first: str, last: str) -> float:
    """Hours between the two local times in which the window is open, counted in steps of five minutes."""
    moment, end = local(first).astimezone(UTC), local(last).astimezone(UTC)
    steps = 0
    while moment < end:
        steps += is_open(wanted, moment)
        moment += timedelta(minutes=5)
    return steps / 12


def test_night_is_an_hour_shorter_in_spring_and_longer_in_autumn() -> None:
    night = schedule("22:00", "06:00")
    assert hours_open(night, "2026-03-06T12:00", "2026-03-07T12:00") == 8
    assert hours_open(night, "2026-03-07T12:00", "2026-03-08T12:00") == 7
    assert hours_open(night, "2026-10-31T12:00", "2026-11-01T12:00") == 9


def test_time_that_the_clock_skips_or_repeats_happens_once() -> None:
    skipped = schedule("02:30", "05:00")
    assert next_opening(skipped, local("2026-03-08T00:00")) == datetime(2026, 3, 8, 6, 30, tzinfo=UTC)
    repeated = schedule("01:30", "05:00")
    first = next_opening(repeated, local("2026-11-01T00:00"))
    assert first == datetime(2026, 11, 1, 5, 30, tzinfo=UTC)
    assert is_open(repeated, local("2026-11-01T01:15", fold=1))
    assert next_opening(repeated, first) == local("2026-11-02T01:30")


def test_window_that_the_clock_change_swallows_is_passed_over() -> None:
    swallowed = schedule("01:45", "02:30", "sunday")
    assert not is_open(swallowed, datetime(2026, 3, 8, 6, 50, tzinfo=UTC))
    assert next_opening(swallowed, local("2026-03-08T00:00")) == local("2026-03-15T01:45")


@pytest.mark.parametrize(
    ("wanted", "opening", "closing"),
    [
        (schedule("10:00", "18:05", "monday", "sunday"), "0 10 * * 0,1", "5 18 * * 0,1"),
        (schedule("22:30", "06:00", "friday", "saturday"), "30 22 * * 5,6", "0 6 * * 0,6"),
        (schedule("00:00", "12:00"), "0 0 * * 0,1,2,3,4,5,6", "0 12 * * 0,1,2,3,4,5,6"),
    ],
)
def test_cron_lines_have_sunday_as_0_and_the_next_day_past_midnight(
    wanted: Schedule, opening: str, closing: str
) -> None:
    assert (opening_cron(wanted), closing_cron(wanted)) == (opening, closing)


@pytest.mark.parametrize("timezone", ["America/New_York", "Australia/Lord_Howe", "America/Santiago", "Asia/Kolkata"])
@pytest.mark.parametrize(("start", "end"), [("02:30", "05:00"), ("22:00", "01:30"), ("00:30", "02:00")])
def test_prefects_schedule_opens_and_closes_the_windows_at_the_same_instants(
    timezone: str, start: str, end: str
) -> None:
    wanted = schedule(start, end, "monday", "saturday", "sunday", timezone=timezone)
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    moment, openings = begin, []
    while (moment := next_opening(wanted, moment)) < begin + timedelta(days=360):
        openings.append(moment)
    cron = CronSchedule(cron=opening_cron(wanted), timezone=timezone)
    dates = [date.astimezone(UTC) for date in asyncio.run(cron.get_dates(len(openings), start=begin))]
    assert [date for date in dates if is_open(wanted, date)] == openings
    ends = CronSchedule(cron=closing_cron(wanted), timezone=timezone)
    for date in asyncio.run(ends.get_dates(150, start=begin)):
        assert not is_open(wanted, date)
        assert is_open(wanted, date - timedelta(minutes=1)) or date.astimezone(ZoneInfo(timezone)).day < 9
