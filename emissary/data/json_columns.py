"""Blocks of JSON Lines parsed a column at a time, by pyarrow, where that reads the very same as row by row."""

from collections.abc import Sequence
from threading import Lock

import numpy as np
import pyarrow as pa
import pyarrow.json as pj
from pyarrow import types

from emissary.data.rows import Row
from emissary.data.text import Block

_MOST_FIELDS = 256  # more would be columns of mostly nulls
_SAMPLE_ROWS = 1000


class Fields:
    """The fields that rows of this file have been seen to have, with their types; it may be shared by threads.

    pyarrow is told these, and refuses a row with any other field or type: were it to infer them, a file could have it
    make a column for each of its rows.
    """

    def __init__(self) -> None:
        self.schema = pa.schema([])
        self.too_many = False
        """Whether there are more than can be columns; then no further ones are learnt."""
        self._lock = Lock()

    def learn(self, rows: Sequence[Row]) -> None:
        """Take in the fields of rows that were read one by one."""
        if self.too_many:
            return
        try:
            seen = pa.infer_type(rows[:_SAMPLE_ROWS])
            if not types.is_struct(seen):
                return
            found = pa.schema([field.with_type(_general(field.type)) for field in seen])
            with self._lock:
                try:
                    known = pa.unify_schemas([self.schema, found], promote_options="permissive")
                except pa.ArrowException:
                    known = found
                self.too_many = self.too_many or _size(pa.struct(known)) > _MOST_FIELDS
                if not self.too_many:
                    self.schema = known
        except (pa.ArrowException, OverflowError):
            return


def parse(block: Block, fields: Fields) -> pa.RecordBatch | None:
    """The rows of a block; None unless each of its lines is plainly one row with known fields."""
    schema, data = fields.schema, block.data
    rows = _count(data)
    if not rows or not len(schema):
        return None
    # Read row by row, a label that is null is a mistake; here it would be one that the row does not name.
    completion = schema.field("completion").type if "completion" in schema.names else pa.null()
    if types.is_struct(completion) and b"null" in data:
        return None
    try:
        table = pj.read_json(
            pa.BufferReader(data),
            read_options=pj.ReadOptions(use_threads=False, block_size=len(data) + 1),
            parse_options=pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error"),
        )
    except pa.ArrowException:
        return None
    # A line may hold two rows, and does, where there are more rows than lines.
    if table.num_rows != rows or not all(map(_is_finite, table.columns)):
        return None
    (batch,) = table.combine_chunks().to_batches()
    return batch


def _count(data: bytes) -> int:
    """How many lines there are; 0 unless each begins like an object and ends like one.

    Then no object goes over several lines, for no value of JSON has a `}` and a `{` with a line feed between. And
    pyarrow does not see a line `null`, on which it may crash.
    """
    breaks = data.count(b"\n") - data.endswith(b"\n")
    if breaks != data.count(b"}\n{") and breaks != data.count(b"}\r\n{"):
        return 0
    return breaks + 1 if data.startswith(b"{") and data[-3:].rstrip(b"\r\n").endswith(b"}") else 0


def _general(kind: pa.DataType) -> pa.DataType:
    """The type with every number as a float, as JSON has only one kind of them."""
    if types.is_struct(kind):
        return pa.struct([field.with_type(_general(field.type)) for field in kind])
    if types.is_list(kind):
        return pa.list_(_general(kind.value_type))
    return pa.float64() if types.is_integer(kind) else kind


def _size(kind: pa.DataType) -> int:
    """How many columns a type is stored as."""
    return 1 + sum(_size(kind.field(index).type) for index in range(kind.num_fields))


def _is_finite(column: pa.ChunkedArray | pa.Array) -> bool:
    """Whether no number is NaN or infinite, which pyarrow reads though they are no JSON."""
    if isinstance(column, pa.ChunkedArray):
        return all(map(_is_finite, column.chunks))
    if types.is_struct(column.type):
        return all(_is_finite(column.field(index)) for index in range(column.type.num_fields))
    if types.is_list(column.type):
        return _is_finite(column.values)
    if not types.is_floating(column.type) or column.null_count == len(column):
        return True
    return bool(np.isfinite(column.drop_null().to_numpy()).all())
