"""Rows that are plainly fine, normalised a column at a time.

What is not plainly fine (a text that may be empty, a number that may not be finite, two shapes in one batch) is not
judged here: then the batch goes through `emissary.data.rows` row by row, which alone decides and says why.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from emissary.data.records import SCHEMA
from emissary.data.rows import FIELDS, MOST_TARGET, ROLES, labels, number

_NUMBER = r"^-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_LONGEST_NUMBER = 300  # longer ones may be beyond a double
# What begins a white-space character of Unicode in UTF-8: one byte up to a space, or these two.
_SPACE_BEGINS = np.array([0xC285, 0xC2A0, 0xE19A, 0xE280, 0xE281, 0xE380], np.uint16)
_MOST_LABELS = 256

Mask = npt.NDArray[np.bool_]


class _Unsure(Exception):
    """Some row is not plainly fine."""


def normalised(uploaded: pa.RecordBatch) -> pa.RecordBatch | None:
    """Normalise a batch whose columns are the fields of uploaded rows; None unless every row is plainly fine.

    Other columns than those of `FIELDS` are left out. A null is a field that is missing, also inside of a struct.
    """
    present = {
        name: uploaded.column(name)
        for name in FIELDS.intersection(uploaded.schema.names)
        if uploaded.column(name).null_count < uploaded.num_rows
    }
    try:
        match sorted(present):
            case ["completion", "prompt"]:
                columns = _prompts(present["prompt"], present["completion"])
            case ["messages"]:
                columns = {"kind": _constant("chat", uploaded.num_rows), "messages": _messages(present["messages"])}
            case ["itemA", "itemB", "similarity"]:
                columns = {
                    "kind": _constant("pair", uploaded.num_rows),
                    "text_a": _text(_child(present["itemA"], "text")),
                    "text_b": _text(_child(present["itemB"], "text")),
                    "similarity": _similarity(present["similarity"]),
                }
            case _:
                return None
    except (_Unsure, pa.ArrowException):
        return None
    arrays = [
        columns[field.name] if field.name in columns else pa.nulls(uploaded.num_rows, field.type) for field in SCHEMA
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def _prompts(prompt: pa.Array, completion: pa.Array) -> dict[str, pa.Array]:
    columns = {"kind": _constant("prompt", len(prompt)), "prompt": _text(prompt)}
    if types.is_struct(completion.type):
        return columns | {"labels": _labels(completion)}
    if _is_number(completion.type):
        return columns | {"target": _numbers(completion)}
    text = _text(completion)
    return columns | {"completion": text, "labels": _labels_said(text), "target": _numbers_said(text)}


def _constant(value: str, length: int) -> pa.Array:
    return pa.repeat(pa.scalar(value), length)


def _sure(condition: bool) -> None:
    if not condition:
        raise _Unsure


def _is_number(kind: pa.DataType) -> bool:
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def _child(struct: pa.Array, name: str) -> pa.Array:
    _sure(types.is_struct(struct.type) and struct.type.get_field_index(name) >= 0 and not struct.null_count)
    return struct.field(name)


def _text(column: pa.Array) -> pa.Array:
    """The column as strings, none of them empty or white space."""
    _sure((types.is_string(column.type) or types.is_large_string(column.type)) and not column.null_count)
    column = column.cast(pa.string())
    starts, data = _parts(column)
    _sure(bool((np.diff(starts) > 0).all()))
    doubtful = np.flatnonzero(_may_be_space(data, starts[:-1]))
    if len(doubtful):
        _sure(not any(map(str.isspace, column.take(pa.array(doubtful)).to_pylist())))
    return column


def _parts(column: pa.Array) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
    """Where the strings of a column without nulls begin, and the last one ends, in the bytes of all."""
    _, offsets, data = column.buffers()
    starts = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
    return starts, np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)


def _may_be_space(data: npt.NDArray[np.uint8], at: npt.NDArray[np.int32]) -> Mask:
    """Whether the characters that begin at these places may be white space."""
    first = data[at]
    pair = (first.astype(np.uint16) << 8) | data[np.minimum(at + 1, len(data) - 1)]
    return (first <= 0x20) | np.isin(pair, _SPACE_BEGINS)


def _messages(column: pa.Array) -> pa.Array:
    _sure(types.is_list(column.type) and not column.null_count)
    offsets = column.offsets.to_numpy()
    offsets = offsets - offsets[0]
    _sure(bool((np.diff(offsets) >= 2).all()))
    turns = column.flatten()
    roles, contents = _child(turns, "role"), _text(_child(turns, "content"))
    _sure(types.is_string(roles.type) or types.is_large_string(roles.type))
    roles = roles.cast(pa.string())
    _sure(bool(pc.all(pc.is_in(roles, pa.array(ROLES))).as_py()))
    last = roles.take(pa.array(offsets[1:] - 1))
    _sure(bool(pc.all(pc.equal(last, "assistant")).as_py()))
    turns = pa.StructArray.from_arrays([roles, contents], fields=list(SCHEMA.field("messages").type.value_type))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), turns, type=SCHEMA.field("messages").type)


def _numbers(column: pa.Array) -> pa.Array:
    _sure(not column.null_count)
    column = column.cast(pa.float64())
    _sure(bool((np.abs(column.to_numpy()) <= MOST_TARGET).all()))
    return column


def _similarity(column: pa.Array) -> pa.Array:
    if _is_number(column.type):
        column = _numbers(column)
    else:
        column = _numbers_said(_text(column))
        _sure(not column.null_count)
    values = column.to_numpy()
    _sure(bool(((values >= -1) & (values <= 1)).all()))
    return column


def _labels(struct: pa.StructArray) -> pa.Array:
    """Structs of 0 or 1 as lists of label and value; a label that is null is one that the row does not name."""
    fields = list(struct.type)
    _sure(not struct.null_count and 0 < len(fields) <= _MOST_LABELS)
    given = np.empty((len(struct), len(fields)), bool)
    values = np.empty((len(struct), len(fields)), np.int8)
    for index, field in enumerate(fields):
        _sure(labels({field.name: 0}) is not None)
        _sure(_is_number(field.type) or types.is_boolean(field.type) or types.is_null(field.type))
        child = struct.field(index)
        numbers = child.cast(pa.float64()) if not types.is_boolean(field.type) else child.cast(pa.int8())
        found = numbers.fill_null(0).to_numpy(zero_copy_only=False)
        _sure(bool(((found == 0) | (found == 1)).all()))
        given[:, index] = child.is_valid().to_numpy(zero_copy_only=False)
        values[:, index] = found
    counts = given.sum(axis=1)
    _sure(bool((counts > 0).all()))
    names = pa.array([field.name for field in fields]).take(pa.array(np.nonzero(given)[1]))
    pairs = pa.StructArray.from_arrays(
        [names, pa.array(values[given])], fields=list(SCHEMA.field("labels").type.value_type)
    )
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pairs, type=SCHEMA.field("labels").type)


def _labels_said(text: pa.Array) -> pa.Array:
    """The labels of texts that say them, null for the others."""
    starts, data = _parts(text)
    first = data[starts[:-1]]
    # Where white space is before it, str.lstrip finds out.
    candidates = np.flatnonzero((first == ord("{")) | _may_be_space(data, starts[:-1]))
    if not len(candidates):
        return pa.nulls(len(text), SCHEMA.field("labels").type)
    found: list[list[dict[str, str | int]] | None] = [None] * len(text)
    for index, said in zip(candidates.tolist(), text.take(pa.array(candidates)).to_pylist(), strict=True):
        if (marked := labels(said)) is not None:
            found[index] = [{"label": label, "value": value} for label, value in marked.items()]
    return pa.array(found, SCHEMA.field("labels").type)


def _numbers_said(text: pa.Array) -> pa.Array:
    """The numbers of texts that say them, null for the others."""
    starts, data = _parts(text)
    first, last = data[starts[:-1]], data[starts[1:] - 1]
    # A number begins and ends with these, or has white space there, which str.strip takes off.
    begins = (first >= ord("0")) & (first <= ord("9")) | np.isin(first, np.frombuffer(b"+-.", np.uint8))
    ends = (last >= ord("0")) & (last <= ord("9")) | (last == ord(".")) | (last <= 0x20) | (last >= 0x80)
    candidates = np.flatnonzero((begins | _may_be_space(data, starts[:-1])) & ends)
    values = np.full(len(text), np.nan)
    if len(candidates):
        said = text.take(pa.array(candidates))
        plain = pc.match_substring_regex(said, _NUMBER).to_numpy(zero_copy_only=False)
        plain &= pc.less(pc.binary_length(said), _LONGEST_NUMBER).to_numpy(zero_copy_only=False)
        try:
            values[candidates[plain]] = said.filter(pa.array(plain)).cast(pa.float64()).to_numpy()
        except pa.ArrowInvalid:
            plain[:] = False
        others = said.filter(pa.array(~plain)).to_pylist()
        found = [number(other) for other in others]
        values[candidates[~plain]] = [np.nan if value is None else value for value in found]
        values[~(np.abs(values) <= MOST_TARGET)] = np.nan
    return pa.array(values, mask=np.isnan(values))
