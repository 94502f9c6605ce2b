"""A checkpoint pushed to the Hugging Face hub, with a model card."""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field

from emissary.schemas.fields import UnixTime


def _repository(value: str) -> str:
    # As the hub has it (huggingface_hub.utils.validate_repo_id).
    good = re.fullmatch(r"[\w.-]{1,95}/[\w.-]{1,96}", value, re.ASCII) and len(value) <= 96
    if not good or "--" in value or ".." in value or re.search(r"(^|/)[.-]|[.-](/|$)|\.git$", value):
        raise ValueError("must be the name of a model on the hub, as owner/name")
    return value


Repository = Annotated[str, Field(strict=True, max_length=200), AfterValidator(_repository)]


class PushToHub(BaseModel):
    """Where a checkpoint is pushed to."""

    repo: Repository = Field(
        description="Model on the Hugging Face hub, `owner/name`, made where it is not there. To which owners an "
        "organization may push is the operator's to say (EMISSARY_SOURCES).",
        examples=["acme/triage"],
    )
    private: bool = Field(
        default=True, strict=True, description="Whether it is made private; one that is there stays as it is."
    )


class PushToHubNow(PushToHub):
    """POST …/push-to-hub."""

    checkpoint: int | None = Field(
        default=None,
        strict=True,
        ge=1,
        lt=2**31,
        description="The checkpoint; left out, the best one, or the last where none is.",
    )


class PushedToHub(BaseModel):
    """A checkpoint on the hub."""

    repo: str
    checkpoint: int
    url: str = Field(description="The model's page.")
    commit: str = Field(description="The repository's commit with it; the one before where nothing was different.")
    at: UnixTime
