"""The rows of an uploaded dataset file, whatever its format, in chunks of normalised rows.

A chunk is normalised a column at a time where all of its rows are plainly fine, else row by row; which of the two it
was makes no difference to what comes out.
"""

import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from emissary.data import json_columns
from emissary.data.columns import normalised
from emissary.data.content import Limit, opened
from emissary.data.csv_columns import COLUMN_OF
from emissary.data.csv_rows import read_csv
from emissary.data.formats import recognised
from emissary.data.json_rows import read_json_array, read_jsonl
from emissary.data.parquet_rows import read_parquet, rows_of
from emissary.data.records import SCHEMA, batch_of
from emissary.data.rows import FIELDS, Row, TaskType, fit, problem
from emissary.data.text import Block, blocks

NumberMeans = Literal["Line", "Row"]

_GROUP_ROWS = 4096
_GROUP_CHARACTERS = 16 * 1024 * 1024
_PARTS = 16  # of a block in which something is not plainly fine
_SMALL_BYTES = 64 * 1024
_THREADS = min(4, os.cpu_count() or 1)
_ITEM = pa.struct([("text", pa.string())])
_TYPES = {"prompt": pa.string(), "messages": SCHEMA.field("messages").type, "itemA": _ITEM, "itemB": _ITEM}
_FIELD = re.compile(r"'(\w+(?:\.\w+)?)'")
_T = TypeVar("_T")
_U = TypeVar("_U")


@dataclass
class Chunk:
    """Some rows of a file, in order."""

    records: pa.RecordBatch
    """Those that fit a task type, in `SCHEMA`."""
    numbers: npt.NDArray[np.int64]
    """The number of each of `records`, from 1."""
    row: Callable[[int], Row]
    """One of `records` as it was uploaded, by its index."""
    names: set[str]
    """Fields that rows of the file have."""
    unusable: list[tuple[int, Row | str]] = field(default_factory=list)
    """The other rows: the number, and the row as it was uploaded or why there is none."""
    number_means: NumberMeans = "Line"
    """What the numbers count: lines of the file, on which a row begins, or its rows."""
    column_of: Mapping[str, str] = field(default_factory=dict)
    """Fields that have another name in the file, and that name."""

    def problem(self, row: Row | str, task_type: TaskType) -> str | None:
        """What keeps a row of the file from training the task type, in the file's own names; None if nothing does."""
        found = row if isinstance(row, str) else problem(row, task_type)
        if found is None or isinstance(row, str) or not self.column_of:
            return found
        # What is quoted behind the field is of the row.
        return _FIELD.sub(lambda quoted: f"'{self.column_of.get(quoted[1], quoted[1])}'", found, count=1)


def read(path: Path, filename: str, most_bytes: int | None = None) -> Iterator[Chunk]:
    """Yield the file at `path` in chunks; its content and the extension of `filename` tell the format.

    Nothing is read, or raised, before the first chunk is asked for. Raises InvalidInput where the file as a whole
    cannot be read: an extension that is not supported, bytes that are no text, a packed file that is broken or holds
    more than `most_bytes` (see `opened`), a header without the columns of a dataset, an array or a Parquet file that
    breaks off.
    """
    with opened(path, most_bytes) as content:
        match recognised(content.head, filename):
            case "parquet":
                limit = Limit.of(path.stat().st_size, most_bytes)
                with content.seekable_copy(path) as file:
                    yield from _parallel(_of_batch, read_parquet(file, limit))
            case "jsonl":
                for chunks in _parallel(partial(_checked, fields=json_columns.Fields()), blocks(content)):
                    yield from chunks
            case "json":
                yield from (_of_rows(group, "Row") for group in _groups(read_json_array(content)))
            case "csv":
                for group in _groups(read_csv(content)):
                    chunk = _of_rows(group, "Line")
                    chunk.column_of = COLUMN_OF
                    yield chunk


def _parallel(convert: Callable[[_T], _U], items: Iterable[_T]) -> Iterator[_U]:
    """`convert` of every item, in order, a few at a time: pyarrow lets other threads work meanwhile."""
    waiting: deque[Future[_U]] = deque()
    with ThreadPoolExecutor(_THREADS, "reading") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(convert, item))
                if len(waiting) > _THREADS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _checked(block: Block, fields: json_columns.Fields) -> list[Chunk]:
    block.check()
    return _of_block(block, fields)


