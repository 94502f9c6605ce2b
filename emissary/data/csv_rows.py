"""Rows of a CSV file: a header, comma-separated, quoted as RFC 4180 has it."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emissary.data.text import lines
from emissary.errors import InvalidInput

PROMPT_COLUMNS = ("input", "expected_output")
PAIR_COLUMNS = ("text1", "text2", "score")

# The csv module's own limit (131,072 characters, for the whole process) is shorter than a long document;
# without any, one forgotten closing quote would read the rest of the file into memory.
csv.field_size_limit(16 * 1024 * 1024)


def read_csv(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line on which the row begins, row); every value stays text.

    `input` and `expected_output` become prompt and completion; `text1`, `text2` and `score` become itemA,
    itemB and similarity. Other columns keep their name.
    """
    records = _records(path)
    line, header = next(records, (1, []))
    columns = [column.strip() for column in header]
    is_pair = _check_header(line, columns)
    for line, fields in records:
        if len(fields) != len(columns):
            raise InvalidInput(
                f"Line {line}: the row's number of fields is {len(fields)} and the header's is {len(columns)}. "
                "Put a value that contains a comma, a quote or a line break in double quotes."
            )
        row: dict[str, Any] = dict(zip(columns, fields, strict=True))
        if is_pair:
            row["itemA"], row["itemB"] = {"text": row.pop("text1")}, {"text": row.pop("text2")}
            row["similarity"] = row.pop("score")
        else:
            row["prompt"], row["completion"] = row.pop("input"), row.pop("expected_output")
        yield line, row


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(lines(path), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InvalidInput(
                f"Line {line}: the row that begins here is not valid CSV: {error}. "
                "Put a value that contains a comma, a quote or a line break in double quotes, "
                "and write a quote inside it twice."
            ) from None
        if len(fields) > 1 or (fields and fields[0].strip()):
            yield line, fields


def _check_header(line: int, columns: list[str]) -> bool:
    """Return whether the columns are those of text pairs; raises InvalidInput where some are missing."""
    if repeated := sorted({column for column in columns if columns.count(column) > 1}):
        raise InvalidInput(f"Line {line}: the CSV header names the column {repeated[0]!r} more than once.")
    missing = [[name for name in names if name not in columns] for names in (PROMPT_COLUMNS, PAIR_COLUMNS)]
    if all(missing):
        nearest = missing[1] if len(missing[1]) < len(PAIR_COLUMNS) and len(missing[0]) > 1 else missing[0]
        raise InvalidInput(
            f"Line {line}: the CSV header has no column {' and no column '.join(map(repr, nearest))}. "
            f"It must be {','.join(PROMPT_COLUMNS)} or, for embedding, {','.join(PAIR_COLUMNS)}."
        )
    return bool(missing[0])
