"""The artifact store: folders of files that steps hand to each other.

An artifact is published whole under a key such as `training-jobs/tr-…/checkpoints/1`: its files first, `manifest.json`
last. A manifest means complete; without one there is nothing. Stores work synchronously: call them in a thread.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from emissary.errors import EmissaryError, NotFound
from emissary.settings import Settings, settings
from emissary.store.parts import PartStore

MANIFEST = "manifest.json"
CHUNK_BYTES = 1024 * 1024
Notes = dict[str, str | int | float | None]


class ArtifactFile(BaseModel):
    """One file of an artifact."""

    bytes: int
    sha256: str


class Manifest(BaseModel):
    """What an artifact consists of: relative path → size and checksum, and what its maker noted."""

    files: dict[str, ArtifactFile]
    notes: Notes = {}


ManifestT = TypeVar("ManifestT", bound=Manifest)


class CorruptArtifact(EmissaryError):
    """A file of the store is not what its manifest says."""

    code = "corrupt_artifact"

    def __init__(self, key: str, name: str) -> None:
        super().__init__(f"The file {name} of the artifact {key} is damaged; restore it or make it again.")


class ArtifactStore(ABC):
    """Where artifacts are kept. All methods raise ValueError for a key that is none, Unavailable without the store."""

    parts: PartStore
    """The store's files that come in parts."""

    @abstractmethod
    def check(self) -> None:
        """Raises EmissaryError saying what to do when the store cannot be used."""

    @abstractmethod
    def manifest(self, key: str) -> Manifest | None:
        """The manifest of the artifact, or None when it is not complete. Raises CorruptArtifact when it is damaged."""

    @abstractmethod
    def keys(self, prefix: str) -> list[str]:
        """The keys below the folder `prefix` of artifacts that are complete, in no order."""

    @abstractmethod
    def publish(self, key: str, folder: Path, notes: Notes | None = None, *, move: bool = False) -> Manifest:
        """Publish all files below `folder` as the artifact `key`; `move` gives the files away instead of copying.

        Publishing what is complete already changes nothing: the first publisher wins, and its manifest is returned. An
        artifact whose manifest is damaged is replaced.
        """

    @abstractmethod
    def folder(self, key: str) -> Path:
        """A local folder with the artifact's files, checked against their checksums; not to be written to.

        Raises NotFound when it is not complete, CorruptArtifact when a file is not what was published.
        """

    @abstractmethod
    def file(self, key: str, name: str) -> Path:
        """A local path of one file of a complete artifact. Raises NotFound."""

    @abstractmethod
    def chunks(self, key: str, name: str) -> Iterator[bytes]:
        """The file in pieces of at most `CHUNK_BYTES`. Raises NotFound; CorruptArtifact behind the last piece."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove the artifact, or everything below a prefix of keys, also parts; the manifests go first."""

    @abstractmethod
    def clear_drafts(self) -> None:
        """Remove what publishers left that were killed, where the store can tell that they are dead."""

    @abstractmethod
    def download_url(self, key: str, name: str, disposition: str, seconds: int) -> str | None:
        """A link to one file at the store itself; None where the store has none to give.

        It works for `seconds` and answers with the Content-Disposition `disposition`. Raises NotFound.
        """


def artifact_store() -> ArtifactStore:
    """The store that EMISSARY_ARTIFACTS names."""
    return open_store(settings())


def open_store(chosen: Settings) -> ArtifactStore:
    """The store that these settings name."""
    if chosen.artifacts is not None and chosen.artifacts.startswith("s3://"):
        return _s3_store(chosen.artifacts, chosen.home / "cache" / "artifacts")
    from emissary.store.local_artifacts import LocalArtifactStore

    return LocalArtifactStore(Path(chosen.artifacts) if chosen.artifacts else chosen.home / "artifacts")


@lru_cache
def _s3_store(address: str, cache: Path) -> ArtifactStore:
    # boto3 takes half a second to import, which only those pay who use it.
    from emissary.store import s3_client
    from emissary.store.s3_artifacts import S3ArtifactStore

    bucket, _, prefix = address.removeprefix("s3://").partition("/")
    return S3ArtifactStore(s3_client.connect(), bucket, prefix.strip("/"), cache)


def read_manifest(kind: type[ManifestT], key: str, content: bytes) -> ManifestT:
    """The manifest of `key` in `content`. Raises CorruptArtifact."""
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        raise CorruptArtifact(key, MANIFEST) from error


def checked_key(key: str) -> PurePosixPath:
    """The key as a relative path. Raises ValueError when it is none or leaves the store."""
    path = PurePosixPath(key)
    if path.is_absolute() or not path.parts or any(part in ("..", ".") for part in key.split("/")):
        raise ValueError(f"{key!r} is not an artifact key")
    return path


def not_complete(key: str) -> NotFound:
    """The error for an artifact that is not there."""
    return NotFound(f"The artifact {key} is not in the store, or not complete.")


def known_file(manifest: Manifest | None, key: str, name: str) -> ArtifactFile:
    """The file `name` of the manifest of `key`. Raises NotFound."""
    if manifest is None or name not in manifest.files:
        raise NotFound(f"There is no file {name} in the artifact {key}.")
    return manifest.files[name]


def damaged_file(folder: Path, manifest: Manifest) -> str | None:
    """The first file of the manifest that is not in `folder` as it should be; None when all are."""
    for name, file in manifest.files.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != file.bytes or file_sha256(path) != file.sha256:
            return name
    return None


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sealed_notes(notes: object) -> str:
    """A checksum of JSON-like settings, to make keys that depend on content."""
    return hashlib.sha256(json.dumps(notes, sort_keys=True, default=str).encode()).hexdigest()[:32]
