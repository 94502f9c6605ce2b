"""Subscriptions: who is told of what happens in a project."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, model_validator

from emissary.schemas.fields import Description, Name, Strict, UnixTime
from emissary.schemas.sources import WebAddress

Event = Literal[
    "training_job.started",
    "training_job.succeeded",
    "training_job.failed",
    "training_job.timed_out",
    "training_job.cancelled",
    "deployment.deployed",
    "deployment.updated",
    "deployment.deactivated",
    "deployment.reactivated",
    "deployment.failed",
    "deployment.deleted",
    "pipeline_run.waiting",
    "pipeline_run.promoted",
    "pipeline_run.not_promoted",
    "pipeline_run.rolled_back",
    "pipeline_run.skipped",
    "pipeline_run.failed",
    "pipeline_run.cancelled",
]
"""What a subscription may be to."""

PING = "ping"
"""The event that is sent on request, to see that it arrives."""

DeliveryStatus = Literal["Pending", "Delivered", "Dead"]
BlockName = Annotated[str, Field(strict=True, pattern=r"^[a-z0-9-]{1,100}/[a-z0-9-]{1,100}$")]


class SubscriptionCreate(Strict):
    """POST …/subscriptions."""

    name: Name = Field(description="Name of the subscription, of which the project has no other.")
    description: Description | None = Field(default=None, description="What it is for.")
    url: WebAddress | None = Field(
        default=None,
        description="Where events are posted to, signed by Standard Webhooks; a public address, unless the operator "
        "allows others. Either this or `block`.",
        examples=["https://example.com/emissary"],
    )
    block: BlockName | None = Field(
        default=None,
        description="Type and name of a notification block of Prefect that the operator lets the organization use.",
        examples=["slack-webhook/ops"],
    )
    events: Annotated[list[Event], Field(min_length=1, max_length=50)] = Field(description="What it is told of.")
    paused: bool = Field(
        default=False, strict=True, description="Whether it is told nothing; what happens meanwhile is not sent later."
    )

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if (self.url is None) == (self.block is None):
            raise ValueError("give either url or block")
        return self


class SubscriptionRotate(Strict):
    """POST …/rotate."""

    overlap_seconds: Annotated[int, Field(strict=True, ge=0, le=30 * 24 * 3600)] = Field(
        default=24 * 3600, description="How long deliveries are signed by the secret before, too."
    )


class SubscriptionDetail(BaseModel):
    """A subscription, without its secret."""

    id: str
    project_id: str
    name: str
    description: str | None
    url: str | None = Field(description="Where events are posted to; null where a block sends them.")
    block: str | None = Field(description="The notification block of Prefect that sends them; null with a url.")
    events: list[str]
    paused: bool
    paused_reason: str | None = Field(description="Why, where it was not paused by somebody.")
    previous_until: UnixTime | None = Field(description="Until when it is signed by the secret before, too.")
    created_by: str
    created_at: UnixTime
    updated_at: UnixTime


class SubscriptionWithSecret(SubscriptionDetail):
    """A subscription with a new secret."""

    secret: str | None = Field(
        description="The secret, shown this once; null for a block, and where the request is a repeated one."
    )


class SubscriptionDeliveryDetail(BaseModel):
    """One event for one subscription."""

    id: str = Field(description="Sent as `webhook-id`, the same at each attempt.")
    event: str
    data: dict[str, Any] = Field(description="What is sent as `data`, without the `url` of the thing.")
    status: DeliveryStatus = Field(
        description="`Dead`: it could not be delivered within a day, or is not wanted; it is not sent again by itself."
    )
    attempts: int
    next_attempt_at: UnixTime | None = Field(description="When it is sent again; null unless it is Pending.")
    attempted_at: UnixTime | None = Field(description="When it was sent last.")
    answer: str | None = Field(description="What came of that.")
    created_at: UnixTime
    updated_at: UnixTime