def _of_block(block: Block, fields: json_columns.Fields) -> list[Chunk]:
    if not fields.schema.names and not fields.too_many:
        fields.learn(_objects(read_jsonl(next(block.parts(len(block.data) // _SMALL_BYTES + 1)))))
    batch = json_columns.parse(block, fields)
    if batch is not None and (records := normalised(batch)) is not None:
        lines = np.arange(block.first_line, block.first_line + records.num_rows)

        def row(index: int) -> Row:
            ((_, found),) = read_jsonl(Block(block.data.split(b"\n", index + 1)[index], index))
            assert isinstance(found, dict)
            return found

        return [Chunk(records, lines, row, set(batch.schema.names))]
    if len(block.data) > _SMALL_BYTES and len(parts := list(block.parts(_PARTS))) > 1:
        return [chunk for part in parts for chunk in _of_block(part, fields)]
    rows = list(read_jsonl(block))
    fields.learn(_objects(rows))
    return [_of_rows(rows, "Line")] if rows else []


def _of_batch(read: tuple[int, pa.RecordBatch, set[str]]) -> Chunk:
    first, batch, unused = read
    if (records := normalised(batch)) is not None:
        numbers = np.arange(first, first + batch.num_rows)

        def row(index: int) -> Row:
            (found,) = rows_of(batch.slice(index, 1))
            assert isinstance(found, dict)
            return found

        return Chunk(records, numbers, row, unused, number_means="Row")
    chunk = _of_rows(list(zip(count(first), rows_of(batch), strict=False)), "Row")
    chunk.names |= unused
    return chunk


def _of_rows(numbered: Sequence[tuple[int, Row | str]], number_means: NumberMeans) -> Chunk:
    rows = _objects(numbered)
    names = set[str]().union(*rows)
    records = _in_columns(rows)
    fine: list[tuple[int, Row]] = []
    unusable: list[tuple[int, Row | str]] = []
    for number, row in numbered:
        if isinstance(row, dict) and (records is not None or fit(row)):
            fine.append((number, row))
        else:
            unusable.append((number, row))
    if records is None:
        records = batch_of([row for _, row in fine])
    numbers = np.array([number for number, _ in fine], np.int64)
    return Chunk(records, numbers, lambda index: fine[index][1], names, unusable, number_means)


def _in_columns(rows: list[Row]) -> pa.RecordBatch | None:
    columns = {name: [row.get(name) for row in rows] for name in FIELDS if any(name in row for row in rows)}
    # Of several kinds, pyarrow would make one; objects of labels would have a column for each that any row names.
    if not all(_is_plain(columns[name]) for name in ("completion", "similarity") if name in columns):
        return None
    try:
        arrays = {name: pa.array(values, _TYPES.get(name)) for name, values in columns.items()}
    except (pa.ArrowException, TypeError, OverflowError):
        return None
    return normalised(pa.RecordBatch.from_pydict(arrays)) if arrays else None


def _is_plain(values: list[object]) -> bool:
    """Whether they are all texts, or all numbers, but for those that are missing."""
    kinds = set(map(type, values)) - {type(None)}
    return kinds <= {str} or kinds <= {int, float}


def _objects(numbered: Iterable[tuple[int, Row | str]]) -> list[Row]:
    return [row for _, row in numbered if isinstance(row, dict)]


def _groups(numbered: Iterable[tuple[int, Row | str]]) -> Iterator[list[tuple[int, Row | str]]]:
    """The rows in groups that fit into memory."""
    group: list[tuple[int, Row | str]] = []
    characters = 0
    for number, row in numbered:
        group.append((number, row))
        characters += _characters(row)
        if len(group) == _GROUP_ROWS or characters >= _GROUP_CHARACTERS:
            yield group
            group, characters = [], 0
    if group:
        yield group


def _characters(value: object) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_characters, value.values()))
    return sum(map(_characters, value)) if isinstance(value, list) else 8
