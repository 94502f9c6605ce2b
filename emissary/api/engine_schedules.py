"""Schedules of engines as Prefect's own: one on `serve_engine` that opens the windows, one on `stop_engine` that
closes them, both named after the engine.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from sqlalchemy import select

from emissary import schedules
from emissary.api.prefect_client import PREFECT_AWAY, prefect_client
from emissary.schemas.schedules import Schedule
from emissary.store.database import after_commit, transaction
from emissary.store.tables import Engine

logger = logging.getLogger(__name__)

KEEP_SECONDS = 60.0
_due = asyncio.Event()
_CRONS: dict[str, Callable[[Schedule], str]] = {
    "serve_engine/serve_engine": schedules.opening_cron,
    "stop_engine/stop_engine": schedules.closing_cron,
}


async def update() -> None:
    """Have `keep_for_ever` bring Prefect up to date now, once what was written is committed."""
    await after_commit(_wake)


async def _wake() -> None:
    _due.set()


async def keep_for_ever() -> None:
    """Make Prefect's schedules those of the catalogue's engines: when `update` says so, and every minute for what could
    not be done then, or what somebody removed in Prefect.
    """
    while True:
        with suppress(TimeoutError):
            await asyncio.wait_for(_due.wait(), KEEP_SECONDS)
        _due.clear()
        try:
            await apply()
        except PREFECT_AWAY as error:
            logger.warning("Prefect does not take the schedules of engines (%s); trying again", error)
        except Exception:
            logger.exception("The schedules of engines could not be set right; trying again")


async def apply() -> None:
    """Make Prefect's schedules those of the catalogue's engines. Raises what `PREFECT_AWAY` names."""
    async with prefect_client(None) as client:
        for name, cron in _CRONS.items():
            await _apply_to(client, name, cron)


async def _apply_to(client: PrefectClient, name: str, cron: Callable[[Schedule], str]) -> None:
    flow_deployment = await client.read_deployment_by_name(name)
    # Prefect is read before the catalogue: an engine is committed before its schedule is made, so none that was just
    # made is taken for one of a deleted engine.
    there = {row.slug: row for row in await client.read_deployment_schedules(flow_deployment.id)}
    wanted = await _wanted()
    missing = [
        DeploymentScheduleCreate(
            schedule=CronSchedule(cron=cron(schedule), timezone=schedule.timezone),
            parameters={"engine_id": engine_id},
            slug=engine_id,
        )
        for engine_id, schedule in wanted.items()
        if engine_id not in there
    ]
    surplus = [row.id for slug, row in there.items() if slug and slug.startswith("engine-") and slug not in wanted]
    for schedule_id in surplus:
        try:
            await client.delete_deployment_schedule(flow_deployment.id, schedule_id)
        except ObjectNotFound:
            continue  # another API process was faster
    for row in missing:
        try:
            await client.create_deployment_schedules(flow_deployment.id, [row])
        except PrefectHTTPStatusError as error:
            if error.response.status_code != httpx.codes.CONFLICT:
                raise
    if missing or surplus:
        # Prefect drops the coming runs of all schedules of a deployment when one is deleted, and makes those of a new
        # one within a minute: a window that opens sooner would be missed.
        await client.request("POST", "/deployments/{id}/schedule", path_params={"id": flow_deployment.id}, json={})


async def _wanted() -> dict[str, Schedule]:
    query = select(Engine.id, Engine.resource_management_config).where(
        Engine.resource_management_config["management_type"].astext == "schedule"
    )
    async with transaction() as session:
        rows = (await session.execute(query)).tuples().all()
    found = {engine_id: schedules.of_engine(management) for engine_id, management in rows}
    return {engine_id: schedule for engine_id, schedule in found.items() if schedule is not None}
