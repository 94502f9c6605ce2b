"""Queries of inference engines."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete as sql_delete
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from emissary import base_models
from emissary.errors import InvalidInput, NotFound
from emissary.ids import new_id
from emissary.store.pages import Page, page
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
    """A new engine, Creating. Raises InvalidInput for an unknown base model or a task it does not do."""
    entry = base_models.get(base_model)
    if task_type not in entry.task_types:
        raise InvalidInput(f"task_type: {base_model} does {', '.join(entry.task_types)}, not {task_type}.")
    engine_id = new_id("engine")
    engine = Engine(
        id=engine_id,
        organization_id=organization_id,
        name=name or f"{base_model}-engine-{engine_id[7:11]}",
        base_model=base_model,
        task_type=task_type,
        resource_management_config=management,
        status="Creating",
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
    query = page(select(Engine, count), Engine, wanted).where(Engine.organization_id == organization_id)
    if base_model is not None:
        query = query.where(Engine.base_model == base_model)
    if task_type is not None:
        query = query.where(Engine.task_type == task_type)
    return [(engine, number) for engine, number in await session.execute(query)]


async def find_usable(session: AsyncSession, organization_id: str, base_model: str, task_type: str) -> Engine | None:
    """An engine of the organization that serves the base model or is about to; an Active one first."""
    query = (
        select(Engine)
        .where(
            Engine.organization_id == organization_id,
            Engine.base_model == base_model,
            Engine.task_type == task_type,
            Engine.status != "Inactive",
        )
        .order_by(Engine.status, Engine.created_at)
    )
    return (await session.scalars(query.limit(1))).first()


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
    engine.attempt += 1
    await session.execute(
        update(Deployment)
        .where(Deployment.engine_id == engine.id, Deployment.status == "Deactivated")
        .values(status="Reactivating")
    )
    await session.flush()


async def delete(session: AsyncSession, engine_id: str) -> None:
    """Forget an engine and the deployments that it no longer serves."""
    await session.execute(sql_delete(Deployment).where(Deployment.engine_id == engine_id))
    await session.execute(sql_delete(Engine).where(Engine.id == engine_id))


async def record_access(session: AsyncSession, engine_id: str, unix_seconds: float) -> None:
    """Note when the engine was last called."""
    await session.execute(
        update(Engine).where(Engine.id == engine_id).values(last_access_at=datetime.fromtimestamp(unix_seconds, UTC))
    )
