"""Inference engines: one base model, many adapters."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from emissary.schemas.deployments import CAPTURE, Checkpoint, DeploymentSummary
from emissary.schemas.fields import Lenient, Name, Reference, UnixTime
from emissary.schemas.schedules import Schedule
from emissary.schemas.traffic import Capture
from emissary.schemas.training_jobs import TaskType

EngineStatus = Literal["Creating", "Active", "Inactive"]
DEFAULT_INACTIVE_SECONDS = 3600


class InactiveTimeout(BaseModel):
    """`management_config` of `inactive_timeout`."""

    inactive_duration: int = Field(
        default=DEFAULT_INACTIVE_SECONDS,
        strict=True,
        ge=1,
        description="Seconds without a request, then the engine ends.",
    )


_CONFIGS: dict[str, type[InactiveTimeout] | type[Schedule]] = {
    "inactive_timeout": InactiveTimeout,
    "schedule": Schedule,
}


class ResourceManagement(BaseModel):
    """When an engine runs: until nobody has called it for a while, or in the windows of a schedule."""

    management_type: Literal["inactive_timeout", "schedule"] = "inactive_timeout"
    management_config: InactiveTimeout | Schedule = Field(default_factory=InactiveTimeout, validate_default=True)

    @field_validator("management_config", mode="before")
    @classmethod
    def _of_its_type(cls, value: object, info: ValidationInfo) -> InactiveTimeout | Schedule:
        """Validate as what `management_type` says, so that a refusal names the field inside it."""
        config = _CONFIGS.get(info.data.get("management_type", ""), InactiveTimeout)
        if isinstance(value, InactiveTimeout) and config is Schedule:
            value = {}  # the default: all fields are missing
        return config.model_validate(value)


class EngineCreate(Lenient):
    """POST /v1/engines."""

    name: Name | None = Field(default=None, description="Name of the engine.")
    base_model: Reference = Field(
        description="The base model it serves: of the catalogue, or `owner/name` of the Hugging Face hub."
    )
    task_type: TaskType = Field(default="text-generation", description="What its deployments do.")
    resource_management_config: ResourceManagement = Field(default_factory=ResourceManagement)


class EngineDeploy(BaseModel):
    """POST /v1/engines/{engine_id}/deploy."""

    name: Name | None = Field(default=None, description="Name of the deployment.")
    project_id: Reference = Field(description="Project of the training job.")
    training_id: Reference = Field(description="Training job, or with checkpoint 0 a base model's name.")
    checkpoint: Checkpoint
    capture: Capture | None = Field(default=None, description=CAPTURE)


class EngineUndeploy(BaseModel):
    """POST /v1/engines/{engine_id}/undeploy."""

    deployment_name: Reference


class EngineSummary(BaseModel):
    """An engine in a list."""

    model_config = ConfigDict(from_attributes=True)
    id: str
    name: str
    status: EngineStatus
    base_model: str
    server_type: str = "on-demand"
    task_type: TaskType
    deployment_counts: int
    created_at: UnixTime


class EngineDetail(BaseModel):
    """An engine with its deployments."""

    model_config = ConfigDict(from_attributes=True)
    id: str
    name: str
    status: EngineStatus
    base_model: str
    base_model_option: str = "pre-trained"
    server_type: str = "on-demand"
    task_type: TaskType
    deployments: list[DeploymentSummary]
    last_access_timestamp: UnixTime
    resource_management_config: ResourceManagement
    error: str | None
    created_at: UnixTime
