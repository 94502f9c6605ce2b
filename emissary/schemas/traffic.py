"""Traffic of a deployment: what it was asked and answered, kept where that is asked for, and corrected by people."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from emissary.schemas.fields import UnixTime

State = Literal["unreviewed", "accepted", "corrected"]
Only = Literal["corrected", "reviewed", "all"]
"""Which entries are meant: `reviewed` are those that were corrected or accepted."""

Output = Annotated[
    Any,
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "number"},
                {"type": "array", "items": {"type": "string"}},
                {"type": "object", "additionalProperties": {"type": "integer", "enum": [0, 1]}},
            ]
        }
    ),
]
"""An answer as a dataset has it: text, labels mapped to 0 or 1, a number, a similarity. It is checked by task type."""


class Capture(BaseModel):
    """Which requests and answers of a deployment are kept, and for how long."""

    sample_percentage: Annotated[float, Field(strict=True, gt=0, le=100, allow_inf_nan=False)] = Field(
        default=100, description="Percentage of the answered requests that is kept, chosen at random."
    )
    keep_days: Annotated[int, Field(strict=True, ge=1, le=365)] = Field(
        default=30, description="Days after which an entry is removed, also one that was corrected."
    )


class TrafficEntry(BaseModel):
    """One input that a deployment was asked, with its answer."""

    model_config = ConfigDict(from_attributes=True)
    id: str
    answer_id: str = Field(description="The `id` that the answer had; it may stand for the entry's own in a path.")
    position: int = Field(description="Which of the request's inputs it was, from 0.")
    input: dict[str, Any] = Field(description="The fields of a dataset's row but the answer.")
    output: Output = Field(description="What was answered, as a dataset's row has it.")
    correction: Output = Field(description="What would have been right; null where nobody has corrected it.")
    state: State
    reviewed_by: str | None = Field(description="The user who corrected or accepted it last.")
    reviewed_at: UnixTime | None
    created_at: UnixTime
    expires_at: UnixTime = Field(description="When it is removed.")


class TrafficCorrection(BaseModel):
    """PUT …/correction: what would have been right."""

    output: Output = Field(
        description="By task type: the text; a label, a list of labels, or labels mapped to 0 or 1 (of a binary "
        "classification also `positive` or `negative`); a number; a similarity from -1 to 1."
    )
