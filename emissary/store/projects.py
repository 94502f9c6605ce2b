"""Queries of projects."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.errors import NotFound
from emissary.ids import new_id
from emissary.store.pages import Page, page
from emissary.store.tables import Project
from emissary.store.users import Caller


async def create(session: AsyncSession, name: str | None, caller: Caller) -> Project:
    """A new project."""
    project_id = new_id("ms")
    project = Project(
        id=project_id,
        organization_id=caller.organization_id,
        name=name or f"project-{project_id[3:9]}",
        created_by=caller.user_id,
    )
    session.add(project)
    await session.flush()
    return project


async def get(session: AsyncSession, project_id: str, organization_id: str) -> Project:
    """The organization's project. Raises NotFound."""
    project = await session.get(Project, project_id)
    if project is None or project.organization_id != organization_id:
        raise NotFound(f"There is no project {project_id!r}.")
    return project


async def list_all(session: AsyncSession, organization_id: str, wanted: Page) -> Sequence[Project]:
    """The organization's projects, the newest first."""
    query = select(Project).where(Project.organization_id == organization_id)
    return (await session.scalars(page(query, Project, wanted))).all()
