"""The columns by which a CSV file says what a row is, and the fields of JSON that they become."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from emissary.data.rows import Row

PROMPT_COLUMNS = ("input", "expected_output")
PAIR_COLUMNS = ("text1", "text2", "score")
COLUMN_OF = {
    "prompt": "input",
    "completion": "expected_output",
    "itemA.text": "text1",
    "itemB.text": "text2",
    "similarity": "score",
}
"""Field of a row → the column that became it."""


def as_fields(columns: Sequence[str]) -> tuple[list[str], Callable[[Mapping[str, Any]], Row]] | None:
    """Those of `columns` that are a CSV file's of prompts, or else of pairs, and what makes a row of them one of JSON's
    fields; None where they are neither.
    """
    names = named(list(map(str, columns)))
    if not has_columns(set(names)):
        return None
    is_pair = not set(names).issuperset(PROMPT_COLUMNS)
    said = {column: name for column, name in zip(columns, names, strict=True) if name in _wanted(is_pair)}
    return list(said), lambda row: as_row({said[column]: value for column, value in row.items()}, is_pair)


def named(header: list[str]) -> list[str]:
    """The columns that the header names; those of a dataset in lower case, where it has them in another."""
    columns = [column.strip() for column in header]
    if has_columns(set(columns)):
        return columns
    return [column.lower() if column.lower() in (*PROMPT_COLUMNS, *PAIR_COLUMNS) else column for column in columns]


def has_columns(names: set[str]) -> bool:
    """Whether they are those of prompts or of pairs."""
    return names.issuperset(PROMPT_COLUMNS) or names.issuperset(PAIR_COLUMNS)


def _wanted(is_pair: bool) -> tuple[str, ...]:
    return PAIR_COLUMNS if is_pair else PROMPT_COLUMNS


def as_row(row: Row, is_pair: bool) -> Row:
    """The row with the fields that its columns become."""
    if is_pair:
        row["itemA"], row["itemB"] = {"text": row.pop("text1")}, {"text": row.pop("text2")}
        row["similarity"] = row.pop("score")
    else:
        row["prompt"], row["completion"] = row.pop("input"), row.pop("expected_output")
    return row
