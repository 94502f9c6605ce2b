"""Hyperparameters of a training job, with their bounds."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from emissary.schemas.fields import WHOLE

AUTO = "auto"
"""In place of a number: the run chooses it."""

TEST_LOSS = "test_loss"
"""The metric of early stopping that is no testing function: the loss on the test rows, of which less is better."""

Whole = Annotated[int, WHOLE]


class _LoraParameters(BaseModel):
    """What every training of a LoRA adapter on text has."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    num_train_epochs: Whole = Field(ge=1, le=100, description="Passes over the training rows; one checkpoint each.")
    gradient_accumulation_steps: Whole = Field(ge=1, le=1024, description="Forward passes per optimizer step.")
    max_length: Whole = Field(ge=16, le=131072, description="Longest row in tokens, answer included.")
    lr_scheduler_type: Literal[
        "linear", "cosine", "cosine_with_restarts", "constant", "constant_with_warmup", "inverse_sqrt"
    ] = Field(description="How the learning rate goes over the steps.")
    warmup_ratio: float = Field(ge=0, le=1, description="Share of the steps in which the learning rate rises.")
    weight_decay: float = Field(ge=0, le=1, description="Weight decay of AdamW.")
    lora_r: Whole = Field(ge=1, le=512, description="Rank of the LoRA matrices.")
    lora_alpha: Whole = Field(ge=1, le=4096, description="LoRA scale: the update is multiplied by lora_alpha / lora_r.")
    max_new_tokens: Whole = Field(ge=1, le=32768, description="Text generation: longest answer in testing, in tokens.")
    downsample_size: float = Field(gt=0, le=100, description="Percentage of the training rows to train on.")
    seed: Whole = Field(ge=0, le=2**32 - 1, description="Seed of sampling, shuffling, initial weights and dropout.")
    logging_steps: Whole = Field(ge=1, le=10_000, description="Optimizer steps between points of the loss curve.")
    save_steps: Whole = Field(
        ge=1, le=100_000, description="Optimizer steps between saves of trainer state, from which a run resumes."
    )


class SftParameters(_LoraParameters):
    """Every hyperparameter of supervised fine-tuning with LoRA; the base model's template gives the defaults."""

    learning_rate: Annotated[float, Field(gt=0, le=1)] | Literal["auto"] = Field(
        description="Peak learning rate of AdamW; `auto` has the run choose it by the model's width, lora_alpha, the "
        "rows of a step and the number of steps."
    )
    per_device_train_batch_size: Annotated[int, Field(ge=1, le=1024), WHOLE] | Literal["auto"] = Field(
        description="Rows per forward pass in training; `auto` has the run choose it by the number of rows, the "
        "longest one and the device's memory."
    )
    per_device_eval_batch_size: Whole = Field(ge=1, le=1024, description="Rows per forward pass in testing.")
    lora_dropout: float = Field(ge=0, lt=1, description="Dropout on the input of the LoRA matrices.")
    dynamic_loss: bool = Field(
        description="Text generation: dynamic fine-tuning, which weighs each token's loss by its probability "
        "(arXiv:2508.05629). Classification: focal loss (arXiv:1708.02002) with class-balanced weights "
        "(arXiv:1901.05555, β 0.999). Regression: Huber's loss (Huber, 1964, 'Robust Estimation of a Location "
        "Parameter') of standardised targets, which outliers pull on less. Embedding has none."
    )
    early_stopping_patience: Whole = Field(
        ge=0,
        le=100,
        description="Training ends after so many epochs in a row without a better early_stopping_metric; 0: it never "
        "does. Every checkpoint stays.",
    )
    early_stopping_metric: str = Field(
        min_length=1,
        max_length=100,
        description="`test_loss`, or one of the job's test_functions, of which more is better (of an error, such as "
        "`regression_mae_shared`, less); then each epoch's checkpoint is tested before the next epoch begins.",
    )


class GrpoParameters(_LoraParameters):
    """Every hyperparameter of GRPO with LoRA; the template `grpo` of models.yaml gives the defaults.

    The method is Group Relative Policy Optimization (arXiv:2402.03300).
    """

    learning_rate: float = Field(gt=0, le=1, description="Peak learning rate of AdamW.")
    num_train_epochs: Whole = Field(ge=1, le=100, description="Passes over the training rows.")
    per_device_train_batch_size: Whole = Field(ge=1, le=1024, description="Completions per forward pass in training.")
    save_steps: Whole = Field(
        ge=1,
        le=100_000,
        description="Optimizer steps between checkpoints; there is one each epoch when that is sooner.",
    )
    num_generations: Whole = Field(
        # 1 is refused where the batch is known, with the numbers that fit it.
        ge=1,
        le=256,
        json_schema_extra={"minimum": 2},
        description="Completions per prompt, whose rewards are compared. Divides per_device_train_batch_size × "
        "gradient_accumulation_steps, the completions of an optimizer step.",
    )
    max_completion_length: Whole = Field(ge=1, le=32768, description="Longest completion in training, in tokens.")
    temperature: float = Field(gt=0, le=10, description="Temperature at which completions are sampled.")
    beta: float = Field(
        ge=0,
        le=10,
        description="Weight of the KL divergence from the base model; 0 leaves it out, also of the metrics.",
    )
    loss_type: Literal["grpo", "dapo", "dr_grpo"] = Field(
        description="How token losses are summed up: mean per completion (grpo), mean over all tokens (dapo, "
        "arXiv:2503.14476), or without any bias by length or spread of rewards (dr_grpo, arXiv:2503.20783)."
    )
    on_reward_failure: Literal["lowest", "stop"] = Field(
        description="A completion on which a testing function fails counts as the lowest of its group (lowest), or the "
        "job fails (stop)."
    )
    adam_beta1: float = Field(ge=0, lt=1, description="Decay of AdamW's mean of gradients.")
    adam_beta2: float = Field(ge=0, lt=1, description="Decay of AdamW's mean of squared gradients.")
    max_grad_norm: float = Field(gt=0, le=1000, description="Gradients of a larger norm are scaled down to it.")
