"""Projects."""

from fastapi import Request, Response

from emissary.api import deleting, flow_schedules
from emissary.api.auth import CurrentCaller, OwnedProject
from emissary.api.paging import WantedPage, link_next
from emissary.api.routes import training_jobs as training_job_routes
from emissary.api.routing import keyed_router
from emissary.schemas.datasets import DatasetSummary
from emissary.schemas.deployments import DeploymentSummary
from emissary.schemas.projects import ProjectCreate, ProjectDetail, ProjectSummary
from emissary.store import datasets, deployments, projects, training_jobs
from emissary.store.database import transaction
from emissary.store.pages import Page

_ALL = Page()
router = keyed_router("Projects")


@router.post("/v1/projects", status_code=201, operation_id="createProject", summary="Create project")
async def create_project(caller: CurrentCaller, body: ProjectCreate | None = None) -> ProjectSummary:
    """A new project."""
    async with transaction() as session:
        return ProjectSummary.model_validate(await projects.create(session, body.name if body else None, caller))


@router.get("/v1/projects", operation_id="listProjects", summary="List projects")
async def list_projects(
    caller: CurrentCaller, page: WantedPage, request: Request, response: Response
) -> list[ProjectSummary]:
    """The organization's projects, the newest first."""
    async with transaction() as session:
        rows = await projects.list_all(session, caller.organization_id, page)
    link_next(request, response, page, [row.id for row in rows])
    return [ProjectSummary.model_validate(row) for row in rows]


@router.get("/v1/projects/{project_id}", operation_id="retrieveProjectById", summary="Retrieve project")
async def retrieve_project(project: OwnedProject) -> ProjectDetail:
    """A project with its datasets, training jobs and deployments."""
    async with transaction() as session:
        return ProjectDetail(
            id=project.id,
            name=project.name,
            datasets=[DatasetSummary.model_validate(row) for row in await datasets.list_all(session, project.id, _ALL)],
            training_jobs=[
                training_job_routes.summary(row) for row in await training_jobs.list_all(session, project.id, _ALL)
            ],
            deployments=[
                DeploymentSummary.model_validate(row) for row in await deployments.list_all(session, project.id, _ALL)
            ],
        )


@router.delete("/v1/projects/{project_id}", status_code=204, operation_id="deleteProjectById", summary="Delete project")
async def delete_project(project: OwnedProject) -> None:
    """Cancels what runs, then removes everything that is in the project; engines stay."""
    left = None
    while left is None:
        async with transaction() as session:
            runs = await projects.flow_runs(session, project.id)
        await deleting.end_runs(runs)
        async with transaction() as session:
            left = await projects.delete(session, project.id, runs)
    await flow_schedules.update()
    await deleting.clear(left)
