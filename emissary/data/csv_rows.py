"""Rows of a CSV file: a header, then a record a row; commas, semicolons, tabs or pipes between the fields."""

import csv
from collections.abc import Iterator
from itertools import chain, islice

from emissary.data.content import Content
from emissary.data.rows import Row
from emissary.data.text import lines
from emissary.errors import InvalidInput

PROMPT_COLUMNS = ("input", "expected_output")
PAIR_COLUMNS = ("text1", "text2", "score")
_DELIMITERS = (",", ";", "\t", "|")
_HEADER_LINES = 20

# The csv module's own limit (131,072 characters, for the whole process) is shorter than a long document;
# without any, one forgotten closing quote would read the rest of the file into memory.
csv.field_size_limit(16 * 1024 * 1024)


def read_csv(content: Content) -> Iterator[tuple[int, Row | str]]:
    """Yield (line on which the row begins, row, or why there is none); every value stays text.

    `input` and `expected_output` become prompt and completion; `text1`, `text2` and `score` become itemA,
    itemB and similarity. Other columns keep their name. Raises InvalidInput for a header without them, and for a quote
    that is never closed, behind which no row can be told apart.
    """
    text = lines(content)
    head = list(islice(text, _HEADER_LINES))
    records = _records(chain(head, text), delimiter(head))
    line, header = next(records, (1, []))
    if isinstance(header, str):
        raise InvalidInput(f"Line {line}: {header}.")
    columns = [column.strip() for column in header]
    is_pair = _check_header(line, columns)
    for line, fields in records:
        if isinstance(fields, str):
            yield line, fields
        elif len(fields) != len(columns):
            yield (
                line,
                f"the row's number of fields is {len(fields)} and the header's is {len(columns)}; a value that "
                "contains the delimiter, a quote or a line break must be in double quotes",
            )
        else:
            yield line, _row(dict(zip(columns, fields, strict=True)), is_pair)


def delimiter(head: list[str]) -> str:
    """The delimiter with which the header, at the beginning of the lines `head`, has the columns of a dataset; else
    the one that is most frequent in it.
    """

    def fit(candidate: str) -> tuple[bool, int]:
        names = _header_names(head, candidate)
        return _has_columns(names), len(names)

    return max(_DELIMITERS, key=fit)


def is_header(head: list[str]) -> bool:
    """Whether the lines `head` begin with a header that has the columns of a dataset."""
    return _has_columns(_header_names(head, delimiter(head)))


def _header_names(head: list[str], delimiter: str) -> set[str]:
    try:
        _, fields = next(_records(iter(head), delimiter), (1, []))
    except InvalidInput:
        return set()
    return set() if isinstance(fields, str) else {field.strip() for field in fields}


def _has_columns(names: set[str]) -> bool:
    return names.issuperset(PROMPT_COLUMNS) or names.issuperset(PAIR_COLUMNS)


def _row(row: Row, is_pair: bool) -> Row:
    if is_pair:
        row["itemA"], row["itemB"] = {"text": row.pop("text1")}, {"text": row.pop("text2")}
        row["similarity"] = row.pop("score")
    else:
        row["prompt"], row["completion"] = row.pop("input"), row.pop("expected_output")
    return row


def _records(text: Iterator[str], delimiter: str) -> Iterator[tuple[int, list[str] | str]]:
    """Each record, or why it is not valid, with the line on which it begins; behind one that is not, the next line
    begins another.
    """
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end" in str(error) or "field larger" in str(error):
                raise InvalidInput(
                    f"Line {line}: the row that begins here is not valid CSV: {error}. Close the quote, and write a "
                    "quote inside a quoted value twice."
                ) from None
            yield (
                line,
                f"the row that begins here is not valid CSV: {error}; a value that contains the delimiter, a quote or "
                "a line break must be in double quotes, and a quote inside it written twice",
            )
            continue
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
