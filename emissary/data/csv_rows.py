"""Rows of a CSV file: a header, then a record a row; in the dialect that the beginning of the file shows."""

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from emissary.data.content import Content
from emissary.data.csv_columns import PAIR_COLUMNS, PROMPT_COLUMNS, as_row, has_columns, named
from emissary.data.rows import Row
from emissary.data.text import lines
from emissary.errors import InvalidInput

_DELIMITERS = (",", ";", "\t", "|")
_HEAD_CHARACTERS = 64 * 1024

Dialect = dict[str, Any]
"""Arguments of csv.reader."""
Record = tuple[int, list[str] | str]
"""The line on which it begins, and its fields or why there are none."""

_QUOTING: list[Dialect] = [
    {"quotechar": quote, "escapechar": escape, "skipinitialspace": spaced}
    for quote in ('"', "'")
    for escape in (None, "\\")
    for spaced in (False, True)
]
"""As RFC 4180 has it first, which all others must give way to."""
_SAID_DELIMITER = re.compile(r'"?sep=([^\w\s"\'\\]|\t)"?\r?\n?', re.IGNORECASE)

# The csv module's own limit (131,072 characters, for the whole process) is shorter than a long document;
# without any, one forgotten closing quote would read the rest of the file into memory.
csv.field_size_limit(16 * 1024 * 1024)


def read_csv(content: Content) -> Iterator[tuple[int, Row | str]]:
    """Yield (line on which the row begins, row, or why there is none); every value stays text.

    `input` and `expected_output` become prompt and completion; `text1`, `text2` and `score` become itemA,
    itemB and similarity, in upper or lower case. Other columns keep their name. Raises InvalidInput for a header
    without them, and for a quote that is never closed, behind which no row can be told apart.
    """
    if b"\r" in content.head and b"\n" not in content.head:
        content = Content(_LineFeeds(content))
    text = lines(content)
    head, is_whole = _head(text)
    said = _said_delimiter(head)
    first = 0 if said is None else 1
    records = _records(chain(head[first:], text), _dialect(head[first:], is_whole, said or _DELIMITERS), first)
    line, header = next(records, (1, []))
    if isinstance(header, str):
        raise InvalidInput(f"Line {line}: {header}.")
    columns = named(header)
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
            named_fields = zip(columns, fields, strict=True)
            yield line, as_row({name: field for name, field in named_fields if name or field.strip()}, is_pair)


def is_header(head: list[str]) -> bool:
    """Whether the lines `head` begin with a header that has the columns of a dataset."""
    said = _said_delimiter(head)
    dialects = _dialects(head if said is None else head[1:], said or _DELIMITERS)
    return any(_has_header(_trial(head if said is None else head[1:], dialect)[0]) for dialect in dialects)


class _LineFeeds:
    """Content whose lines end with a carriage return alone, with line feeds there."""

    def __init__(self, content: Content) -> None:
        self._content = content

    def read(self, size: int) -> bytes:
        return self._content.read(size).replace(b"\r", b"\n")


def _head(text: Iterator[str]) -> tuple[list[str], bool]:
    """The first lines, of 64 KiB of characters, and whether they are all."""
    head, characters = [], 0
    for line in text:
        head.append(line)
        characters += len(line)
        if characters >= _HEAD_CHARACTERS:
            return head, False
    return head, True


def _said_delimiter(head: list[str]) -> str | None:
    """What a first line `sep=;` for Excel says."""
    said = _SAID_DELIMITER.fullmatch(head[0]) if head else None
    return said and said[1]


def _dialect(head: list[str], is_whole: bool, delimiters: Sequence[str]) -> Dialect:
    """The dialect in which the lines `head` are read: as RFC 4180 has it, if every record can be read so, else the
    first in which all can be; else the first that has the header.
    """
    plain, *others = _dialects(head, delimiters)
    records, is_cut = _trial(head, plain)
    problem = _problem(records)
    chosen = plain
    if problem is not None or (is_cut and is_whole):
        first = len(head) if problem is None else problem
        chosen = next((other for other in others if _reads_on(head, other, is_whole, first)), plain)
        if chosen is plain and not _has_header(records):
            chosen = next((other for other in others if _has_header(_trial(head, other)[0])), plain)
    spaced = chosen | {"skipinitialspace": True}
    return spaced if _quotes_behind_spaces(head, chosen, spaced) else chosen


