"""Projects: workspaces of datasets, training jobs and deployments."""

from pydantic import BaseModel, ConfigDict, Field

from emissary.schemas.datasets import DatasetSummary
from emissary.schemas.deployments import DeploymentSummary
from emissary.schemas.fields import Name
from emissary.schemas.training_jobs import TrainingJobSummary


class ProjectCreate(BaseModel):
    """POST /v1/projects."""

    name: Name | None = Field(default=None, description="Name of the project.", examples=["my_project"])


class ProjectSummary(BaseModel):
    """A project in a list."""

    model_config = ConfigDict(from_attributes=True)
    id: str
    name: str


class ProjectDetail(ProjectSummary):
    """A project with what is in it."""

    datasets: list[DatasetSummary]
    training_jobs: list[TrainingJobSummary]
    deployments: list[DeploymentSummary]
