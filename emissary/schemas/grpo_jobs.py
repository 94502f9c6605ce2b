"""GRPO training jobs: training on rewards that testing functions give."""

from typing import Annotated, Any

from pydantic import Field

from emissary.schemas.parameters import GrpoParameters
from emissary.schemas.training_jobs import TrainingJobCreate

Weight = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]


class GrpoJobCreate(TrainingJobCreate):
    """POST …/training-jobs/grpo: train a base model on the rewards of what it answers to a dataset's prompts."""

    test_functions: list[Annotated[str, Field(strict=True)]] = Field(
        min_length=1,
        max_length=16,
        description="Testing functions; the first one decides which checkpoint is best.",
        examples=[["test_similarity_shared"]],
    )
    reward: dict[str, Weight] = Field(
        min_length=1,
        max_length=16,
        description="Weight in the reward of each testing function that is trained on; the weights sum to 1.",
        examples=[{"test_similarity_shared": 1.0}],
    )
    parameters: dict[str, Any] = Field(
        default={},
        description="Hyperparameters that differ from the model's grpo_parameter_template.",
        json_schema_extra={
            "properties": GrpoParameters.model_json_schema()["properties"],
            "additionalProperties": False,
        },
    )
