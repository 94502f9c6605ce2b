"""Projects."""

from fastapi import APIRouter

from emissary.api.auth import CurrentUser
from emissary.api.routes import training_jobs as training_job_routes
from emissary.schemas.datasets import DatasetSummary
from emissary.schemas.deployments import DeploymentSummary
from emissary.schemas.projects import ProjectCreate, ProjectDetail, ProjectSummary
from emissary.store import datasets, deployments, projects, training_jobs
from emissary.store.database import transaction

router = APIRouter(tags=["Projects"])


@router.post("/v1/projects", status_code=201, operation_id="createProject", summary="Create project")
async def create_project(user: CurrentUser, body: ProjectCreate | None = None) -> ProjectSummary:
    """A new project."""
    async with transaction() as session:
        return ProjectSummary.model_validate(await projects.create(session, body.name if body else None, user.id))


@router.get("/v1/projects", operation_id="listProjects", summary="List projects")
async def list_projects(_user: CurrentUser) -> list[ProjectSummary]:
    """All projects, the newest first."""
    async with transaction() as session:
        return [ProjectSummary.model_validate(row) for row in await projects.list_all(session)]


@router.get("/v1/projects/{project_id}", operation_id="retrieveProjectById", summary="Retrieve project")
async def retrieve_project(project_id: str, _user: CurrentUser) -> ProjectDetail:
    """A project with its datasets, training jobs and deployments."""
    async with transaction() as session:
        project = await projects.get(session, project_id)
        return ProjectDetail(
            id=project.id,
            name=project.name,
            datasets=[DatasetSummary.model_validate(row) for row in await datasets.list_all(session, project_id)],
            training_jobs=[
                training_job_routes.summary(row) for row in await training_jobs.list_all(session, project_id)
            ],
            deployments=[
                DeploymentSummary.model_validate(row) for row in await deployments.list_all(session, project_id)
            ],
        )
