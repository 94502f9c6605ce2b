"""The artifact store: folders of files that steps hand to each other.

An artifact is published whole under a key such as `training-jobs/tr-…/checkpoints/1`: its files first, `manifest.json`
last. A manifest means complete; without one there is nothing.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from pydantic import BaseModel

from emissary.errors import EmissaryError, NotFound
from emissary.settings import settings

_MANIFEST = "manifest.json"


class ArtifactFile(BaseModel):
    """One file of an artifact."""

    bytes: int
    sha256: str


class Manifest(BaseModel):
    """What an artifact consists of: relative path → size and checksum, and what its maker noted."""

    files: dict[str, ArtifactFile]
    notes: dict[str, str | int | float | None] = {}


class CorruptArtifact(EmissaryError):
    """A file of the store is not what its manifest says."""

    code = "corrupt_artifact"


class ArtifactStore:
    """A store in a local folder `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def _folder(self, key: str) -> Path:
        path = PurePosixPath(key)
        if path.is_absolute() or not path.parts or any(part in ("..", ".") for part in key.split("/")):
            raise ValueError(f"{key!r} is not an artifact key")
        return self._root / path

    def manifest(self, key: str) -> Manifest | None:
        """The manifest of the artifact, or None when it is not complete."""
        try:
            return Manifest.model_validate_json((self._folder(key) / _MANIFEST).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None

    def publish(
        self, key: str, folder: Path, notes: dict[str, str | int | float | None] | None = None, *, move: bool = False
    ) -> Manifest:
        """Publish all files below `folder` as the artifact `key`; `move` gives the files away instead of copying.

        Publishing what is complete already changes nothing: the first publisher wins.
        """
        if (existing := self.manifest(key)) is not None:
            return existing
        target = self._folder(key)
        draft = target.parent / f".{target.name}.{uuid.uuid4().hex}"
        draft.mkdir(parents=True)
        try:
            files = {}
            for source in sorted(path for path in folder.rglob("*") if path.is_file()):
                name = source.relative_to(folder).as_posix()
                destination = draft / name
                destination.parent.mkdir(parents=True, exist_ok=True)
                (shutil.move if move else shutil.copyfile)(source, destination)
                _flush(destination)
                files[name] = ArtifactFile(bytes=destination.stat().st_size, sha256=_sha256(destination))
            manifest = Manifest(files=files, notes=notes or {})
            (draft / _MANIFEST).write_text(manifest.model_dump_json(indent=1))
            _flush(draft / _MANIFEST)
            try:
                draft.rename(target)
            except OSError:
                if (winner := self.manifest(key)) is not None:
                    return winner
                shutil.rmtree(target)  # what a deletion that was broken off left behind
                draft.rename(target)
            return manifest
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def folder(self, key: str) -> Path:
        """A local folder with the artifact's files, checked against their checksums.

        Raises NotFound when it is not complete, CorruptArtifact when a file is not what was published.
        """
        manifest = self.manifest(key)
        if manifest is None:
            raise NotFound(f"The artifact {key} is not in the store, or not complete.")
        folder = self._folder(key)
        for name, file in manifest.files.items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != file.bytes or _sha256(path) != file.sha256:
                raise CorruptArtifact(f"The file {name} of the artifact {key} is damaged; restore it or make it again.")
        return folder

    def file(self, key: str, name: str) -> Path:
        """A local path of one file of a complete artifact. Raises NotFound."""
        manifest = self.manifest(key)
        if manifest is None or name not in manifest.files:
            raise NotFound(f"There is no file {name} in the artifact {key}.")
        return self._folder(key) / name

    def delete(self, key: str) -> None:
        """Remove the artifact, or everything below a prefix of keys; the manifests go first."""
        folder = self._folder(key)
        if not folder.exists():
            return
        for manifest in _manifests(folder):
            manifest.unlink()
        shutil.rmtree(folder)


def artifact_store() -> ArtifactStore:
    """The store that EMISSARY_ARTIFACTS names."""
    return ArtifactStore(settings().artifacts_folder)


def _manifests(folder: Path) -> Iterable[Path]:
    return list(folder.rglob(_MANIFEST))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sealed_notes(notes: object) -> str:
    """A checksum of JSON-like settings, to make keys that depend on content."""
    return hashlib.sha256(json.dumps(notes, sort_keys=True, default=str).encode()).hexdigest()[:32]
