"""One Parquet schema for the rows of every task type, written once and read by every later step."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from emissary.data.reading import number_means, read_rows
from emissary.data.rows import Row, fit, labels, meant_for, number, problem
from emissary.errors import InvalidInput

SCHEMA = pa.schema(
    [
        # The row's shape: "prompt" (prompt and completion), "chat" (messages) or "pair" (two texts).
        pa.field("kind", pa.string(), nullable=False),
        pa.field("prompt", pa.string()),
        # The text to generate, as it was uploaded; null if the uploaded completion is a number or an object.
        pa.field("completion", pa.string()),
        # Every text-generation row as a conversation whose last turn, the assistant's, is the target: the
        # uploaded messages of a "chat" row; user and assistant turn made of a "prompt" row.
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

VERSION = 1
"""Of the schema and of what is written by it; another version makes normalised rows anew."""
_GROUP_ROWS = 4096
_GROUP_CHARACTERS = 16 * 1024 * 1024


def normalise(path: Path, filename: str, target: Path) -> None:
    """Write the rows of the upload at `path`, named `filename`, in order, to the Parquet file `target`.

    A row that fits several task types has the columns of all of them. At most one row group is in memory.
    `target` appears when it is complete. Raises InvalidInput as `read_rows`, and for a row that fits no task
    type.
    """
    unfinished = target.with_name(target.name + ".unfinished")
    try:
        with pq.ParquetWriter(unfinished, SCHEMA, compression="zstd") as writer:
            for records in _groups(path, filename):
                writer.write_batch(pa.RecordBatch.from_pylist(records, schema=SCHEMA))
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def read_normalised(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file that `normalise` wrote, as dicts with the columns of `SCHEMA`.

    `messages` is a list of {"role", "content"}; `labels` is a dict of label to 0 or 1. Columns that do not
    apply to a row are None.
    """
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(1024):
            yield from group_rows(batch)


def group_rows(group: pa.RecordBatch | pa.Table) -> list[dict[str, Any]]:
    """Rows of such a file, as `read_normalised` gives them."""
    records: list[dict[str, Any]] = group.to_pylist()
    for record in records:
        if record["labels"] is not None:
            record["labels"] = {pair["label"]: pair["value"] for pair in record["labels"]}
    return records


def _groups(path: Path, filename: str) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    characters = 0
    for row_number, row in read_rows(path, filename):
        if not fit(row):
            reason = problem(row, meant_for(row))
            raise InvalidInput(f"{number_means(filename)} {row_number}: {reason}. Correct the row and upload again.")
        record = _record(row)
        group.append(record)
        characters += _characters(record)
        if len(group) == _GROUP_ROWS or characters >= _GROUP_CHARACTERS:
            yield group
            group, characters = [], 0
    if group:
        yield group


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
        record["messages"] = [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": completion},
        ]
    if "classification" in task_types:
        marked = labels(completion) or {}
        record["labels"] = [{"label": label, "value": value} for label, value in marked.items()]
    if "regression" in task_types:
        record["target"] = number(completion)
    return record


def _characters(record: dict[str, Any]) -> int:
    texts = [value for value in record.values() if isinstance(value, str)]
    return sum(map(len, texts)) + sum(len(turn["content"]) for turn in record.get("messages") or [])
