"""Schedules of pipelines as Prefect's own on the flow `retrain`, named after the pipeline; paused with it."""

from datetime import datetime, timedelta

from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
from sqlalchemy import select

from emissary.errors import InvalidInput
from emissary.schemas.pipeline_schedules import PipelineSchedule
from emissary.store import pipelines
from emissary.store.database import transaction
from emissary.store.pipeline_tables import Pipeline


async def wanted() -> list[DeploymentScheduleCreate]:
    """Those of all pipelines that have one."""
    async with transaction() as session:
        rows = (await session.scalars(select(Pipeline))).all()
    found = [(row, pipelines.config(row).schedule) for row in rows]
    return [
        DeploymentScheduleCreate(
            schedule=_as_prefects(schedule, row.created_at),
            parameters={"pipeline_id": row.id},
            slug=row.id,
            active=not row.paused,
        )
        for row, schedule in found
        if schedule is not None
    ]


def check(schedule: PipelineSchedule | None) -> None:
    """Raises InvalidInput for a schedule that Prefect does not take."""
    if schedule is None:
        return
    try:
        _as_prefects(schedule, datetime(2020, 1, 1))
    except ValueError as error:
        raise InvalidInput(f"schedule: Prefect does not take it ({str(error).splitlines()[-1].strip()}).") from error


def _as_prefects(schedule: PipelineSchedule, created_at: datetime) -> CronSchedule | IntervalSchedule | RRuleSchedule:
    if schedule.cron is not None:
        return CronSchedule(cron=schedule.cron, timezone=schedule.timezone)
    if schedule.rrule is not None:
        return RRuleSchedule(rrule=schedule.rrule, timezone=schedule.timezone)
    assert schedule.interval_seconds is not None
    interval = timedelta(seconds=schedule.interval_seconds)
    return IntervalSchedule(interval=interval, anchor_date=created_at, timezone=schedule.timezone)
