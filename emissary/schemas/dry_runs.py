"""What a training job would be and take."""

from typing import Literal

from pydantic import BaseModel, Field

from emissary.schemas.training_jobs import TaskType


class TrainingJobEstimate(BaseModel):
    """What a job would take, by a few steps of it that were trained on the API's machine."""

    training_seconds: float = Field(description="All steps, without loading, testing and the losses on test rows.")
    step_seconds: float = Field(description="Mean of the steps that were measured, the first one left out.")
    steps_measured: int
    memory_bytes: int = Field(description="Most that was taken: of the GPU, or by the whole process on a CPU.")
    device: str = Field(description="What it was measured on.")


class TrainingJobPlan(BaseModel):
    """What a job would be and take, as a dry run answers; null is what could not be found out, see `note`."""

    training_technique: Literal["SFT", "GRPO"]
    task_type: TaskType
    base_model: str
    hyper_parameters: dict[str, str | int | float | bool] = Field(
        description="All of them. One that is `auto` is chosen; a run on another device may choose another."
    )
    reason: str | None = Field(description="Why what was `auto` was chosen so.")
    train_rows: int = Field(description="Rows to train on, after holding out, downsampling and rebalancing.")
    test_rows: int
    steps: int | None = Field(description="Optimizer steps of all epochs; early stopping may make it fewer.")
    checkpoints: int | None = Field(description="The same of checkpoints.")
    tokens: int | None = Field(description="Tokens trained on in all epochs; of GRPO those of the prompts.")
    longest_row: int | None = Field(description="In tokens, after truncation.")
    truncated_rows: int | None = Field(description="Training and test rows that are longer than max_length.")
    estimate: TrainingJobEstimate | None
    warnings: list[str] = Field(
        description="As the run has them among its events: test rows whose input is trained on too, labels that are "
        "tested and not trained on."
    )
    note: str | None = Field(description="Why something is missing.")
