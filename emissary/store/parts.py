"""Files that are too large for one request: they come in parts and become an artifact when all are here."""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Arriving:
    """A file that comes in parts, to be the only `file` of the artifact `key`."""

    key: str
    file: str
    bytes: int
    part_bytes: int
    state: dict[str, str]
    """What the store noted when the upload began."""

    @property
    def numbers(self) -> range:
        """The numbers of its parts, from 1."""
        return range(1, -(-self.bytes // self.part_bytes) + 1)

    def size(self, number: int) -> int:
        """Bytes of part `number`; all but the last are `part_bytes` long."""
        return min(self.part_bytes, self.bytes - (number - 1) * self.part_bytes)


class PartStore(ABC):
    """Where parts are kept until the file is complete; deleting the artifact deletes them. Call it in a thread."""

    @abstractmethod
    def begin(self, key: str, file: str) -> dict[str, str]:
        """Begin the file `file` of the artifact `key`; returns the `state` of its `Arriving`."""

    @abstractmethod
    def url(self, arriving: Arriving, number: int, seconds: int) -> str | None:
        """Where to PUT a part at the store itself, for `seconds`; None where it comes by way of the API."""

    @abstractmethod
    def arrived(self, arriving: Arriving) -> set[int]:
        """The numbers of the parts that are here in full size."""

    @abstractmethod
    def assembled(self, arriving: Arriving) -> AbstractContextManager[Path]:
        """The whole file on this machine while the block runs. All parts must have arrived."""

    @abstractmethod
    def publish(self, arriving: Arriving, path: Path, notes: dict[str, str | int | float | None]) -> None:
        """Publish what `assembled` gave as the artifact; the first publisher wins. The parts are gone then."""
