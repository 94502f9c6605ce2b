"""The test rows that a checkpoint did worst and best on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

MOST = 10
_LONGEST = 600


@dataclass(frozen=True)
class ScoredRow:
    """A test row, counted from 1, the checkpoint's answer to it, and the score of that. Long texts lose their end."""

    number: int
    input: str
    expected: str
    answer: str
    score: float


@dataclass(frozen=True)
class Extremes:
    """The rows with the worst and with the best scores, at most ten each and none in both, the most extreme first."""

    worst: list[ScoredRow]
    best: list[ScoredRow]
    rows: int
    """All test rows."""
    unscored: int
    """Those among them that the function gave no score."""


def extremes(results: bytes, function: str, *, higher_is_better: bool) -> Extremes:
    """The extremes of a test's results (Parquet, as the API links to) by the score of `function`; rows with the same
    score are in the order of the test set.
    """
    table = pq.read_table(pa.BufferReader(results))
    rows = table.num_rows
    if function not in table.column_names:  # it gave no row a score
        return Extremes([], [], rows, rows)
    table = table.append_column("number", pa.array(range(1, rows + 1), pa.int64()))
    table = table.filter(pc.is_finite(table[function]))
    low, high = (table.take(_order(table, function, order)) for order in ("ascending", "descending"))
    worst, best = (low, high) if higher_is_better else (high, low)
    scored = table.num_rows
    shown_best = min(MOST, max(0, scored - MOST))
    return Extremes(_rows(worst, function, MOST), _rows(best, function, shown_best), rows, rows - scored)


def _order(table: pa.Table, function: str, order: str) -> pa.Array:
    return pc.sort_indices(table, sort_keys=[(function, order), ("number", "ascending")])


def _rows(table: pa.Table, function: str, count: int) -> list[ScoredRow]:
    return [_row(values, function) for values in table.slice(0, count).to_pylist()]


def _row(values: Mapping[str, Any], function: str) -> ScoredRow:
    input_text, expected, answer = (_short(values[name]) for name in ("input", "expected_output", "output"))
    return ScoredRow(values["number"], input_text, expected, answer, values[function])


def _short(text: str) -> str:
    left_out = len(text) - _LONGEST
    return text if left_out <= 0 else f"{text[:_LONGEST]} … ({left_out:,} more characters)"
