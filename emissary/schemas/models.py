"""Base models as the API lists them."""

from typing import Literal

from pydantic import BaseModel, Field


class BaseModelSummary(BaseModel):
    """A base model: what it is for and its default hyperparameters."""

    name: str
    type: Literal["completion", "classification", "embeddings", "chat"]
    task_types: list[str]
    parameter_template: dict[str, str | int | float] = Field(
        description="Hyperparameters of an SFT job that names none; those that are true or false are false."
    )
    grpo_parameter_template: dict[str, str | int | float] = Field(
        description="Hyperparameters of a GRPO job that names none."
    )
    support_serverless: bool = False


class ModelObject(BaseModel):
    """A model that can be called, as OpenAI's API shows it."""

    id: str = Field(description="What to call it by: the name of a deployment or of a base model.")
    object: Literal["model"] = "model"
    created: int = Field(description="UNIX seconds; 0 for base models, whose age is not known.")
    owned_by: str = Field(description="The organization, or `emissary` for base models.")


class ModelList(BaseModel):
    """Models as OpenAI's API lists them."""

    object: Literal["list"] = "list"
    data: list[ModelObject]
