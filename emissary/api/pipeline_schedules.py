"""Schedules of pipelines as Prefect's own on the flow `retrain`, named after the pipeline; paused with it."""

import logging
from datetime import datetime, timedelta

from dateutil.rrule import rrulestr
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
from prefect.server.schemas import schedules as server_schedules
from pydantic import ValidationError
from sqlalchemy import select

from emissary.errors import EmissaryError, InvalidInput
from emissary.schemas.pipeline_schedules import PipelineSchedule, rule_parts
from emissary.store import pipelines
from emissary.store.database import transaction
from emissary.store.pipeline_tables import Pipeline

logger = logging.getLogger(__name__)

ANCHOR = datetime(2020, 1, 1)
"""Where recurrence rules begin to count, midnight by the clock of their timezone; Prefect's anchor too."""
# dateutil counts to the year 9999, and the calendar repeats after 28 years. This one begins as the anchor's, on a
# Wednesday of a leap year, so an INTERVAL hits the same days of the week and leap years.
_LAST_YEARS = datetime(9964, 1, 1)
MOST_TIMES_A_DAY = 24
"""Of a recurrence rule: Prefect's server walks through all of its times from the anchor on, each minute."""
_AHEAD = 3  # runs that Prefect's scheduler makes ahead, at least


async def wanted() -> list[DeploymentScheduleCreate]:
    """Those of all pipelines that have one; without those that Prefect's scheduler would fail at, which are logged."""
    async with transaction() as session:
        rows = (await session.scalars(select(Pipeline))).all()
    found = []
    for row in rows:
        try:
            schedule = pipelines.config(row).schedule
            if schedule is None:
                continue
            await _require_bearable(schedule)
            prefects = DeploymentScheduleCreate(
                schedule=_as_prefects(schedule, row.created_at),
                parameters={"pipeline_id": row.id},
                slug=row.id,
                active=not row.paused,
            )
        except (EmissaryError, ValueError) as error:
            logger.error("The pipeline %s has no schedule in Prefect, for it cannot be used: %s", row.id, error)
            continue
        found.append(prefects)
    return found


async def check(schedule: PipelineSchedule | None) -> None:
    """Raises InvalidInput, naming the field, for a schedule that Prefect does not take, or that never fires again."""
    if schedule is None:
        return
    await _require_bearable(schedule)
    if schedule.rrule is not None:
        _require_occurrence(schedule.rrule)


async def _require_bearable(schedule: PipelineSchedule) -> None:
    """Raises InvalidInput for what Prefect's scheduler fails at or is kept busy by, so that no pipeline would run."""
    if schedule.cron is not None:
        await _require_dates(schedule.cron, schedule.timezone)
    if schedule.rrule is not None:
        _require_few_times(schedule.rrule)


async def _require_dates(cron: str, timezone: str) -> None:
    shown = repr(cron[:60])
    try:
        await server_schedules.CronSchedule(cron=cron, timezone=timezone).get_dates(_AHEAD)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InvalidInput(f"schedule.cron: Prefect does not take {shown} ({reason}); correct it.") from error
    except ValueError as error:  # croniter's, which is no public part of Prefect
        raise InvalidInput(
            f"schedule.cron: {shown} has no date for Prefect ({error}); day of month and day of week must each come at "
            "some time in the months that are given, also where the other does."
        ) from error


def _require_few_times(rrule: str) -> None:
    parts = rule_parts(rrule)
    hours, minutes, seconds = (len(set(parts.get(name, "0").split(","))) for name in ("BYHOUR", "BYMINUTE", "BYSECOND"))
    if seconds > 1:
        raise InvalidInput("schedule.rrule: BYSECOND has several seconds of a minute; give one.")
    if hours * minutes > MOST_TIMES_A_DAY:
        raise InvalidInput(
            f"schedule.rrule: BYHOUR and BYMINUTE make {hours * minutes} times of a day, and may make "
            f"{MOST_TIMES_A_DAY}; give less, or cron or interval_seconds instead."
        )


def _require_occurrence(rrule: str) -> None:
    endless = ";".join(f"{name}={part}" for name, part in rule_parts(rrule).items() if name != "UNTIL")
    # Only what occurs at all can be searched from the anchor on without an end.
    occurs = next(iter(rrulestr(endless, dtstart=_LAST_YEARS)), None)
    if occurs is None or rrulestr(rrule, dtstart=ANCHOR).after(datetime.now()) is None:
        raise InvalidInput("schedule.rrule: it has no occurrence from now on; correct it.")


def _as_prefects(schedule: PipelineSchedule, created_at: datetime) -> CronSchedule | IntervalSchedule | RRuleSchedule:
    if schedule.cron is not None:
        return CronSchedule(cron=schedule.cron, timezone=schedule.timezone)
    if schedule.rrule is not None:
        return RRuleSchedule(rrule=schedule.rrule, timezone=schedule.timezone)
    assert schedule.interval_seconds is not None
    interval = timedelta(seconds=schedule.interval_seconds)
    return IntervalSchedule(interval=interval, anchor_date=created_at, timezone=schedule.timezone)
