"""One Parquet file with the rows of a dataset of any task type, written once and read by every later step."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from emissary.data.reading import Chunk, read
from emissary.data.records import SCHEMA, fitting
from emissary.data.rows import TaskType, meant_for
from emissary.errors import InvalidInput

VERSION = 2
"""Of the schema and of what is written by it; another version makes normalised rows anew."""
_GROUP_BYTES = 16 * 1024 * 1024
_FEW_VALUES = ["kind", "messages.list.element.role", "labels.list.element.label", "labels.list.element.value"]


def normalise(path: Path, filename: str, target: Path, only: Sequence[TaskType] | None = None) -> None:
    """Write the rows of the upload at `path`, named `filename`, in order, to the Parquet file `target`.

    A row that fits several task types has the columns of all of them. A row that does not fit all task types of `only`
    is left out; without `only`, one that fits none is refused. At most a few row groups are in memory. `target` appears
    when it is complete. Raises InvalidInput as `read`, and for such a row.
    """
    unfinished = target.with_name(target.name + ".unfinished")
    try:
        with (
            pq.ParquetWriter(unfinished, SCHEMA, compression="snappy", use_dictionary=_FEW_VALUES) as writer,
            ThreadPoolExecutor(1, "writing") as pool,  # pyarrow lets this thread read on meanwhile
        ):
            written: Future[None] | None = None
            for group in _groups(records(path, filename, only)):
                if written is not None:
                    written.result()
                written = pool.submit(writer.write_table, pa.Table.from_batches(group))
            if written is not None:
                written.result()
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def records(path: Path, filename: str, only: Sequence[TaskType] | None = None) -> Iterator[pa.RecordBatch]:
    """The rows that `normalise` writes of an upload, in portions. Raises InvalidInput as it does."""
    return (_wanted(chunk, only) for chunk in read(path, filename))


def read_normalised(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file that `normalise` wrote, as dicts with the columns of `SCHEMA`.

    `messages` is a list of {"role", "content"}: of a prompt with a completion, the user's turn and the assistant's.
    `labels` is a dict of label to 0 or 1. Columns that do not apply to a row are None.
    """
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(1024):
            yield from group_rows(batch)


def group_rows(group: pa.RecordBatch | pa.Table) -> list[dict[str, Any]]:
    """Rows of such a file, as `read_normalised` gives them."""
    records: list[dict[str, Any]] = group.to_pylist()
    for record in records:
        if record["completion"] is not None:
            record["messages"] = [
                {"role": "user", "content": record["prompt"]},
                {"role": "assistant", "content": record["completion"]},
            ]
        if record["labels"] is not None:
            record["labels"] = {pair["label"]: pair["value"] for pair in record["labels"]}
    return records


def _groups(portions: Iterator[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    group: list[pa.RecordBatch] = []
    size = 0
    for portion in portions:
        if portion.num_rows:
            group.append(portion)
            size += portion.nbytes
        if size >= _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _wanted(chunk: Chunk, only: Sequence[TaskType] | None) -> pa.RecordBatch:
    if only is not None:
        fits = fitting(chunk.records)
        return chunk.records.filter(pa.array(np.logical_and.reduce([fits[task_type] for task_type in only])))
    if chunk.unusable:
        number, row = chunk.unusable[0]
        reason = row if isinstance(row, str) else chunk.problem(row, meant_for(row))
        raise InvalidInput(f"{chunk.number_means} {number}: {reason}. Correct the row and upload again.")
    return chunk.records
