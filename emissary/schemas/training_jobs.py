"""Training jobs and their checkpoints."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from emissary.schemas.datasets import DatasetSummary
from emissary.schemas.decisions import DecidedRun
from emissary.schemas.fields import LEFT_OUT, WHOLE, Description, Lenient, Name, Reference, UnixTime
from emissary.schemas.hub_pushes import PushedToHub, PushToHub
from emissary.schemas.parameters import SftParameters

TaskType = Literal["text-generation", "classification", "embedding", "regression"]
JobStatus = Literal["Pending", "Running", "Testing", "Success", "Failed", "TimedOut", "Cancelled"]
LONGEST_TIMEOUT = 30 * 24 * 3600
Percentage = Annotated[float, Field(strict=True, ge=1, le=99, allow_inf_nan=False)]


class TrainingOptions(Lenient):
    """How to train and what from; not what on."""

    base_model_option: Literal["pre-trained", "fine-tuned"] = Field(
        default="pre-trained", description="Start from a base model, or from a checkpoint of an earlier job."
    )
    base_model: Reference = Field(
        description="Name of the base model, see GET /v1/models; `HF_MODEL` for the one of `hf_model_link`; with "
        "`fine-tuned` name or id of a training job of the project.",
        examples=["SmolLM2-135M-Instruct"],
    )
    checkpoint: Annotated[int, Field(strict=True, ge=1, lt=2**31), WHOLE] | Literal["best"] | None = Field(
        default=None,
        description="With `fine-tuned`: the checkpoint whose adapter is trained on, by its number, or `best`. Left "
        "out, the best one, or the last where none is; GRPO needs it.",
    )
    test_functions: list[Annotated[str, Field(strict=True)]] = Field(
        default=[],
        max_length=16,
        description="Testing functions; the first one decides which checkpoint is best.",
        examples=[["exact_match_shared"]],
    )
    name: Name | None = Field(default=None, description="Name of the job.")
    description: Description | None = Field(default=None, description="What the job is for.")
    task_type: TaskType = Field(
        default="text-generation",
        description="What the model is to do; with `fine-tuned`, where it is left out, what that of `base_model` does.",
    )
    parameters: dict[str, Any] = Field(
        default={},
        description="Hyperparameters that differ from the model's parameter_template.",
        json_schema_extra={
            "properties": SftParameters.model_json_schema()["properties"],
            "additionalProperties": False,
        },
    )
    rebalance_data: dict[str, Annotated[float, Field(strict=True)]] | None = Field(
        default=None, description="Classification only: label to ratio or number of rows."
    )
    hf_model_link: Reference | None = Field(
        default=None,
        description="With base_model `HF_MODEL`: a model of the Hugging Face hub, by its page or as `owner/name`.",
        examples=["https://huggingface.co/owner/name"],
    )
    timeout_seconds: int | None = Field(
        default=None,
        strict=True,
        ge=1,
        le=LONGEST_TIMEOUT,
        description="How long the job may run, counted from when its run begins; then it is TimedOut. At most 30 days.",
    )
    push_to_hub: PushToHub | None = Field(
        default=None,
        description="Where the best checkpoint (the last one where none is) is pushed at the end, with a model card; a "
        "push that fails does not fail the job. Of a pipeline only what was promoted is pushed.",
    )


class TrainingJobCreate(TrainingOptions):
    """POST …/training-jobs: supervised fine-tuning (SFT) of a base model on a dataset."""

    train_dataset_id: Reference = Field(description="Dataset to train on.")
    test_dataset_id: Reference | None = Field(default=None, description="Dataset to test checkpoints on.")
    train_test_split_ratio: Percentage | None = Field(
        default=None, description="Percentage of the training rows that is held out for testing, 1 to 99."
    )


class TrainingJobSummary(BaseModel):
    """A training job in a list."""

    model_config = ConfigDict(from_attributes=True)
    id: str
    name: str
    training_technique: Literal["SFT", "GRPO"]
    task_type: TaskType
    base_model_option: Literal["pre-trained", "fine-tuned"]
    base_model: str
    base_fine_tuned_model: Annotated[str | None, LEFT_OUT] = Field(
        default=None, description="With `fine-tuned`: name of the job whose checkpoint it starts from."
    )
    base_fine_tuned_model_checkpoint: Annotated[int | None, LEFT_OUT] = None
    train_dataset_name: str
    test_functions: list[str]
    reward: Annotated[dict[str, float] | None, LEFT_OUT] = Field(
        default=None, description="GRPO: weight of each testing function in the reward."
    )
    status: JobStatus
    progress: int = Field(description="Percent of the whole job, testing included.")
    created_by: str
    created_at: UnixTime
    updated_at: UnixTime


class LossPoint(BaseModel):
    """The training loss at one moment."""

    timestamp: float
    loss: float
    step: int
    epoch: float
    learning_rate: float | None = Field(default=None, description="The learning rate of AdamW in this step.")


class RewardPoint(LossPoint):
    """GRPO: the loss, and the rewards of the completions sampled since the point before, as means."""

    reward: float = Field(description="Weighted sum of the testing functions' scores.")
    reward_std: float = Field(description="Standard deviation of the reward over a step's completions.")
    reward_group_std: float | None = Field(
        default=None,
        description="Standard deviation of the reward over the completions of one prompt, which is what GRPO learns "
        "from. Null where an earlier version trained.",
    )
    rewards: dict[str, float] = Field(description="Score of each testing function, also of those without weight.")
    equal_groups: float = Field(
        description="Share of prompts whose completions all got the same reward, of which nothing is learnt."
    )
    reward_failures: int = Field(description="How often a testing function failed on a completion.")
    completion_length: float = Field(description="Tokens per completion.")
    entropy: float = Field(description="Entropy of the model's next token, in nats.")
    kl: float | None = Field(
        description="KL divergence from the model that training started from, in nats per token; null with beta 0."
    )
    clip_ratio: float | None = Field(
        default=None,
        description="Share of tokens whose probability ratio was clipped; 0 as long as every step samples anew. Null "
        "where an earlier version trained.",
    )


class TrainingJobDetail(TrainingJobSummary):
    """A training job with what it trains on, how, and how it goes."""

    description: str | None
    train_dataset: DatasetSummary
    test_dataset: Annotated[DatasetSummary | None, LEFT_OUT]
    train_test_split_ratio: float | None
    training_loss: list[RewardPoint | LossPoint]
    training_metrics: dict[str, float] = Field(
        description="The numbers of the last point of `training_loss` by name, such as `loss` or `rewards/<function>`; "
        "empty before the first point.",
    )
    hyper_parameters: dict[str, str | int | float | bool]
    timeout_seconds: int | None = Field(description="How long the job may run; null without a limit.")
    best_checkpoint: int | None = Field(description="The checkpoint with the best test score, once known.")
    push_to_hub: PushToHub | None = Field(description="Where the best checkpoint is pushed at the end; null: nowhere.")
    pushed_to_hub: PushedToHub | None = Field(description="The last push that was done.")
    error: str | None = Field(description="Why the job failed, and what to do.")
    flow_run_id: str | None = Field(description="The Prefect flow run that does the work.")
    pipeline_run: Annotated[DecidedRun | None, LEFT_OUT] = Field(
        default=None, description="The run of a pipeline that made it, with the decision of the gate."
    )


class ClassMetrics(BaseModel):
    """How a checkpoint did on one class, or (multilabel) one label."""

    precision: float | None = Field(description="Null where it was never predicted.")
    recall: float | None = Field(description="Null where no test row has it.")
    f1: float | None
    support: int = Field(description="Test rows that have it.")


class Interval(BaseModel):
    """A mean over test rows, and the bootstrap interval that holds the true one with 95 % confidence."""

    mean: float
    low: float | None = Field(description="Null of a single row.")
    high: float | None = Field(description="Null of a single row.")


class WorstRow(BaseModel):
    """A test row on which a checkpoint did badly; texts are cut to 500 characters."""

    row: int = Field(description="Its number in the results, from 1.")
    score: float
    input: str
    expected_output: str
    output: str


class FunctionSummary(Interval):
    """What the scores of one testing function say of a checkpoint."""

    rows: int = Field(description="Test rows that it scored.")
    base: Interval | None = Field(
        description="The base model's score on the same test rows; null where it was not tested or not scored."
    )
    difference: Interval | None = Field(
        description="How much more the checkpoint scores than the base model, over the rows scored of both."
    )
    worst: list[WorstRow] = Field(
        description="The ten rows with the worst scores, the worst first; of an error these are the highest."
    )


class TestResults(BaseModel):
    """How a checkpoint did on the test rows."""

    general_test_result: str = Field(description="Link to a CSV of every test row with answer and scores; expires.")
    general_test_result_parquet: str = Field(description="The same as Parquet.")
    aggregated_test_result: dict[str, str] = Field(description="Mean score per testing function.")
    metrics: dict[str, float | None] = Field(
        default={},
        description="Metrics of the task type over all test rows; null where one is undefined. Empty where an earlier "
        "version tested.",
    )
    class_metrics: Annotated[dict[str, ClassMetrics] | None, LEFT_OUT] = Field(
        default=None, description="Classification: by class (`negative`, `positive` if binary)."
    )
    test_summary: Annotated[dict[str, FunctionSummary] | None, LEFT_OUT] = Field(
        default=None,
        description="By testing function, without those that scored no row. Not there where an earlier version tested.",
    )


class EventFile(BaseModel):
    """The curves and scores of a training job, as TensorBoard reads them."""

    download_url: str = Field(description="Link to an archive with the event file; expires.")


class TrainingJobCheckpoint(BaseModel):
    """A complete checkpoint: a LoRA adapter with its tokenizer."""

    checkpoint: int
    model_download_url: str = Field(description="Link to the adapter as one archive; expires.")
    test_results: Annotated[TestResults | None, LEFT_OUT]
    plots: dict[str, str] = Field(default={}, description="Plots of the test results: name to link to a PNG; expires.")
    train_loss: float | None
    test_loss: float | None
    is_best: bool
    created_at: UnixTime
    updated_at: UnixTime
