"""Pipelines: gather data, train, compare with what is deployed, deploy what is better; again and again."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from emissary.schemas.decisions import Decision, Outcome
from emissary.schemas.fields import Description, Name, Reference, Strict, UnixTime
from emissary.schemas.grpo_jobs import GrpoJobCreate, Weight
from emissary.schemas.pipeline_schedules import PipelineSchedule
from emissary.schemas.sources import DatasetsSource, Gather, References, S3Objects
from emissary.schemas.training_jobs import Percentage, TrainingJobCreate, TrainingOptions

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
RunStatus = Literal["Pending", "Running", "Success", "Failed", "Cancelled"]
Trigger = Literal["request", "schedule", "webhook", "dataset"]


class PipelineTraining(Strict, TrainingOptions):
    """How each run trains: the fields of a training job but its data."""

    test_functions: list[Annotated[str, Field(strict=True)]] = Field(
        min_length=1,
        max_length=16,
        description="Testing functions; the first one decides which checkpoint is best, and is compared by the gate.",
        examples=[["exact_match_shared"]],
    )
    reward: dict[str, Weight] | None = Field(
        default=None, min_length=1, max_length=16, description="With it the job is one by GRPO, with these weights."
    )


class Gate(Strict):
    """What a trained checkpoint must meet to be deployed. Without a champion only `minimum_score` applies."""

    minimum_score: dict[str, Number] = Field(
        default={},
        description="Testing function: the least mean score; of an error such as `regression_mae_shared`, the highest.",
    )
    minimum_improvement: Number = Field(
        default=0.0, description="By how much the first testing function's mean must be better than the champion's."
    )
    class_tolerance: Annotated[float, Field(strict=True, ge=0, le=1)] | None = Field(
        default=None, description="Classification: the recall of no class may be lower by more than this."
    )
    confidence: Annotated[float, Field(strict=True, gt=0, lt=1)] | None = Field(
        default=None,
        description="Least share of paired bootstrap resamples of the test rows in which the first testing function's "
        "mean is better than the champion's.",
        examples=[0.95],
    )
    approval: bool = Field(
        default=False, strict=True, description="Whether a person is asked, too, once all rules are met."
    )
    approval_hours: Annotated[float, Field(strict=True, gt=0, le=8760)] = Field(
        default=72.0, description="How long a run waits for that person before it is not promoted."
    )


class Watch(Strict):
    """For how long a promotion is watched, and when it is taken back."""

    watch_seconds: Annotated[int, Field(strict=True, ge=0, le=86_400)] = Field(
        default=0, description="How long; 0: not at all."
    )
    min_requests: Annotated[int, Field(strict=True, ge=1, le=1000)] = Field(
        default=20, description="With fewer nothing is judged, and the new checkpoint stays."
    )
    max_error_rate: Annotated[float, Field(strict=True, ge=0, le=1)] = Field(
        default=0.05,
        description="Share of requests that may fail for the engine's fault (5xx); more is borne if it was so before.",
    )
    max_latency_ratio: Annotated[float, Field(strict=True, ge=1, le=1000)] | None = Field(
        default=2.0,
        description="How many times as long as before the median answer may take; null: that is not judged.",
    )


class Triggers(Strict):
    """What has the pipeline run beside its schedule, webhooks and requests."""

    on_dataset: bool = Field(
        default=False,
        strict=True,
        description="A dataset that fits is uploaded to the project; only with `newest` or `all`. Not while paused.",
    )


class PipelineCreate(Strict):
    """POST …/pipelines."""

    name: Name = Field(description="Name of the pipeline, of which the project has no other.")
    description: Description | None = Field(default=None, description="What it is for.")
    gather: Gather = Field(default=DatasetsSource(), description="Where the training rows come from.")
    test_dataset_id: Reference | None = Field(
        default=None, description="Dataset on which every run's model is tested, the same each time (a golden set)."
    )
    train_test_split_ratio: Percentage | None = Field(
        default=None, description="Instead: percentage of the gathered rows that is held out for testing, 1 to 99."
    )
    train: PipelineTraining = Field(description="How to train.")
    gate: Gate = Field(default=Gate(), description="What must be met to deploy.")
    deployment_id: Reference | None = Field(
        default=None,
        description="Deployment whose checkpoint is the champion, and is replaced by a better one. Without it nothing "
        "is compared or deployed.",
    )
    watch: Watch = Field(default=Watch(), description="What is done after a better checkpoint was deployed.")
    schedule: PipelineSchedule | None = Field(default=None, description="When it runs by itself; null: it does not.")
    triggers: Triggers = Field(default=Triggers(), description="What else has it run by itself.")
    paused: bool = Field(default=False, strict=True, description="Whether schedule and triggers are suspended.")

    def job(self, train_dataset_id: str) -> TrainingJobCreate:
        """The training job of a run with this dataset."""
        # What is not promoted is not pushed, so that is no part of the job.
        fields = self.train.model_dump(exclude={"reward", "push_to_hub"}) | {
            "name": self.train.name or self.name,
            "train_dataset_id": train_dataset_id,
            "test_dataset_id": self.test_dataset_id,
            "train_test_split_ratio": self.train_test_split_ratio,
        }
        if self.train.reward is None:
            return TrainingJobCreate(**fields)
        return GrpoJobCreate(**fields, reward=self.train.reward)


class PipelineReplace(PipelineCreate):
    """PUT …/pipelines/{id}: what GET answers may be sent back, changed."""

    id: Any = Field(default=None, exclude=True, description="Not read.")
    created_by: Any = Field(default=None, exclude=True, description="Not read.")
    created_at: Any = Field(default=None, exclude=True, description="Not read.")
    updated_at: Any = Field(default=None, exclude=True, description="Not read.")


class PipelineSummary(BaseModel):
    """A pipeline in a list."""

    model_config = ConfigDict(from_attributes=True)
    id: str
    name: str
    paused: bool
    created_at: UnixTime
    updated_at: UnixTime


class PipelineDetail(PipelineCreate):
    """A pipeline with all that was given."""

    id: str
    created_by: str
    created_at: UnixTime
    updated_at: UnixTime


class PipelineRunCreate(Strict):
    """POST …/runs: what is different in this run."""

    datasets: References | None = Field(
        default=None, description="Ids of the datasets to merge and train on in this run, instead of the pipeline's."
    )
    objects: S3Objects | None = Field(
        default=None,
        description="With the source s3: keys or s3:// URIs of objects within its `uri`, to fetch in this run instead "
        "of all that are new.",
        examples=[["tickets/monday.jsonl"]],
    )


class Approval(BaseModel):
    """A person's word on deploying what passed the gate."""

    until: int = Field(description="UNIX time at which it is refused where nobody has said anything.")
    approved: bool | None = Field(default=None, description="Null: nobody has said anything yet.")
    by: str | None = Field(default=None, description="The user; of an answer in Prefect the user `prefect`.")
    at: int | None = Field(default=None, description="UNIX time of the answer.")
    reason: str | None = None


