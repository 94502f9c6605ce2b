"""What happened to a training job, and its log."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from emissary.schemas.fields import UnixTime

Kind = Literal[
    "queued",
    "started",
    "resumed",
    "warning",
    "epoch",
    "checkpoint",
    "chosen",
    "truncated",
    "stopped_early",
    "trained",
    "testing",
    "tested",
    "best",
    "pushed",
    "succeeded",
    "cancelled",
    "failed",
]


class TrainingJobEvent(BaseModel):
    """Something that happened to a training job."""

    model_config = ConfigDict(from_attributes=True)
    id: int = Field(description="Later events have higher ids.")
    kind: Kind
    details: dict[str, Any] = Field(
        description="By kind: `epoch` and its losses; `checkpoint` (also of tested and best), `scores` and "
        "`metrics`; what was `chosen` for hyperparameters that were `auto`, and the `reason`; how many `rows` were "
        "truncated to `max_length`, or in testing to the context less `max_new_tokens`; `epoch`, `metric` and `best` "
        "of a job that stopped early; the `reason` of a failure; `repo`, `checkpoint`, `url` and `commit` of what was "
        "pushed to the hub; a warning's `message`, and what it is `about` where the job goes on: `reward_failures`, "
        "`equal_rewards`, `changed_rewards`, `push_to_hub`, `tracking` (and the `tracker`), `untrained_labels` (and "
        "the `labels`), `nothing_to_test_on`, `unknown_leaks`; or how many `leaked_rows` there are, and the earlier "
        "job that they were `trained_on_by`, where it was not this one.",
        examples=[{"checkpoint": 2, "scores": {"exact_match_shared": 0.75}, "metrics": {"accuracy": 0.75}}],
    )
    created_at: UnixTime


class LogLine(BaseModel):
    """A line of a run's log."""

    timestamp: float = Field(description="UNIX seconds.")
    level: str = Field(examples=["INFO"])
    message: str
