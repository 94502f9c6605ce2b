"""The artifact store in a local folder."""

import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from emissary.errors import EmissaryError
from emissary.processes import is_dead_here, process_identity
from emissary.store.artifacts import (
    CHUNK_BYTES,
    MANIFEST,
    ArtifactFile,
    ArtifactStore,
    CorruptArtifact,
    Manifest,
    Notes,
    checked_key,
    damaged_file,
    file_sha256,
    known_file,
    not_complete,
    read_manifest,
)
from emissary.store.local_parts import LocalParts

_DRAFT_SECONDS = 24 * 3600


class LocalArtifactStore(ArtifactStore):
    """A store in the folder `root`: an artifact is written to a draft, named by its publisher, and renamed."""

    def __init__(self, root: Path) -> None:
        self._root, self._drafts = root, root / ".drafts"
        self.parts: LocalParts = LocalParts(self, root / ".arriving")

    def check(self) -> None:
        """Raises EmissaryError when the folder cannot be made or written to."""
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            probe = self._root / f".{uuid.uuid4().hex}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise EmissaryError(
                f"The artifact store's folder {self._root} cannot be written to ({error.strerror}); make it "
                "writable, or name another one in EMISSARY_ARTIFACTS."
            ) from error

    def _folder(self, key: str) -> Path:
        return self._root / checked_key(key)

    def manifest(self, key: str) -> Manifest | None:
        """As `ArtifactStore.manifest`."""
        try:
            content = (self._folder(key) / MANIFEST).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return read_manifest(Manifest, key, content)

    def keys(self, prefix: str) -> list[str]:
        """As `ArtifactStore.keys`."""
        # Unlike pathlib's, this walk passes over what is deleted meanwhile.
        walk = os.walk(self._folder(prefix))
        found = (Path(folder).relative_to(self._root) for folder, _, files in walk if MANIFEST in files)
        return [path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts)]

    def publish(self, key: str, folder: Path, notes: Notes | None = None, *, move: bool = False) -> Manifest:
        """As `ArtifactStore.publish`."""
        try:
            if (existing := self.manifest(key)) is not None:
                return existing
        except CorruptArtifact:
            self.delete(key)
        target = self._folder(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = self._drafts / f"{process_identity()}.{uuid.uuid4().hex}"
        draft.mkdir(parents=True)
        try:
            files = {}
            for source in sorted(path for path in folder.rglob("*") if path.is_file()):
                name = source.relative_to(folder).as_posix()
                destination = draft / name
                destination.parent.mkdir(parents=True, exist_ok=True)
                (shutil.move if move else shutil.copyfile)(source, destination)
                flush(destination)
                files[name] = ArtifactFile(bytes=destination.stat().st_size, sha256=file_sha256(destination))
            manifest = Manifest(files=files, notes=notes or {})
            (draft / MANIFEST).write_text(manifest.model_dump_json(indent=1))
            flush(draft / MANIFEST)
            # A loss of power takes files and names that are in no folder on the disk yet.
            for folder_of_draft in (path for path in (draft, *draft.rglob("*")) if path.is_dir()):
                flush(folder_of_draft)
            try:
                draft.rename(target)
            except OSError:
                if (winner := self.manifest(key)) is not None:
                    return winner
                shutil.rmtree(target)  # what a deletion that was broken off left behind
                draft.rename(target)
            for part in checked_key(key).parents:
                with suppress(FileNotFoundError):  # it is being deleted
                    flush(self._root / part)
            return manifest
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def folder(self, key: str) -> Path:
        """As `ArtifactStore.folder`: the folder of the store itself."""
        manifest = self.manifest(key)
        if manifest is None:
            raise not_complete(key)
        folder = self._folder(key)
        if (name := damaged_file(folder, manifest)) is not None:
            raise CorruptArtifact(key, name)
        return folder

    def file(self, key: str, name: str) -> Path:
        """As `ArtifactStore.file`."""
        known_file(self.manifest(key), key, name)
        return self._folder(key) / name

    def chunks(self, key: str, name: str) -> Iterator[bytes]:
        """As `ArtifactStore.chunks`."""
        wanted = known_file(self.manifest(key), key, name)
        digest = hashlib.sha256()
        path = self._folder(key) / name
        if not path.is_file():
            raise CorruptArtifact(key, name)
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
                yield chunk
        if digest.hexdigest() != wanted.sha256:
            raise CorruptArtifact(key, name)

    def delete(self, key: str) -> None:
        """As `ArtifactStore.delete`."""
        folder = self._folder(key)
        self.parts.forget(key)
        if not folder.exists():
            return
        for manifest in list(folder.rglob(MANIFEST)):
            manifest.unlink()
        shutil.rmtree(folder)

    def clear_drafts(self) -> None:
        """As `ArtifactStore.clear_drafts`. Of other machines that share the folder, those of a day ago are removed."""
        if not self._drafts.is_dir():
            return
        for draft in self._drafts.iterdir():
            with suppress(FileNotFoundError):  # it was published meanwhile
                old = time.time() - draft.stat().st_mtime > _DRAFT_SECONDS
                if old or is_dead_here(draft.name.rpartition(".")[0]):
                    shutil.rmtree(draft, ignore_errors=True)

    def download_url(self, key: str, name: str, disposition: str, seconds: int) -> None:
        """None: the API sends files of this store itself."""


def flush(path: Path) -> None:
    """See to it that the file is on the disk, or a folder's list of what is in it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
