"""Prefect's schedules as the catalogue has them: what is missing in Prefect is made, what is no longer wanted goes.

A schedule of a flow deployment belongs to a row of the catalogue, by whose id it is known (its slug).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from emissary.api import engine_schedules, pipeline_schedules
from emissary.api.prefect_client import PREFECT_AWAY, prefect_client
from emissary.store.database import after_commit

logger = logging.getLogger(__name__)

KEEP_SECONDS = 60.0
_due = asyncio.Event()


@dataclass(frozen=True)
class _Kept:
    """The schedules of a flow deployment that belong to rows whose ids begin so."""

    name: str
    prefix: str
    wanted: Callable[[], Awaitable[list[DeploymentScheduleCreate]]]


_KEPT = (
    _Kept("serve_engine/serve_engine", "engine-", engine_schedules.openings),
    _Kept("stop_engine/stop_engine", "engine-", engine_schedules.closings),
    _Kept("retrain/retrain", "pl-", pipeline_schedules.wanted),
)


async def update() -> None:
    """Have `keep_for_ever` bring Prefect up to date now, once what was written is committed."""
    await after_commit(_wake)


async def _wake() -> None:
    _due.set()


async def keep_for_ever() -> None:
    """Make Prefect's schedules those of the catalogue: when `update` says so, and every minute for what could not be
    done then, or what somebody removed in Prefect.
    """
    while True:
        with suppress(TimeoutError):
            await asyncio.wait_for(_due.wait(), KEEP_SECONDS)
        _due.clear()
        try:
            await apply()
        except PREFECT_AWAY as error:
            logger.warning("Prefect does not take the schedules (%s); trying again", error)
        except Exception:
            logger.exception("The schedules could not be set right; trying again")


async def apply() -> None:
    """Make Prefect's schedules those of the catalogue. Raises what `PREFECT_AWAY` names."""
    async with prefect_client(None) as client:
        for kept in _KEPT:
            await _apply(client, kept)


async def _apply(client: PrefectClient, kept: _Kept) -> None:
    flow_deployment = await client.read_deployment_by_name(kept.name)
    # Prefect is read before the catalogue: a row is committed before its schedule is made, so none that was just made
    # is taken for one of a deleted row.
    there = {
        row.slug: row
        for row in await client.read_deployment_schedules(flow_deployment.id)
        if row.slug and row.slug.startswith(kept.prefix)
    }
    wanted = {row.slug: row for row in await kept.wanted()}
    missing = [row for slug, row in wanted.items() if slug not in there]
    surplus = [row for slug, row in there.items() if slug not in wanted]
    other = [(there[slug], row) for slug, row in wanted.items() if slug in there and _differs(there[slug], row)]
    for gone in surplus:
        try:
            await client.delete_deployment_schedule(flow_deployment.id, gone.id)
        except ObjectNotFound:
            continue  # another API process was faster
    for row in missing:
        try:
            await client.create_deployment_schedules(flow_deployment.id, [row])
        except PrefectHTTPStatusError as error:
            if error.response.status_code != httpx.codes.CONFLICT:
                raise
    for before, row in other:
        # Prefect's server empties the parameters where none are given.
        await client.update_deployment_schedule(
            flow_deployment.id, before.id, active=row.active, schedule=row.schedule, parameters=row.parameters
        )
    if missing or surplus or other:
        # Prefect drops the coming runs of all schedules of a deployment when one is deleted or changed, and makes those
        # of a new one within a minute: one that is due sooner would be missed.
        await client.request("POST", "/deployments/{id}/schedule", path_params={"id": flow_deployment.id}, json={})


def _differs(there: DeploymentSchedule, wanted: DeploymentScheduleCreate) -> bool:
    """Whether it fires at other times or for something else; when an interval began to be counted does not matter."""
    ours, theirs = (
        (row.active, row.parameters, row.schedule.model_dump(exclude={"anchor_date"})) for row in (wanted, there)
    )
    return ours != theirs
