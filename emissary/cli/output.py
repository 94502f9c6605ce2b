"""How results and messages are printed: tables or JSON on stdout, sentences on stderr."""

import json
import re
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

# Control characters but tab and line feed, marks that turn the direction of writing, and halves of characters: what
# would act on the terminal instead of being read.
_UNREADABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_WIDE = 1000


def clean(text: str) -> str:
    r"""`text` with everything that acts on a terminal shown as its escape, such as `\u001b`."""
    return _UNREADABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def messages() -> Console:
    """The console of messages and progress bars."""
    return Console(stderr=True)


def say(sentence: str) -> None:
    """A message for the person."""
    messages().print(Text(clean(sentence)), soft_wrap=True)


def complain(sentence: str) -> None:
    """Why the command failed."""
    messages().print(Text("Error: ", "bold red"), Text(clean(sentence)), sep="", soft_wrap=True)


def results() -> Console:
    """The console of results: as wide as it takes where no terminal limits it."""
    return Console(width=None if sys.stdout.isatty() else _WIDE)


def show_json(value: Any) -> None:
    """Print the API's answer."""
    # The characters that `clean` escapes are escaped in JSON's own way, so the value stays the same.
    sys.stdout.write(clean(json.dumps(value, indent=2, ensure_ascii=False)) + "\n")


def show_list(rows: Sequence[dict[str, Any]], as_json: bool, *fields: str) -> None:
    """Print `fields` of all rows as a table, or the rows as JSON."""
    if as_json:
        show_json(rows)
    else:
        results().print(_table(rows, fields))


def show_one(thing: dict[str, Any], as_json: bool) -> None:
    """Print all of one thing: a line a field, its lists of things as tables; or as JSON."""
    if as_json:
        show_json(thing)
        return
    lines, tables = Table(show_header=False, box=None, pad_edge=False), []
    for name, value in thing.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            tables.append(_table(value, _scalars(value[0]), title=_title(name)))
        else:
            lines.add_row(Text(_title(name), "bold"), _cell(name, value))
    console = results()
    console.print(lines, *tables, sep="\n")


def _scalars(row: dict[str, Any]) -> list[str]:
    return [name for name, value in row.items() if not isinstance(value, dict)]


def _table(rows: Sequence[dict[str, Any]], fields: Sequence[str], title: str | None = None) -> Table:
    table = Table(*(_title(field) for field in fields), title=title, title_justify="left")
    for row in rows:
        table.add_row(*(_cell(field, row.get(field)) for field in fields))
    return table


def _title(field: str) -> str:
    return clean(field.replace("_", " "))


def _cell(field: str, value: Any) -> Text:
    return Text(clean(_written(field, value)), overflow="fold")


def _written(field: str, value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case int() | float() if field.endswith(("_at", "timestamp")):
            return f"{datetime.fromtimestamp(value):%Y-%m-%d %H:%M:%S}"
        case list():
            return ", ".join(_written("", entry) for entry in value)
        case dict():
            return json.dumps(value, ensure_ascii=False)
    return str(value)
