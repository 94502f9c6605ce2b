"""Queries of projects."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.errors import NotFound
from emissary.ids import new_id
from emissary.store.tables import Project


async def create(session: AsyncSession, name: str | None, user_id: str) -> Project:
    """A new project."""
    project_id = new_id("ms")
    project = Project(id=project_id, name=name or f"project-{project_id[3:9]}", created_by=user_id)
    session.add(project)
    await session.flush()
    return project


async def get(session: AsyncSession, project_id: str) -> Project:
    """The project. Raises NotFound."""
    project = await session.get(Project, project_id)
    if project is None:
        raise NotFound(f"There is no project {project_id!r}.")
    return project


async def list_all(session: AsyncSession) -> Sequence[Project]:
    """All projects, the newest first."""
    return (await session.scalars(select(Project).order_by(Project.created_at.desc(), Project.id))).all()
