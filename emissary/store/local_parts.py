"""Files that come in parts, in the local store: each part a file of its own until all are here."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from emissary.errors import NotFound
from emissary.store.parts import Arriving, PartStore

if TYPE_CHECKING:
    from emissary.store.local_artifacts import LocalArtifactStore

_CHUNK_BYTES = 1024 * 1024


class LocalParts(PartStore):
    """Parts in the folder `root`, on the disk of `store`; the API writes them."""

    def __init__(self, store: "LocalArtifactStore", root: Path) -> None:
        self._store, self._root = store, root

    def folder(self, arriving: Arriving) -> Path:
        """Where parts are written. Raises NotFound when the upload was given up or is complete."""
        folder = self._root / arriving.key
        if not folder.is_dir():
            raise NotFound("The upload was given up or is complete; begin a new one.")
        return folder

    def keep(self, arriving: Arriving, number: int, draft: Path) -> None:
        """Make a file that was written in `folder` the part `number`, in place of one that came before."""
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.rename(_part(self.folder(arriving), number))

    def begin(self, key: str, file: str) -> dict[str, str]:  # noqa: ARG002
        """As `PartStore.begin`."""
        (self._root / key).mkdir(parents=True)
        return {}

    def url(self, arriving: Arriving, number: int, seconds: int) -> None:
        """None: parts come by way of the API."""

    def arrived(self, arriving: Arriving) -> set[int]:
        """As `PartStore.arrived`."""
        folder = self._root / arriving.key
        return {number for number in arriving.numbers if _part(folder, number).is_file()}

    @contextmanager
    def assembled(self, arriving: Arriving) -> Iterator[Path]:
        """As `PartStore.assembled`."""
        folder = self.folder(arriving)
        draft = folder / uuid.uuid4().hex
        draft.mkdir()
        try:
            whole = draft / arriving.file
            with whole.open("wb") as target:
                for number in arriving.numbers:
                    with _part(folder, number).open("rb") as part:
                        shutil.copyfileobj(part, target, _CHUNK_BYTES)
            yield whole
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def publish(self, arriving: Arriving, path: Path, notes: dict[str, str | int | float | None]) -> None:
        """As `PartStore.publish`."""
        self._store.publish(arriving.key, path.parent, notes, move=True)
        self.forget(arriving.key)

    def forget(self, key: str) -> None:
        """Remove the parts of all files of artifacts at or below `key`."""
        shutil.rmtree(self._root / key, ignore_errors=True)


def _part(folder: Path, number: int) -> Path:
    return folder / f"part-{number}"
