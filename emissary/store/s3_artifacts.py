"""The artifact store in a bucket of S3, or of a server that speaks its protocol.

The files of an artifact are at `<prefix>/<key>/<draft>/…`, where each publisher has a draft of its own; the one whose
`<prefix>/<key>/manifest.json` is accepted (a conditional put) has published. What steps read is downloaded to a cache.
"""

import hashlib
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from botocore.exceptions import ClientError

from emissary.errors import EmissaryError, Unavailable
from emissary.store.artifacts import (
    CHUNK_BYTES,
    MANIFEST,
    ArtifactFile,
    ArtifactStore,
    CorruptArtifact,
    Manifest,
    Notes,
    checked_key,
    file_sha256,
    known_file,
    not_complete,
    read_manifest,
)
from emissary.store.local_copies import LocalCopies
from emissary.store.s3_client import TRANSFER, error_code, told
from emissary.store.s3_parts import S3Parts

_MISSING = ("NoSuchKey", "404")
_RACE_LOST = ("PreconditionFailed", "ConditionalRequestConflict")


def _is_draft(name: str) -> bool:
    """Whether a key, from its artifact's on, is of a file of a draft: `uuid4().hex` and the file's name."""
    return re.match(r"[0-9a-f]{32}/", name) is not None


class _Published(Manifest):
    draft: str
    """The folder below the key that has the files."""


