"""Rows of a Parquet file that somebody uploaded."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from emissary.data.rows import FIELDS
from emissary.errors import InvalidInput

_BATCH_ROWS = 1024


def read_parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (row number, row); nulls are left out, as Parquet cannot leave out a field.

    Columns that no task type reads are not decoded: they are in the row with the value None.
    """
    number = 0
    for batch in _batches(path):
        for row in batch:
            number += 1
            yield number, row


def _batches(path: Path) -> Iterator[list[dict[str, Any]]]:
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if not FIELDS & set(names):
                raise InvalidInput(
                    f"The Parquet file has none of the columns of a dataset ({', '.join(sorted(FIELDS))})."
                )
            unused = dict.fromkeys(name for name in names if name not in FIELDS)
            for batch in file.iter_batches(_BATCH_ROWS, columns=[name for name in names if name in FIELDS]):
                rows = batch.to_pylist(maps_as_pydicts="strict")
                yield [_as_json(row) | unused for row in rows]
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0][:200].rstrip(".") if str(error).strip() else "unknown error"
        raise InvalidInput(f"The file cannot be read as Parquet: {reason}. Write it again and upload it.") from None


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_as_json(item) for item in value]
    return float(value) if isinstance(value, Decimal) else value
