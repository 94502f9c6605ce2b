"""When an engine's schedule has it run: the instants of its windows, and the cron lines that open and close them.

A time of day that the clock skips (the hour lost in spring) counts as the same time by the clock that comes after it,
and one that comes twice (autumn) as its first: so do Prefect's cron schedules, and both must agree.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from emissary.schemas.schedules import DAYS, Schedule

_DAY = timedelta(days=1)


def of_engine(management: dict[str, Any]) -> Schedule | None:
    """The schedule in an engine's `resource_management_config`; None where it has none."""
    if management["management_type"] != "schedule":
        return None
    return Schedule.model_validate(management["management_config"])


def is_open(schedule: Schedule | None, moment: datetime) -> bool:
    """Whether an engine of that schedule is to run at `moment` (aware); without a schedule always."""
    return schedule is None or any(start <= moment < end for start, end in _windows(schedule, moment))


def next_opening(schedule: Schedule, moment: datetime) -> datetime:
    """When the next window after `moment` (aware) opens, in UTC."""
    return min(start for start, end in _windows(schedule, moment) if moment < start < end)


def opening_cron(schedule: Schedule) -> str:
    """The cron line, in the schedule's timezone, of the windows' openings."""
    return _cron(schedule.start_time, [DAYS.index(day) for day in schedule.days])


def closing_cron(schedule: Schedule) -> str:
    """The cron line, in the schedule's timezone, of the windows' ends."""
    return _cron(schedule.end_time, [DAYS.index(day) + _past_midnight(schedule) for day in schedule.days])


def _cron(at: str, weekdays: list[int]) -> str:
    hour, minute = at.split(":")
    # Cron's week begins on Sunday with 0, ours on Monday.
    days = sorted((day + 1) % 7 for day in weekdays)
    return f"{int(minute)} {int(hour)} * * {','.join(map(str, days))}"


def _past_midnight(schedule: Schedule) -> bool:
    return schedule.end_time < schedule.start_time


def _windows(schedule: Schedule, moment: datetime) -> Iterator[tuple[datetime, datetime]]:
    """(start, end) of the windows that open from two days before `moment` to two weeks and two days after, in UTC."""
    zone = ZoneInfo(schedule.timezone)
    today = moment.astimezone(zone).date()
    for offset in range(-2, 17):
        day = today + offset * _DAY
        if DAYS[day.weekday()] in schedule.days:
            last = day + _DAY if _past_midnight(schedule) else day
            yield _instant(day, schedule.start_time, zone), _instant(last, schedule.end_time, zone)


def _instant(day: date, at: str, zone: ZoneInfo) -> datetime:
    local = datetime.combine(day, time.fromisoformat(at), zone)
    instant = local.astimezone(UTC)
    if instant.astimezone(zone).replace(tzinfo=None) != local.replace(tzinfo=None):
        instant = local.replace(fold=1).astimezone(UTC)
    return instant