def _dialects(head: list[str], delimiters: Sequence[str]) -> list[Dialect]:
    """The ways of quoting, each with the delimiter with which the header, at the beginning of the lines `head`, has the
    columns of a dataset; else the one that is most frequent in it.
    """

    def fit(dialect: Dialect) -> tuple[bool, bool, int]:
        try:
            _, fields = next(_records(iter(head), dialect), (1, []))
        except InvalidInput:
            return False, False, 0
        names = set() if isinstance(fields, str) else {field.strip() for field in fields}
        return has_columns(names), has_columns(set(named(list(names)))), len(names)

    return [max(({"delimiter": each, **quoting} for each in delimiters), key=fit) for quoting in _QUOTING]


def _reads_on(head: list[str], dialect: Dialect, is_whole: bool, line: int) -> bool:
    """Whether every record of `head` can be read, but for one that the head ends in, which begins behind `line`; and it
    has fields in the quotes of this dialect, for without them nothing speaks for it.
    """
    records, is_cut = _trial(head, dialect)
    if _problem(records) is not None:
        return False
    if dialect["quotechar"] == "'" and records == _trial(head, dialect | {"quoting": csv.QUOTE_NONE})[0]:
        return False
    return not is_cut or (not is_whole and records[-1][0] >= line)


def _quotes_behind_spaces(head: list[str], dialect: Dialect, spaced: Dialect) -> bool:
    """Whether fields that begin with spaces and then a quote are quoted: RFC 4180 has quotes inside of quotes only."""
    records, _ = _trial(head, dialect)
    others, _ = _trial(head, spaced)
    if _problem(records) is not None or _problem(others) is not None:
        return False
    pairs = (
        (a, b) for (_, was), (_, other) in zip(records, others, strict=False) for a, b in zip(was, other, strict=False)
    )
    return any(b not in (a, a.lstrip(" ")) for a, b in pairs)


def _trial(head: list[str], dialect: Dialect) -> tuple[list[Record], bool]:
    """The records of `head`, and whether it ends within a quoted field."""
    found: list[Record] = []
    try:
        for record in _records(iter(head), dialect):
            found.append(record)
    except InvalidInput:
        return found, True
    return found, False


def _problem(records: list[Record]) -> int | None:
    """The line of the first record that cannot be read, 0 where the header is none."""
    if not _has_header(records):
        return 0
    columns = len(records[0][1])
    return next((line for line, fields in records if isinstance(fields, str) or len(fields) != columns), None)


def _has_header(records: list[Record]) -> bool:
    return bool(records) and not isinstance(records[0][1], str) and has_columns(set(named(records[0][1])))


def _records(text: Iterator[str], dialect: Dialect, before: int = 0) -> Iterator[Record]:
    """Each record, or why it is not valid, with the line on which it begins; behind one that is not, the next line
    begins another. `before` lines of the file were left out.
    """
    reader = csv.reader(text, strict=True, **dialect)
    while True:
        line = before + reader.line_num + 1
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
    # Spreadsheets end lines with delimiters of columns that are empty.
    if repeated := sorted(column for column, times in Counter(filter(None, columns)).items() if times > 1):
        raise InvalidInput(f"Line {line}: the CSV header names the column {repeated[0]!r} more than once.")
    missing = [[name for name in names if name not in columns] for names in (PROMPT_COLUMNS, PAIR_COLUMNS)]
    if all(missing):
        nearest = missing[1] if len(missing[1]) < len(PAIR_COLUMNS) and len(missing[0]) > 1 else missing[0]
        raise InvalidInput(
            f"Line {line}: the CSV header has no column {' and no column '.join(map(repr, nearest))}. "
            f"It must be {','.join(PROMPT_COLUMNS)} or, for embedding, {','.join(PAIR_COLUMNS)}."
        )
    return bool(missing[0])
