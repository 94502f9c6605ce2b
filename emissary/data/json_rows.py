"""Rows of JSON Lines, one line after the other, and of a text that is one JSON array."""

import json
from collections.abc import Iterator

from emissary.data import strict_json
from emissary.data.content import Content
from emissary.data.rows import Row
from emissary.data.text import MOST_ROW_BYTES, Block, pieces
from emissary.errors import InvalidInput

SPACE = " \t\r\n"
# A value cut off at the end of what has been read so far fails at most this many characters before the end
# (the longest literal and a pair of \u escapes are shorter), except in a string, which says so.
_CUT_OFF = 16
_NO_OBJECT = 'the row is not a JSON object such as {"prompt": …}'


def read_jsonl(block: Block) -> Iterator[tuple[int, Row | str]]:
    """Yield (line number, row, or why the line is none) of a block with an object a line; blank lines are skipped."""
    for number, line in block.lines():
        if not line.strip(SPACE):
            continue
        try:
            row = strict_json.decode(line)
        except ValueError as error:
            column = f" at column {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else ""
            yield number, f"invalid JSON{column}: {_reason(error)}"
            continue
        yield number, row if isinstance(row, dict) else _NO_OBJECT


def read_json_array(content: Content) -> Iterator[tuple[int, Row | str]]:
    """Yield (row number, row, or why the element is none) of a text that is one JSON array of objects, holding a few
    rows at a time.

    Raises InvalidInput where the end of an element cannot be told, for then nothing after it can.
    """
    text = _Window(pieces(content))
    if text.next_character() != "[":
        raise InvalidInput(
            f"{text.place()}: the file is not a JSON array of rows. Begin it with '[', "
            "or write one object a line and name it with the extension .jsonl."
        )
    text.position += 1
    number = 0
    closed = text.next_character() == "]"
    while not closed:
        number += 1
        if text.next_character() in (",", "]"):
            raise InvalidInput(f'{text.place()}: row {number} is not a JSON object such as {{"prompt": …}}.')
        yield number, text.take_row()
        separator = text.next_character()
        if separator not in (",", "]"):
            raise InvalidInput(
                f"{text.place()}: invalid JSON: expecting ',' or ']' after row {number}. "
                "Is the file cut off, or a comma missing?"
            )
        closed = separator == "]"
        text.position += not closed
    text.position += 1
    if text.next_character():
        raise InvalidInput(f"{text.place()}: invalid JSON: there is more text after the array's end.")


def _reason(error: ValueError) -> str:
    message = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
    message = message.removesuffix(" starting at").removesuffix(" at")
    return message if message.startswith(("NaN", "Infinity")) else message[:1].lower() + message[1:]


class _Window:
    """The part of a text that is being read: what is before `position` is done with and dropped on `more`."""

    def __init__(self, source: Iterator[str]) -> None:
        self.source = source
        self.text = ""
        self.position = 0
        self.lines_dropped = 0
        self.columns_dropped = 0

    def more(self) -> bool:
        """Read on, doubling what is unread so that a long row is not scanned often; False at the end."""
        unread = self.text[self.position :]
        if len(unread) > MOST_ROW_BYTES:
            raise InvalidInput(f"{self.place()}: the row that begins here is longer than {MOST_ROW_BYTES >> 20} MiB.")
        added: list[str] = []
        while sum(map(len, added)) < max(1, len(unread)) and (piece := next(self.source, "")):
            added.append(piece)
        if not added:
            return False
        done = self.text[: self.position]
        if newlines := done.count("\n"):
            self.lines_dropped += newlines
            self.columns_dropped = len(done) - done.rfind("\n") - 1
        else:
            self.columns_dropped += len(done)
        self.text, self.position = "".join([unread, *added]), 0
        return True

    def next_character(self) -> str:
        """Go to the next character that is not white space and return it, '' at the end."""
        while True:
            while self.position < len(self.text):
                if self.text[self.position] not in SPACE:
                    return self.text[self.position]
                self.position += 1
            if not self.more():
                return ""

    def take_row(self) -> Row | str:
        """Go behind the JSON value at the position and return it, or why it is no row; raises InvalidInput with its
        place where it does not end.
        """
        while True:
            try:
                row, end = self._row_and_end()
            except json.JSONDecodeError as error:
                cut_off = error.pos >= len(self.text) - _CUT_OFF or error.msg.startswith("Unterminated string")
                if cut_off and self.more():
                    continue
                raise InvalidInput(f"{self.place(error.pos)}: invalid JSON: {_reason(error)}.") from None
            except ValueError as error:
                raise InvalidInput(f"{self.place()}: invalid JSON in the row that begins here: {error}.") from None
            # What looks like a number may go on.
            if self.text[self.position] not in '{["' and end >= len(self.text) - _CUT_OFF and self.more():
                continue
            self.position = end
            return row

    def _row_and_end(self) -> tuple[Row | str, int]:
        try:
            value, end = strict_json.decode_at(self.text, self.position)
        except json.JSONDecodeError:
            raise
        except ValueError as error:
            return f"invalid JSON: {_reason(error)}", strict_json.end_at(self.text, self.position)
        return value if isinstance(value, dict) else _NO_OBJECT, end

    def place(self, position: int | None = None) -> str:
        """Say where a position of the text (by default the current one) is in the file."""
        before = self.text[: self.position if position is None else position]
        newlines = before.count("\n")
        column = len(before) - before.rfind("\n") if newlines else self.columns_dropped + len(before) + 1
        return f"Line {self.lines_dropped + newlines + 1}, column {column}"
