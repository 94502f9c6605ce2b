"""Files that come in parts, in S3: a multipart upload to where the artifact will have the file, by presigned links."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from emissary.store.artifacts import ArtifactFile, file_sha256
from emissary.store.parts import Arriving, PartStore
from emissary.store.s3_client import TRANSFER, error_code, told

if TYPE_CHECKING:
    from emissary.store.s3_artifacts import S3ArtifactStore

_DRAFT = "upload"


class S3Parts(PartStore):
    """Multipart uploads to the bucket of `store`."""

    def __init__(self, store: "S3ArtifactStore", client: Any, bucket: str) -> None:
        self._store, self._client, self._bucket = store, client, bucket

    def _object(self, arriving: Arriving) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._store.object_key(arriving.key, _DRAFT, arriving.file)}

    def _upload(self, arriving: Arriving) -> dict[str, str]:
        return self._object(arriving) | {"UploadId": arriving.state["upload_id"]}

    def begin(self, key: str, file: str) -> dict[str, str]:
        """As `PartStore.begin`."""
        target = self._object(Arriving(key, file, 0, 1, {}))
        with told(self._client, self._bucket):
            return {"upload_id": str(self._client.create_multipart_upload(**target)["UploadId"])}

    def url(self, arriving: Arriving, number: int, seconds: int) -> str:
        """As `PartStore.url`: a presigned PUT of exactly the part's size."""
        wanted = {"PartNumber": number, "ContentLength": arriving.size(number)}
        with told(self._client, self._bucket):
            return str(
                self._client.generate_presigned_url(
                    "upload_part", Params=self._upload(arriving) | wanted, ExpiresIn=seconds
                )
            )

    def arrived(self, arriving: Arriving) -> set[int]:
        """As `PartStore.arrived`."""
        return set(self._etags(arriving))

    def _etags(self, arriving: Arriving) -> dict[int, str]:
        """Number → what S3 calls the part, of those in full size. All when the upload was completed already."""
        etags = {}
        with told(self._client, self._bucket):
            try:
                for page in self._client.get_paginator("list_parts").paginate(**self._upload(arriving)):
                    for part in page.get("Parts", []):
                        number = part["PartNumber"]
                        if number in arriving.numbers and part["Size"] == arriving.size(number):
                            etags[number] = part["ETag"]
            except ClientError as error:
                if error_code(error) != "NoSuchUpload":
                    raise
                return dict.fromkeys(arriving.numbers, "") if self._is_whole(arriving) else {}
        return etags

    def _is_whole(self, arriving: Arriving) -> bool:
        try:
            size = self._client.head_object(**self._object(arriving))["ContentLength"]
        except ClientError as error:
            if error_code(error) in ("NoSuchKey", "404"):
                return False
            raise
        return bool(size == arriving.bytes)

    @contextmanager
    def assembled(self, arriving: Arriving) -> Iterator[Path]:
        """As `PartStore.assembled`: S3 puts the parts together, and the whole is downloaded."""
        etags = self._etags(arriving)
        if any(etags.values()):
            parts = [{"PartNumber": number, "ETag": etags[number]} for number in arriving.numbers]
            with told(self._client, self._bucket):
                self._client.complete_multipart_upload(**self._upload(arriving), MultipartUpload={"Parts": parts})
        folder = self._store.copies.root
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".upload-", dir=folder) as scratch:
            path = Path(scratch) / arriving.file
            target = self._object(arriving)
            with told(self._client, self._bucket):
                self._client.download_file(target["Bucket"], target["Key"], str(path), Config=TRANSFER)
            yield path

    def publish(self, arriving: Arriving, path: Path, notes: dict[str, str | int | float | None]) -> None:
        """As `PartStore.publish`: the file is where it belongs already, so only the manifest is missing."""
        file = ArtifactFile(bytes=path.stat().st_size, sha256=file_sha256(path))
        self._store.put_manifest(arriving.key, _DRAFT, {arriving.file: file}, notes)

    def forget(self, folder: str) -> None:
        """Abort all multipart uploads to below `folder` of the bucket."""
        with told(self._client, self._bucket):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._bucket, Prefix=f"{folder}/"
            )
            for upload in (each for page in pages for each in page.get("Uploads", [])):
                with suppress(self._client.exceptions.NoSuchUpload):
                    self._client.abort_multipart_upload(
                        Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                    )
