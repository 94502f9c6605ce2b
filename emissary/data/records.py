"""The normalised form of a row, and rows made into it one by one.

Rows of all task types share one schema. A row that fits several has the columns of all of them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from emissary.data.rows import TASK_TYPES, Row, TaskType, fit, labels, number, target

SCHEMA = pa.schema(
    [
        # The row's shape: "prompt" (prompt and completion), "chat" (messages) or "pair" (two texts).
        pa.field("kind", pa.string(), nullable=False),
        pa.field("prompt", pa.string()),
        # The text to generate, as it was uploaded; null if the uploaded completion is a number or an object.
        pa.field("completion", pa.string()),
        # The uploaded messages of a "chat" row.
        pa.field("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        # Classification: each label of the row, 1 where it applies, else 0.
        pa.field("labels", pa.list_(pa.struct([("label", pa.string()), ("value", pa.int8())]))),
        # Regression: the number to predict.
        pa.field("target", pa.float64()),
        # Embedding: two texts, and how similar they are, from -1 to 1.
        pa.field("text_a", pa.string()),
        pa.field("text_b", pa.string()),
        pa.field("similarity", pa.float64()),
    ]
)

_SHOWN_BY: dict[TaskType, tuple[str, ...]] = {
    "text-generation": ("messages", "completion"),
    "classification": ("labels",),
    "regression": ("target",),
    "embedding": ("similarity",),
}


def fitting(records: pa.RecordBatch) -> dict[TaskType, npt.NDArray[np.bool_]]:
    """For each task type, which of the normalised rows fit it."""
    return {
        task_type: np.logical_or.reduce([_valid(records.column(name)) for name in _SHOWN_BY[task_type]])
        for task_type in TASK_TYPES
    }


def _valid(column: pa.Array) -> npt.NDArray[np.bool_]:
    valid: npt.NDArray[np.bool_] = column.is_valid().to_numpy(zero_copy_only=False)
    return valid


def batch_of(rows: Sequence[Row]) -> pa.RecordBatch:
    """Normalise rows that each fit a task type."""
    return pa.RecordBatch.from_pylist([_record(row) for row in rows], schema=SCHEMA)


def _record(row: Row) -> dict[str, Any]:
    task_types = fit(row)
    if "embedding" in task_types:
        return {
            "kind": "pair",
            "text_a": row["itemA"]["text"],
            "text_b": row["itemB"]["text"],
            "similarity": number(row["similarity"]),
        }
    if row.get("messages") is not None:
        messages = [{"role": turn["role"], "content": turn["content"]} for turn in row["messages"]]
        return {"kind": "chat", "messages": messages}
    prompt, completion = row["prompt"], row["completion"]
    record: dict[str, Any] = {"kind": "prompt", "prompt": prompt}
    if "text-generation" in task_types:
        record["completion"] = completion
    if "classification" in task_types:
        marked = labels(completion) or {}
        record["labels"] = [{"label": label, "value": value} for label, value in marked.items()]
    if "regression" in task_types:
        record["target"] = target(completion)
    return record
