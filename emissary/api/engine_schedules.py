"""Schedules of engines as Prefect's own: one on `serve_engine` that opens the windows, one on `stop_engine` that
closes them, both named after the engine.
"""

import logging
from collections.abc import Callable

from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.schedules import CronSchedule
from sqlalchemy import select

from emissary import schedules
from emissary.schemas.schedules import Schedule
from emissary.store.database import transaction
from emissary.store.tables import Engine

logger = logging.getLogger(__name__)


async def openings() -> list[DeploymentScheduleCreate]:
    """Those of `serve_engine`; without those that cannot be used, which are logged."""
    return await _wanted(schedules.opening_cron)


async def closings() -> list[DeploymentScheduleCreate]:
    """Those of `stop_engine`, as `openings`."""
    return await _wanted(schedules.closing_cron)


async def _wanted(cron: Callable[[Schedule], str]) -> list[DeploymentScheduleCreate]:
    query = select(Engine.id, Engine.resource_management_config).where(
        Engine.resource_management_config["management_type"].astext == "schedule"
    )
    async with transaction() as session:
        rows = (await session.execute(query)).tuples().all()
    found = []
    for engine_id, management in rows:
        try:
            schedule = schedules.of_engine(management)
            assert schedule is not None
            when = CronSchedule(cron=cron(schedule), timezone=schedule.timezone)
        except ValueError as error:
            logger.error("The engine %s has no schedule in Prefect, for it cannot be used: %s", engine_id, error)
            continue
        found.append(DeploymentScheduleCreate(schedule=when, parameters={"engine_id": engine_id}, slug=engine_id))
    return found