class RequestFigures(BaseModel):
    """What an engine counted of the requests to a deployment since it serves the same checkpoint."""

    requests: int = Field(description="Those that were answered or failed for the engine's fault.")
    errors: int = Field(description="Those that failed.")
    median_seconds: float | None = Field(description="Median duration of the latest thousand answers.")


class Promotion(BaseModel):
    """What was done about a promotion, and seen of it."""

    before: RequestFigures | None = Field(description="Of the old checkpoint; null where its engine did not run.")
    deployed: str | None = Field(default=None, description="Where the new checkpoint is served.")
    watch_until: int | None = Field(default=None, description="UNIX time until which it is watched.")
    after: RequestFigures | None = Field(default=None, description="Of the new checkpoint, when the watch ended.")
    watched: str | None = Field(default=None, description="What was seen of it, once the watch ended without a fault.")
    rolled_back: str | None = Field(default=None, description="Why the old checkpoint was deployed again.")


class PipelineRunApproval(Strict):
    """POST …/approve."""

    reason: Description | None = Field(default=None, description="Why; it is kept with the run.")


class PipelineRunRejection(Strict):
    """POST …/reject."""

    reason: Annotated[Description, Field(min_length=1)] = Field(description="Why; it is kept with the run.")


class PipelineRunSummary(BaseModel):
    """A run of a pipeline in a list."""

    model_config = ConfigDict(from_attributes=True)
    id: str
    pipeline_id: str
    trigger: Trigger
    status: RunStatus
    outcome: Outcome | None = Field(description="What came of it; null until that is known, or where it was cancelled.")
    reason: str | None = Field(
        description="Why that came of it; of a run that waits for a person or an earlier run, that it does."
    )
    training_job_id: str | None
    created_at: UnixTime
    updated_at: UnixTime


class PipelineRunDetail(PipelineRunSummary):
    """A run of a pipeline with what it used and decided."""

    datasets: list[str] = Field(description="The datasets that were gathered.")
    train_dataset_id: str | None = Field(description="The dataset that was trained on: one of these, or made of them.")
    decision: Decision | None
    trigger_id: str | None = Field(description="The webhook or dataset that began it, which may be gone.")
    approval: Approval | None = Field(description="Null where no person was asked.")
    promotion: Promotion | None = Field(description="Null where nothing was deployed.")
    flow_run_id: str | None = Field(description="The Prefect flow run that does the work.")
