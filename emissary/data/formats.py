"""Which format a file has: by its content where that is certain, else by its extension."""

import codecs
from pathlib import Path, PurePath
from typing import Literal

from emissary.data import strict_json
from emissary.data.content import PARQUET, opened
from emissary.data.csv_rows import is_header
from emissary.data.json_rows import SPACE
from emissary.errors import InvalidInput

Format = Literal["jsonl", "json", "csv", "parquet"]
_EXTENSIONS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}
_PACKED = (".gz", ".zst")
_HEAD_LINES = 20


def named(filename: str) -> Format:
    """The format that the extension of `filename` says, which `.gz` or `.zst` may follow.

    Raises InvalidInput for an extension that is not supported.
    """
    name = PurePath(filename)
    extension = PurePath(name.stem if name.suffix.lower() in _PACKED else name).suffix.lower()
    if extension not in _EXTENSIONS:
        *others, last = _EXTENSIONS
        found = f"the extension {extension!r}" if extension else "no extension"
        raise InvalidInput(
            f"The file name has {found}; supported are {', '.join(others)} and {last}, packed (.gz, .zst) or not."
        )
    return _EXTENSIONS[extension]


def unextended(filename: str) -> str:
    """The file name without what says its format."""
    name = PurePath(filename)
    return PurePath(name.stem).stem if name.suffix.lower() in _PACKED else name.stem


def found(path: Path, filename: str) -> Format:
    """The format of the file at `path`, named `filename`. Raises InvalidInput as `opened` and `recognised`."""
    with opened(path) as content:
        return recognised(content.head, filename)


def recognised(head: bytes, filename: str) -> Format:
    """The format of a file that begins with the bytes `head`; one that its content contradicts is not the name's."""
    said = named(filename)
    if head.startswith(PARQUET):
        return "parquet"
    text = head.removeprefix(codecs.BOM_UTF8).decode(errors="ignore").lstrip(SPACE)
    if text.startswith("[") and text[1:].lstrip(SPACE)[:1] in ("{", "]"):
        return "json"
    if text.startswith("{") and (said == "jsonl" or _is_object(text.split("\n", 1)[0])):
        return "jsonl"
    if said != "csv" and is_header([f"{line}\n" for line in text.split("\n", _HEAD_LINES)[:_HEAD_LINES]]):
        return "csv"
    if said == "parquet":
        raise InvalidInput(
            "The file cannot be read as Parquet, for it does not begin like it. Give it the extension of what it is, "
            "or write it again, and upload it."
        )
    return said


def _is_object(line: str) -> bool:
    try:
        return isinstance(strict_json.decode(line), dict)
    except ValueError:
        return False
