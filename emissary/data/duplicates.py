"""Rows that repeat an earlier one, counted by a 64-bit hash of what is normalised of them."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Hashes = npt.NDArray[np.uint64]


def hashes(records: pa.RecordBatch) -> Hashes:
    """One number for each normalised row; in this process the same for equal rows, whose labels may be in any order."""
    total = np.zeros(records.num_rows, np.uint64)
    for seed, name in enumerate(records.schema.names):
        column = records.column(name)
        if column.null_count == len(column):
            continue
        valid = column.is_valid().to_numpy(zero_copy_only=False)
        match name:
            case "messages":
                turns = column.flatten()
                lengths = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
                place = np.arange(len(turns)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
                said = _mixed(_of_texts(turns.field(0)) + _mixed(_of_texts(turns.field(1))) + place.astype(np.uint64))
                found = _sums(said, lengths)
            case "labels":
                pairs = column.flatten()
                lengths = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
                value = pairs.field(1).to_numpy(zero_copy_only=False).astype(np.uint64)
                found = _sums(_mixed(_of_texts(pairs.field(0)) + value), lengths)
            case "target" | "similarity":
                # Adding zero makes -0.0 the same as 0.0.
                found = (column.fill_null(0.0).to_numpy(zero_copy_only=False) + 0.0).view(np.uint64)
            case _:
                found = _of_texts(column)
        total += np.where(valid, _mixed(found + np.uint64(seed)), np.uint64(0))
    return total


def repeated(found: Hashes) -> int:
    """How many are the same as an earlier one."""
    in_order = np.sort(found)
    return int(np.count_nonzero(in_order[1:] == in_order[:-1]))


def _of_texts(column: pa.Array) -> Hashes:
    """Python's own hash of each text's UTF-8, 0 for null; nothing faster is at hand for texts of any length."""
    _, offsets, data = column.buffers()
    starts = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
    if data is None:
        return np.zeros(len(column), np.uint64)
    content = data[int(starts[0]) : int(starts[-1])].to_pybytes()
    ends = (starts - starts[0]).tolist()
    return np.array([hash(content[start:end]) for start, end in pairwise(ends)], np.int64).view(np.uint64)


def _sums(values: Hashes, lengths: npt.NDArray[np.int32]) -> Hashes:
    """The sum of each row's values."""
    ends = np.cumsum(lengths)
    until = np.concatenate([np.zeros(1, np.uint64), np.cumsum(values, dtype=np.uint64)])
    sums: Hashes = until[ends] - until[ends - lengths]
    return sums


def _mixed(values: Hashes) -> Hashes:
    """Every bit of a value spread over the whole of it (the finalizer of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
