"""What was fetched from a source."""

from dataclasses import dataclass
from pathlib import Path

from emissary.store.tables import Json


@dataclass(frozen=True)
class Fetched:
    """A file of rows, and where it is from."""

    path: Path
    file_name: str
    """What it is called as an upload; its extension tells the format where its content does not."""
    origin: Json
    """What tells the next run that it has been fetched: an ETag, a revision, keys of objects."""
