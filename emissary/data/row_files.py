"""Rows written to a file as they are uploaded."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from hashlib import blake2b
from pathlib import Path
from typing import Any

from emissary.data.csv_columns import PAIR_COLUMNS, PROMPT_COLUMNS, as_fields
from emissary.data.rows import FIELDS, TaskType
from emissary.errors import InvalidInput


def write_rows(
    said: str,
    columns: Sequence[str],
    rows_of: Callable[[list[str]], Iterable[Mapping[str, Any]]],
    target: Path,
    most_bytes: int | None = None,
) -> None:
    """Write the rows that `rows_of` gives for some of their `columns` to the JSON Lines file `target`.

    Only fields that a task type reads are written, and of those what is not null; where there are none, the columns of
    a CSV file (`input`, `expected_output`; `text1`, `text2`, `score`) become them. Raises InvalidInput, beginning with
    what is `said` of the rows, where there is no such column or they take more than `most_bytes`.
    """
    names = [name for name in columns if name in FIELDS]
    as_row: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict
    if not names and (found := as_fields(columns)) is not None:
        names, as_row = found
    if not names:
        raise InvalidInput(
            f"{said} has the columns {', '.join(map(str, columns))[:500]}, and none that a dataset to train on has "
            f"({', '.join(sorted(FIELDS))}; or {','.join(PROMPT_COLUMNS)}; or {','.join(PAIR_COLUMNS)}). Rename them."
        )
    with target.open("wb") as file:
        for row in rows_of(names):
            line = json.dumps(_without_nulls(as_row(row)), ensure_ascii=False, default=_plain)
            file.write(f"{line}\n".encode(errors="replace"))
            _require_room(file.tell(), most_bytes, said)


def write_once(
    rows: Iterable[Mapping[str, Any]], task_type: TaskType, target: Path, most_bytes: int | None = None
) -> int:
    """Write normalised rows as they are uploaded for the task type, each row once, to the JSON Lines file `target`.

    Returns how many there are. Of what was written only hashes of 128 bits are kept in memory. Raises InvalidInput
    where they take more than `most_bytes`.
    """
    seen: set[bytes] = set()
    with target.open("wb") as file:
        for row in rows:
            line = json.dumps(as_uploaded(row, task_type), ensure_ascii=False, sort_keys=True).encode()
            digest = blake2b(line, digest_size=16).digest()
            if digest not in seen:
                seen.add(digest)
                file.write(line + b"\n")
                _require_room(file.tell(), most_bytes, "What is to be trained on")
    return len(seen)


def as_uploaded(row: Mapping[str, Any], task_type: TaskType) -> dict[str, Any]:
    """A normalised row as it is uploaded for the task type."""
    match task_type:
        case "classification":
            return {"prompt": row["prompt"], "completion": row["labels"]}
        case "regression":
            return {"prompt": row["prompt"], "completion": row["target"]}
        case "embedding":
            pair = {"itemA": {"text": row["text_a"]}, "itemB": {"text": row["text_b"]}}
            return pair | {"similarity": row["similarity"]}
    if row["kind"] == "prompt":
        return {"prompt": row["prompt"], "completion": row["completion"]}
    return {"messages": row["messages"]}


def _require_room(written: int, most_bytes: int | None, said: str) -> None:
    if most_bytes is not None and written > most_bytes:
        raise InvalidInput(
            f"{said} takes more than the limit of {most_bytes // 2**20} MiB (EMISSARY_MAX_LARGE_UPLOAD_MB); take less."
        )


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _plain(value: object) -> object:
    """What JSON has no kind for: exact numbers of a database, dates and the like."""
    return float(value) if isinstance(value, Decimal) else str(value)
