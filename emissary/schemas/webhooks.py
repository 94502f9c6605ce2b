"""Webhooks: addresses at which another system starts a pipeline."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from emissary.payload_templates import parse
from emissary.schemas.fields import Name, Strict, UnixTime

Scheme = Literal["standard", "github", "token"]


def _template(value: str) -> str:
    if not value.isprintable():
        raise ValueError("must not contain control characters")
    parse(value)
    return value


Template = Annotated[str, Field(strict=True, min_length=1, max_length=500), AfterValidator(_template)]
"""Text with expressions of what was sent."""


class WebhookParameters(Strict):
    """What is different in a run, as in POST …/runs, made of what was sent."""

    datasets: Annotated[list[Template], Field(min_length=1, max_length=100)] | None = Field(
        default=None,
        description="Ids of datasets, or templates that give one, such as `{{ payload.dataset_id }}`; one that is an "
        "expression alone may give a list of ids.",
        examples=[["{{ payload.dataset_id }}"]],
    )
    objects: Annotated[list[Template], Field(min_length=1, max_length=100)] | None = Field(
        default=None,
        description="The same with keys or s3:// URIs of objects, for a pipeline whose source is s3.",
        examples=[["{{ payload.Records[0].s3.object.key | urldecode }}"]],
    )

    @model_validator(mode="after")
    def _either(self) -> Self:
        if self.datasets is not None and self.objects is not None:
            raise ValueError("give datasets or objects, for a run has its rows from either")
        return self


class WebhookCreate(Strict):
    """POST …/webhooks."""

    name: Name = Field(description="Name of the webhook, of which the pipeline has no other.")
    scheme: Scheme = Field(
        default="standard",
        description="How the sender shows that it has the secret: `standard` (Standard Webhooks: HMAC-SHA256 over id, "
        "time and body), `github` (X-Hub-Signature-256), or `token` (Authorization: Bearer, or X-Webhook-Token).",
    )
    parameters: WebhookParameters = Field(
        default=WebhookParameters(), description="Templates over `payload` (the JSON that is sent) and `headers`."
    )


class WebhookRotate(Strict):
    """POST …/rotate."""

    overlap_seconds: Annotated[int, Field(strict=True, ge=0, le=30 * 24 * 3600)] = Field(
        default=24 * 3600, description="How long the secret before works beside the new one."
    )


class WebhookDetail(WebhookCreate):
    """A webhook, without its secret."""

    id: str
    pipeline_id: str
    url: str = Field(description="Where the sender posts to.")
    previous_until: UnixTime | None = Field(description="Until when the secret before the last rotation works.")
    created_by: str
    created_at: UnixTime
    updated_at: UnixTime


class WebhookWithSecret(WebhookDetail):
    """A webhook with a new secret."""

    secret: str | None = Field(description="The secret, shown this once; null where the request is a repeated one.")


class WebhookDeliveryDetail(BaseModel):
    """A delivery that began a run, or joined one that was waiting."""

    model_config = ConfigDict(from_attributes=True)
    id: str
    delivery_id: str | None = Field(description="What the sender calls it; null where it gave no id.")
    pipeline_run_id: str
    created_at: UnixTime


class WebhookAnswer(BaseModel):
    """What a sender is told."""

    pipeline_run_id: str | None = Field(description="The run; null for a ping, which begins none.")
