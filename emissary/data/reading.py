"""The rows of an uploaded dataset file, whatever its format."""

from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import Any, Literal

from emissary.data.csv_rows import read_csv
from emissary.data.json_rows import read_json_array, read_jsonl
from emissary.data.parquet_rows import read_parquet
from emissary.errors import InvalidInput

_Reader = Callable[[Path], Iterator[tuple[int, dict[str, Any]]]]
_READERS: dict[str, tuple[_Reader, Literal["Line", "Row"]]] = {
    ".jsonl": (read_jsonl, "Line"),
    ".json": (read_json_array, "Row"),
    ".csv": (read_csv, "Line"),
    ".parquet": (read_parquet, "Row"),
}


def read_rows(path: Path, filename: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (number, raw row) of the file at `path`, read as the extension of `filename` says.

    The number, from 1, is what `number_means(filename)` says. Nothing is read, or raised, before the first
    row is asked for. Raises InvalidInput, naming line or byte offset, for an extension that is not supported,
    an empty file and a file that is not what its extension says.
    """
    reader, _ = _format(filename)
    if path.stat().st_size == 0:
        raise InvalidInput("The file is empty. Upload a file with at least one row.")
    yield from reader(path)


def number_means(filename: str) -> Literal["Line", "Row"]:
    """Say what the numbers of `read_rows` count: lines of a text with rows on lines, else rows.

    Raises InvalidInput for an extension that is not supported.
    """
    return _format(filename)[1]


def _format(filename: str) -> tuple[_Reader, Literal["Line", "Row"]]:
    extension = PurePath(filename).suffix.lower()
    if extension not in _READERS:
        *others, last = _READERS
        found = f"the extension {extension!r}" if extension else "no extension"
        raise InvalidInput(f"The file name has {found}; supported are {', '.join(others)} and {last}.")
    return _READERS[extension]
