"""Queries of inference engines."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import delete as sql_delete
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from emissary import base_models, schedules
from emissary.errors import InvalidInput, NotFound, Unavailable
from emissary.ids import new_id
from emissary.store import leases
from emissary.store.pages import Page, fetch
from emissary.store.tables import GONE, Deployment, Engine


async def create(
    session: AsyncSession,
    *,
    organization_id: str,
    name: str | None,
    base_model: str,
    task_type: str,
    management: dict[str, Any],
    user_id: str,
) -> Engine:
    """A new engine: Creating, or Inactive where its schedule does not have it run now.

    Raises InvalidInput for an unknown base model or a task it does not do.
    """
    entry = base_models.get(base_model)
    if task_type not in entry.task_types:
        raise InvalidInput(f"task_type: {base_model} does {', '.join(entry.task_types)}, not {task_type}.")
    now = datetime.now(UTC)
    runs = schedules.is_open(schedules.of_engine(management), now)
    engine_id = new_id("engine")
    engine = Engine(
        id=engine_id,
        organization_id=organization_id,
        name=name or f"{entry.short_name}-engine-{engine_id[7:11]}",
        base_model=base_model,
        task_type=task_type,
        resource_management_config=management,
        status="Creating" if runs else "Inactive",
        start_requested_at=now if runs else None,
        created_by=user_id,
    )
    session.add(engine)
    await session.flush()
    return engine


async def get(session: AsyncSession, engine_id: str, organization_id: str | None = None) -> Engine:
    """The engine, of `organization_id` where given. Raises NotFound."""
    engine = await session.get(Engine, engine_id)
    if engine is None or (organization_id is not None and engine.organization_id != organization_id):
        raise NotFound(f"There is no engine {engine_id!r}.")
    return engine


async def lock(session: AsyncSession, engine_id: str) -> Engine:
    """The engine as it is now, for this transaction alone to change. Raises NotFound."""
    query = select(Engine).where(Engine.id == engine_id).with_for_update().execution_options(populate_existing=True)
    engine = (await session.scalars(query)).first()
    if engine is None:
        raise NotFound(f"There is no engine {engine_id!r}.")
    return engine


async def list_all(
    session: AsyncSession,
    organization_id: str,
    wanted: Page,
    *,
    base_model: str | None = None,
    task_type: str | None = None,
) -> Sequence[tuple[Engine, int]]:
    """The organization's engines with the number of their deployments, the newest first."""
    count = (
        select(func.count())
        .where(Deployment.engine_id == Engine.id, Deployment.status.not_in(GONE))
        .correlate(Engine)
        .scalar_subquery()
    )
    query = select(Engine, count).where(Engine.organization_id == organization_id)
    if base_model is not None:
        query = query.where(Engine.base_model == base_model)
    if task_type is not None:
        query = query.where(Engine.task_type == task_type)
    return [(engine, number) for engine, number in await fetch(session, query, Engine, wanted)]


async def find_usable(
    session: AsyncSession, organization_id: str, base_model: str, task_type: str, management: dict[str, Any]
) -> Engine | None:
    """An engine of the organization that fits and is managed in the same way, locked; one that runs comes first.

    Until the transaction ends no other one looks for an engine of that kind, so two do not make two.
    """
    kind = f"{organization_id} {base_model} {task_type}"
    await session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(kind, 0))))
    query = (
        select(Engine)
        .where(
            Engine.organization_id == organization_id,
            Engine.base_model == base_model,
            Engine.task_type == task_type,
            Engine.resource_management_config == management,
        )
        .order_by(Engine.status, Engine.created_at)
    )
    found = (await session.scalars(query.limit(1))).first()
    return None if found is None else await lock(session, found.id)


async def deployments(session: AsyncSession, engine_id: str) -> Sequence[Deployment]:
    """The engine's deployments that are not gone, the oldest first."""
    query = select(Deployment).where(Deployment.engine_id == engine_id, Deployment.status.not_in(GONE))
    return (await session.scalars(query.order_by(Deployment.created_at))).all()


async def set_endpoint(session: AsyncSession, engine_id: str, endpoint: str) -> None:
    """Where the engine's server listens now."""
    await session.execute(
        update(Engine).where(Engine.id == engine_id).values(endpoint=endpoint, last_access_at=func.now())
    )