class S3ArtifactStore(ArtifactStore):
    """A store in `bucket` below `prefix` (which may be empty), by a boto3 `client`; `cache` is a local folder."""

    def __init__(self, client: Any, bucket: str, prefix: str, cache: Path) -> None:
        self._client, self._bucket, self._prefix = client, bucket, prefix
        self.copies = LocalCopies(cache / quote(f"{bucket}/{prefix}", safe=""))
        self.parts: S3Parts = S3Parts(self, client, bucket)
        # An artifact never changes, so links to it need its manifest only once.
        self._manifest_for_links = lru_cache(4096)(self._required)

    def object_key(self, key: str, *parts: str) -> str:
        """The key in the bucket of a part of the artifact `key`."""
        return "/".join(part for part in (self._prefix, str(checked_key(key)), *parts) if part)

    def check(self) -> None:
        """Raises EmissaryError when the bucket is missing, out of reach, or not to be written to."""
        probe = self.object_key(f".probe-{uuid.uuid4().hex}")
        with told(self._client, self._bucket):
            self._client.head_bucket(Bucket=self._bucket)
            self._client.put_object(Bucket=self._bucket, Key=probe, Body=b"")
            self._client.delete_object(Bucket=self._bucket, Key=probe)

    def manifest(self, key: str) -> Manifest | None:
        """As `ArtifactStore.manifest`."""
        found = self._read_manifest(key)
        return found and found[0]

    def _read_manifest(self, key: str) -> tuple[_Published, str] | None:
        """The manifest and its checksum."""
        name = self.object_key(key, MANIFEST)
        with told(self._client, self._bucket):
            try:
                content: bytes = self._client.get_object(Bucket=self._bucket, Key=name)["Body"].read()
            except ClientError as error:
                if error_code(error) in _MISSING:
                    return None
                raise
        return read_manifest(_Published, key, content), hashlib.sha256(content).hexdigest()

    def keys(self, prefix: str) -> list[str]:
        """As `ArtifactStore.keys`."""
        root = f"{self._prefix}/" if self._prefix else ""
        found = self._objects_below(self.object_key(prefix))
        return [
            name[len(root) : -len(MANIFEST) - 1] for page in found for name in page if name.endswith(f"/{MANIFEST}")
        ]

    def _required(self, key: str) -> _Published:
        if (found := self._read_manifest(key)) is None:
            raise not_complete(key)
        return found[0]

    def publish(self, key: str, folder: Path, notes: Notes | None = None, *, move: bool = False) -> Manifest:
        """As `ArtifactStore.publish`. Files above 8 MiB go in parts, each with a checksum that the server verifies."""
        try:
            if (existing := self.manifest(key)) is not None:
                return existing
        except CorruptArtifact:
            self.delete(key)
        draft = uuid.uuid4().hex
        sources = sorted(path for path in folder.rglob("*") if path.is_file())
        files = {}
        try:
            for source in sources:
                name = source.relative_to(folder).as_posix()
                files[name] = ArtifactFile(bytes=source.stat().st_size, sha256=file_sha256(source))
                with told(self._client, self._bucket):
                    target = self.object_key(key, draft, name)
                    self._client.upload_file(str(source), self._bucket, target, Config=TRANSFER)
            manifest = self.put_manifest(key, draft, files, notes or {})
        except BaseException:
            with suppress(EmissaryError):
                self._delete_below(self.object_key(key, draft))
            raise
        if manifest.draft == draft:
            with suppress(EmissaryError):
                self._delete_below(self.object_key(key), lambda name: _is_draft(name) and not name.startswith(draft))
        if move:
            for source in sources:
                source.unlink()
        return manifest

    def clear_drafts(self) -> None:
        """As `ArtifactStore.clear_drafts`: nothing, for here a draft lies below its key. Who publishes that key after
        all removes it, as does who deletes it.
        """

    def put_manifest(self, key: str, draft: str, files: dict[str, ArtifactFile], notes: Notes) -> _Published:
        """Publish the files of a draft. When another was first, its manifest is returned and the draft removed."""
        mine = _Published(files=files, notes=notes, draft=draft)
        with told(self._client, self._bucket):
            try:
                self._client.put_object(
                    Bucket=self._bucket,
                    Key=self.object_key(key, MANIFEST),
                    Body=mine.model_dump_json(indent=1).encode(),
                    ContentType="application/json",
                    IfNoneMatch="*",
                )
                return mine
            except ClientError as error:
                if error_code(error) not in _RACE_LOST:
                    raise
        winner = self._read_manifest(key)
        if winner is None:
            raise Unavailable(f"The artifact {key} was published and removed at the same moment; try again.")
        if winner[0].draft != draft:  # else a put that seemed lost had arrived, and was sent again
            self._delete_below(self.object_key(key, draft))
        return winner[0]

    def folder(self, key: str) -> Path:
        """As `ArtifactStore.folder`: a copy on this machine, downloaded when there is none yet."""
        found = self._read_manifest(key)
        if found is None:
            raise not_complete(key)
        manifest, checksum = found

        def download(name: str, path: Path) -> None:
            source = self.object_key(key, manifest.draft, name)
            with told(self._client, self._bucket):
                try:
                    self._client.download_file(self._bucket, source, str(path), Config=TRANSFER)
                except ClientError as error:
                    if error_code(error) in _MISSING:
                        raise CorruptArtifact(key, name) from error
                    raise

        return self.copies.get(key, manifest, checksum, download)

    def file(self, key: str, name: str) -> Path:
        """As `ArtifactStore.file`."""
        known_file(self.manifest(key), key, name)
        return self.folder(key) / name

    def chunks(self, key: str, name: str) -> Iterator[bytes]:
        """As `ArtifactStore.chunks`."""
        manifest = self._required(key)
        wanted = known_file(manifest, key, name)
        digest = hashlib.sha256()
        with told(self._client, self._bucket):
            source = self.object_key(key, manifest.draft, name)
            try:
                body = self._client.get_object(Bucket=self._bucket, Key=source)["Body"]
            except ClientError as error:
                if error_code(error) in _MISSING:
                    raise CorruptArtifact(key, name) from error
                raise
            for chunk in body.iter_chunks(CHUNK_BYTES):
                digest.update(chunk)
                yield chunk
        if digest.hexdigest() != wanted.sha256:
            raise CorruptArtifact(key, name)

    def delete(self, key: str) -> None:
        """As `ArtifactStore.delete`, and its copy on this machine."""
        everything = self.object_key(key)
        self._delete_below(everything, lambda name: f"/{name}".endswith(f"/{MANIFEST}"))
        self.parts.forget(everything)
        self._delete_below(everything)
        self.copies.forget(key)

    def _delete_below(self, folder: str, wanted: Callable[[str], bool] = bool) -> None:
        """Delete the objects below `folder` whose keys from there on are `wanted`, up to 1,000 by a request."""
        with told(self._client, self._bucket):
            for page in self._objects_below(folder):
                found = [{"Key": name} for name in page if wanted(name.removeprefix(f"{folder}/"))]
                if found:
                    answer = self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": found, "Quiet": True})
                    for error in answer.get("Errors", []):
                        raise ClientError({"Error": error}, "DeleteObjects")

    def _objects_below(self, folder: str) -> Iterator[list[str]]:
        """The keys of the objects below `folder`, up to 1,000 at a time."""
        with told(self._client, self._bucket):
            pages: Iterable[Any] = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=f"{folder}/"
            )
            for page in pages:
                yield [entry["Key"] for entry in page.get("Contents", [])]

    def download_url(self, key: str, name: str, disposition: str, seconds: int) -> str:
        """As `ArtifactStore.download_url`: a presigned GET."""
        manifest = self._manifest_for_links(key)
        known_file(manifest, key, name)
        with told(self._client, self._bucket):
            return str(
                self._client.generate_presigned_url(
                    "get_object",
                    Params={
                        "Bucket": self._bucket,
                        "Key": self.object_key(key, manifest.draft, name),
                        "ResponseContentDisposition": disposition,
                        "ResponseContentType": "application/octet-stream",
                    },
                    ExpiresIn=seconds,
                )
            )
