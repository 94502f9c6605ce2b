"""Rows of a Parquet file that somebody uploaded."""

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types

from emissary.data.content import Limit
from emissary.data.rows import FIELDS, Row
from emissary.errors import InvalidInput

_STEP_ROWS = 128  # few, for one value may stand for all of them in the file, and does in an archive bomb
_BATCH_ROWS = 8192
_BATCH_BYTES = 8 * 1024 * 1024


def read_parquet(file: IO[bytes], limit: Limit) -> Iterator[tuple[int, pa.RecordBatch, set[str]]]:
    """Yield (number of its first row, batch, names of the columns that no task type reads and that are not decoded).

    Raises InvalidInput for a file that cannot be read or holds more than `limit`, and for columns that no row of a
    dataset can come from.
    """
    number, size = 1, 0
    with _readable(), pq.ParquetFile(file, pre_buffer=False) as parquet:
        schema = parquet.schema_arrow
        names = [name for name in schema.names if name in FIELDS]
        if not names:
            raise InvalidInput(f"The Parquet file has none of the columns of a dataset ({', '.join(sorted(FIELDS))}).")
        for name in names:
            if names.count(name) > 1:
                raise InvalidInput(f"The Parquet file has the column {name!r} more than once. Write it once.")
            _check_type(schema.field(name))
        unused = set(schema.names) - FIELDS
        plain = pa.schema([schema.field(name).with_type(_plain(schema.field(name).type)) for name in names])
        steps = (step.select(names).cast(plain) for step in parquet.iter_batches(_STEP_ROWS, columns=names))
        for batch in _joined(steps):
            size += batch.nbytes
            limit.check(size, "Parquet")
            yield number, batch, unused
            number += batch.num_rows


def _joined(steps: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    waiting: list[pa.RecordBatch] = []
    for step in steps:
        waiting.append(step)
        full = sum(batch.nbytes for batch in waiting) >= _BATCH_BYTES
        if full or len(waiting) * _STEP_ROWS >= _BATCH_ROWS:
            yield pa.concat_batches(waiting)
            waiting = []
    if waiting:
        yield pa.concat_batches(waiting)


def rows_of(batch: pa.RecordBatch) -> list[Row | str]:
    """The rows of a batch as JSON would have them, or why one is none; nulls are left out, as Parquet cannot leave out
    a field.
    """
    with _readable():
        try:
            return [_as_json(row) for row in batch.to_pylist(maps_as_pydicts="strict")]
        except KeyError:
            if batch.num_columns == batch.num_rows == 1:
                return [f"'{batch.schema.names[0]}' has a key twice"]
    if batch.num_rows > 1:
        return [row for index in range(batch.num_rows) for row in rows_of(batch.slice(index, 1))]
    (reason, *_) = (row for name in batch.schema.names for row in rows_of(batch.select([name])) if isinstance(row, str))
    return [reason]


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0][:200].rstrip(".") if str(error).strip() else "unknown error"
        raise InvalidInput(f"The file cannot be read as Parquet: {reason}. Write it again and upload it.") from None


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type without dictionaries, of which the size says nothing about that of the rows."""
    if types.is_dictionary(kind):
        return kind.value_type
    if types.is_struct(kind):
        return pa.struct([field.with_type(_plain(field.type)) for field in kind])
    return pa.list_(_plain(kind.value_type)) if types.is_list(kind) else kind


def _check_type(field: pa.Field) -> None:
    wanted = {
        "prompt": ("text", _is_text),
        "completion": ("text, a number, or a map or struct of labels", lambda kind: _is_plain(kind) or _is_map(kind)),
        "messages": ("a list of structs with role and content", _is_list),
        "itemA": ("a struct with text", _is_map),
        "itemB": ("a struct with text", _is_map),
        "similarity": ("a number", _is_plain),
    }
    what, fits = wanted[field.name]
    if not types.is_null(field.type) and not fits(field.type):
        raise InvalidInput(
            f"The column {field.name!r} of the Parquet file has the type {str(field.type)[:200]}; it must be {what}."
        )


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _is_plain(kind: pa.DataType) -> bool:
    return _is_text(kind) or types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)


def _is_map(kind: pa.DataType) -> bool:
    return bool(types.is_struct(kind) or types.is_map(kind))


def _is_list(kind: pa.DataType) -> bool:
    lists = (types.is_list, types.is_large_list, types.is_fixed_size_list, types.is_list_view)
    return any(is_it(kind) for is_it in lists) and _is_map(kind.value_type)


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_as_json(item) for item in value]
    return float(value) if isinstance(value, Decimal) else value
