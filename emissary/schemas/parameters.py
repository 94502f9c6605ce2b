"""Hyperparameters of a training job, with their bounds."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


# JSON has one kind of number, and some clients write 3 as 3.0.
Whole = Annotated[int, BeforeValidator(_whole)]


class SftParameters(BaseModel):
    """Every hyperparameter of supervised fine-tuning with LoRA; the base model's template gives the defaults."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    learning_rate: float = Field(gt=0, le=1, description="Peak learning rate of AdamW.")
    num_train_epochs: Whole = Field(ge=1, le=100, description="Passes over the training rows; one checkpoint each.")
    per_device_train_batch_size: Whole = Field(ge=1, le=1024, description="Rows per forward pass in training.")
    per_device_eval_batch_size: Whole = Field(ge=1, le=1024, description="Rows per forward pass in testing.")
    gradient_accumulation_steps: Whole = Field(ge=1, le=1024, description="Forward passes per optimizer step.")
    max_length: Whole = Field(ge=16, le=131072, description="Longest row in tokens, answer included.")
    lr_scheduler_type: Literal[
        "linear", "cosine", "cosine_with_restarts", "constant", "constant_with_warmup", "inverse_sqrt"
    ] = Field(description="How the learning rate goes over the steps.")
    warmup_ratio: float = Field(ge=0, le=1, description="Share of the steps in which the learning rate rises.")
    weight_decay: float = Field(ge=0, le=1, description="Weight decay of AdamW.")
    lora_r: Whole = Field(ge=1, le=512, description="Rank of the LoRA matrices.")
    lora_alpha: Whole = Field(ge=1, le=4096, description="LoRA scale: the update is multiplied by lora_alpha / lora_r.")
    lora_dropout: float = Field(ge=0, lt=1, description="Dropout on the input of the LoRA matrices.")
    max_new_tokens: Whole = Field(ge=1, le=32768, description="Text generation: longest answer in testing, in tokens.")
    downsample_size: float = Field(gt=0, le=100, description="Percentage of the training rows to train on.")
    dynamic_loss: bool = Field(
        description="Text generation: dynamic fine-tuning, which weighs each token's loss by its probability. "
        "Classification: focal loss. Regression: Huber's loss."
    )
    seed: Whole = Field(ge=0, le=2**32 - 1, description="Seed of sampling, shuffling, initial weights and dropout.")
    logging_steps: Whole = Field(ge=1, le=10_000, description="Optimizer steps between points of the loss curve.")
    save_steps: Whole = Field(
        ge=1, le=100_000, description="Optimizer steps between saves of trainer state, from which a run resumes."
    )
