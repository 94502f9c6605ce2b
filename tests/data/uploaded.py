"""The rows of an uploaded file as its reader found them."""

from pathlib import Path
from typing import Any

from emissary.data.reading import read
from emissary.errors import InvalidInput


def uploaded_rows(path: Path, name: str) -> list[tuple[int, dict[str, Any]]]:
    """Every row with its number; raises InvalidInput for the first line that holds none."""
    found = []
    for chunk in read(path, name):
        rows = [(int(number), chunk.row(index)) for index, number in enumerate(chunk.numbers)]
        for number, row in sorted([*rows, *chunk.unusable], key=lambda entry: entry[0]):
            if isinstance(row, str):
                raise InvalidInput(f"{chunk.number_means} {number}: {row}.")
            found.append((number, row))
    return found