async def clear_endpoint(session: AsyncSession, engine_id: str, endpoint: str) -> None:
    """The server at `endpoint` has ended; nothing changes when the engine listens elsewhere by now."""
    await session.execute(
        update(Engine).where(Engine.id == engine_id, Engine.endpoint == endpoint).values(endpoint=None)
    )


async def restart(session: AsyncSession, engine: Engine) -> None:
    """Make an Inactive engine Creating again: it gets a flow run of its own at the next submission."""
    engine.status = "Creating"
    engine.flow_run_id = None
    engine.error = None
    engine.crashes = 0
    engine.state_at = None
    engine.attempt += 1
    engine.start_requested_at = datetime.now(UTC)
    await session.flush()
    await deployments_follow(session, engine.id, "Creating")


async def start_again(session: AsyncSession, engine_id: str) -> Engine | None:
    """The engine, which had ended, Creating again and to be submitted; None when somebody else just did that.

    Raises NotFound, and Unavailable, with the seconds to its next window, when its schedule has it ended now.
    """
    now = datetime.now(UTC)
    engine = await lock(session, engine_id)
    if engine.status != "Inactive":
        return None
    schedule = schedules.of_engine(engine.resource_management_config)
    if schedule is not None and not schedules.is_open(schedule, now):
        opening = schedules.next_opening(schedule, now)
        raise Unavailable(
            f"The engine {engine.id} runs by a schedule that has it ended now; it opens at "
            f"{opening.isoformat(timespec='seconds')}. To start it before, reactivate it.",
            code="outside_schedule",
            retry_after=math.ceil((opening - now).total_seconds()),
        )
    await restart(session, engine)
    return engine


async def adopt(session: AsyncSession, engine_id: str, flow_run_id: UUID, moment: datetime) -> Engine | None:
    """The engine, as the one that the flow run `flow_run_id` serves from `moment` on.

    None when another run serves it, or its schedule does not have it run at `moment`. Raises NotFound.
    """
    engine = await lock(session, engine_id)
    if engine.status == "Inactive":
        if not schedules.is_open(schedules.of_engine(engine.resource_management_config), moment):
            return None
        await restart(session, engine)
    elif engine.flow_run_id not in (None, flow_run_id):
        return None
    engine.flow_run_id = flow_run_id
    await session.flush()
    return engine


async def deployments_follow(session: AsyncSession, engine_id: str, status: str) -> None:
    """Give what an engine serves the status that follows from the engine's new one."""
    follows = {
        "Inactive": (("Deployed", "Reactivating"), "Deactivated"),
        "Creating": (("Deployed", "Deactivated"), "Reactivating"),
        "Active": (("Deactivated", "Reactivating"), "Deployed"),
    }
    before, after = follows[status]
    await session.execute(
        update(Deployment).where(Deployment.engine_id == engine_id, Deployment.status.in_(before)).values(status=after)
    )


async def record_start(session: AsyncSession, engine_id: str, status: str) -> None:
    """Note that the engine began to start (Creating), or how long that took (Active)."""
    took = func.extract("epoch", func.now() - Engine.start_requested_at)
    values: dict[str, dict[str, Any]] = {
        "Creating": {"start_requested_at": func.now()},
        "Active": {"start_seconds": took},
    }
    if status in values:
        await session.execute(update(Engine).where(Engine.id == engine_id).values(**values[status]))


async def usual_start_seconds(session: AsyncSession, engine: Engine) -> float | None:
    """How long the engine's last start took, or else another engine's of the same base model; None if none is known."""
    query = (
        select(Engine.start_seconds)
        .where(Engine.base_model == engine.base_model, Engine.start_seconds.is_not(None))
        .order_by((Engine.id == engine.id).desc(), Engine.updated_at.desc())
    )
    return (await session.scalars(query.limit(1))).first()


async def delete(session: AsyncSession, engine_id: str) -> None:
    """Forget an engine and its deployments."""
    await leases.forget(session, [engine_id])
    await leases.forget(session, select(Deployment.id).where(Deployment.engine_id == engine_id))
    await session.execute(sql_delete(Deployment).where(Deployment.engine_id == engine_id))
    await session.execute(sql_delete(Engine).where(Engine.id == engine_id))


async def record_access(session: AsyncSession, engine_id: str, unix_seconds: float) -> None:
    """Note when the engine was last called."""
    await session.execute(
        update(Engine).where(Engine.id == engine_id).values(last_access_at=datetime.fromtimestamp(unix_seconds, UTC))
    )
