"""Deployments: names under which checkpoints are called."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from emissary.schemas.fields import LEFT_OUT, Description, Lenient, Name, Reference, UnixTime
from emissary.schemas.schedules import Schedule
from emissary.schemas.traffic import Capture

DeploymentStatus = Literal[
    "Pending",
    "Deploying",
    "Deployed",
    "Failed",
    "Cancelled",
    "Terminated",
    "Deactivated",
    "Reactivating",
    "TimedOut",
]
Checkpoint = Annotated[
    Annotated[int, Field(strict=True, ge=0, lt=2**31)] | Literal["best"],
    Field(description="Number of the checkpoint, `best`, or 0 for the base model."),
]


CAPTURE = "Keep requests and answers, to correct them and train on them; left out: nothing is kept."


class DeploymentCreate(Lenient):
    """POST …/deployments: serve a checkpoint on an engine that fits, which is made when there is none."""

    training_job_id: Reference = Field(description="The training job; with checkpoint 0 also a base model's name.")
    checkpoint: Checkpoint
    name: Name | None = Field(default=None, description="Name to call it by; default `<job>-checkpoint-<n>`.")
    description: Description | None = None
    inactive_timeout: Annotated[int, Field(strict=True, ge=1)] | None = Field(
        default=None, description="Seconds without a request after which the engine ends; left out 3600."
    )
    schedule: Schedule | None = Field(default=None, description="Windows in which the engine runs, instead.")
    capture: Capture | None = Field(default=None, description=CAPTURE)

    @field_validator("schedule")
    @classmethod
    def _not_both(cls, value: Schedule | None, info: ValidationInfo) -> Schedule | None:
        if value is not None and info.data.get("inactive_timeout") is not None:
            raise ValueError("give it or inactive_timeout, not both")
        return value


class DeploymentSummary(BaseModel):
    """A deployment in a list."""

    model_config = ConfigDict(from_attributes=True)
    id: str
    name: str
    status: DeploymentStatus
    created_at: UnixTime


class DeploymentMetadata(BaseModel):
    """What else there is to know of a deployment, by its task type."""

    labels: Annotated[list[str] | None, LEFT_OUT] = Field(default=None, description="Classification: its labels.")


class DeploymentDetail(DeploymentSummary):
    """A deployment with what it serves."""

    task_type: str
    metadata: DeploymentMetadata
    description: Annotated[str | None, LEFT_OUT]
    base_model: str
    training_id: Annotated[str | None, LEFT_OUT]
    checkpoint: int
    engine_id: str
    error: str | None
    capture: Capture | None = Field(description="Which requests and answers are kept; null: none.")
    capture_lost: int = Field(
        description="Answers that were to be kept and were not: too many at once, too large, or the catalogue was away."
    )
    updated_at: UnixTime
