"""Schedules of engines as Prefect's own: one on `serve_engine` that opens the windows, one on `stop_engine` that
closes them, both named after the engine.
"""

from collections.abc import Callable

from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.schedules import CronSchedule
from sqlalchemy import select

from emissary import schedules
from emissary.schemas.schedules import Schedule
from emissary.store.database import transaction
from emissary.store.tables import Engine


async def openings() -> list[DeploymentScheduleCreate]:
    """Those of `serve_engine`."""
    return await _wanted(schedules.opening_cron)


async def closings() -> list[DeploymentScheduleCreate]:
    """Those of `stop_engine`."""
    return await _wanted(schedules.closing_cron)


async def _wanted(cron: Callable[[Schedule], str]) -> list[DeploymentScheduleCreate]:
    query = select(Engine.id, Engine.resource_management_config).where(
        Engine.resource_management_config["management_type"].astext == "schedule"
    )
    async with transaction() as session:
        rows = (await session.execute(query)).tuples().all()
    found = [(engine_id, schedules.of_engine(management)) for engine_id, management in rows]
    return [
        DeploymentScheduleCreate(
            schedule=CronSchedule(cron=cron(schedule), timezone=schedule.timezone),
            parameters={"engine_id": engine_id},
            slug=engine_id,
        )
        for engine_id, schedule in found
        if schedule is not None
    ]
