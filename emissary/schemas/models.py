"""Base models as the API lists them."""

from typing import Any, Literal

from pydantic import BaseModel


class BaseModelSummary(BaseModel):
    """A base model: what it is for and its default hyperparameters."""

    name: str
    type: Literal["completion", "classification", "embeddings", "chat"]
    task_types: list[str]
    parameter_template: dict[str, Any]
    grpo_parameter_template: dict[str, Any]
    support_serverless: bool = False
