"""What the gate of a pipeline decided about a trained checkpoint, and what came of the run."""

from typing import Literal

from pydantic import BaseModel, Field

Outcome = Literal["Skipped", "Promoted", "NotPromoted", "RolledBack", "Failed"]


class GateRule(BaseModel):
    """One rule of the gate, applied."""

    rule: str = Field(description="The gate's field.")
    of: str | None = Field(description="The testing function or class that it is about.")
    wanted: float
    found: float | None = Field(description="Null where there was nothing to measure it by; then it is not met.")
    passed: bool


class Served(BaseModel):
    """A checkpoint that may be served."""

    training_job_id: str | None = Field(description="Null: the base model itself.")
    checkpoint: int


class Replaced(Served):
    """What a deployment served when it was compared."""

    deployment_id: str


class Contender(Served):
    """A checkpoint in the comparison, with its means over the test rows."""

    scores: dict[str, float]


class Decision(BaseModel):
    """What the gate decided, and by which numbers."""

    promoted: bool
    rules: list[GateRule]
    test_rows: int
    challenger: Contender
    champion: Contender | None = Field(description="Null where none was deployed; only minimum_score applied then.")
    replaces: Replaced | None = Field(
        default=None, description="The deployment that is to be changed, and what it served; null without one."
    )


class DecidedRun(BaseModel):
    """The run of a pipeline that made a training job, and what it decided about it."""

    id: str
    pipeline_id: str
    outcome: Outcome | None = Field(description="What came of the run; null until that is known.")
    decision: Decision | None = Field(description="Null until the gate has decided.")
