"""Objects below a prefix in S3: those that are new, or those that are named."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from emissary.data import formats
from emissary.data.normalise import normalise, read_normalised
from emissary.data.row_files import write_once
from emissary.data.rows import TaskType
from emissary.data.validation import validate
from emissary.errors import EmissaryError, InvalidInput, Unavailable
from emissary.schemas.sources import S3Source
from emissary.settings import settings
from emissary.sources import connections
from emissary.sources.connections import S3Connection
from emissary.sources.fetched import Fetched
from emissary.store.s3_client import REFUSED, client_of, error_code
from emissary.store.tables import Json

MOST_OBJECTS = 1000
"""Of a run; those behind are the next run's."""
_MIB = 1024 * 1024
_MISSING = ("NoSuchBucket", "NoSuchKey", "404")


@dataclass(frozen=True, order=True)
class _Object:
    changed_at: datetime
    key: str
    etag: str
    bytes: int


def check(source: S3Source, organization: str) -> None:
    """Raises InvalidInput where the organization has no such connection, or the bucket is not there or not open to it;
    Unavailable where S3 does not answer.
    """
    with _bucket(source, organization) as (client, bucket, prefix):
        client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)


def fetch(
    source: S3Source,
    organization: str,
    known: Sequence[Json],
    task_type: TaskType,
    folder: Path,
    objects: Sequence[str] | None = None,
) -> Fetched | None:
    """The new objects as one file in `folder`: of a single one the object itself, of several their rows, each once.

    An object is new where none of `known` had its key and ETag. They are taken by age, at most a thousand, and as many
    as EMISSARY_MAX_LARGE_UPLOAD_MB has room for. With keys in `objects` it is all of these, new or not. One that is
    empty, or whose name says no format of a dataset, is passed over. None where none is left.

    Raises as `check`, and InvalidInput, naming the object, for one that is too large, has changed while it was read,
    has rows that do not fit the task type, or was named and is not there.
    """
    with _bucket(source, organization) as (client, bucket, prefix):
        if objects is None:
            had = {tuple(entry) for origin in known if origin.get("bucket") == bucket for entry in origin["objects"]}
            taken = _that_fit([each for each in _listed(client, bucket, prefix) if (each.key, each.etag) not in had])
        else:
            taken = _named(client, bucket, prefix, objects)
        if not taken:
            return None
        files = [_downloaded(client, bucket, each, folder / str(place)) for place, each in enumerate(taken)]
    origin = {"bucket": bucket, "objects": [[each.key, each.etag] for each in taken]}
    if len(taken) == 1:
        return Fetched(files[0], PurePosixPath(taken[0].key).name, origin)
    path = folder / "fetched"
    most_bytes = settings().max_large_upload_mb * _MIB
    write_once(_rows(bucket, list(zip(taken, files, strict=True)), task_type), task_type, path, most_bytes)
    return Fetched(path, "objects.jsonl", origin)


def _listed(client: Any, bucket: str, prefix: str) -> list[_Object]:
    """The objects that may be datasets, the oldest first."""
    found = []
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for entry in page.get("Contents", []):
            found.append(_Object(entry["LastModified"], entry["Key"], entry["ETag"], entry["Size"]))
    return sorted(filter(_is_data, found))


def _named(client: Any, bucket: str, prefix: str, keys: Sequence[str]) -> list[_Object]:
    """The objects of these keys that may be datasets, the oldest first."""
    found = []
    for key in keys:
        if not key.startswith(prefix):
            raise InvalidInput(f"objects: {key!r} is not within s3://{bucket}/{prefix}; name one that is.")
        try:
            head = client.head_object(Bucket=bucket, Key=key)
        except ClientError as error:
            if error_code(error) in _MISSING:
                raise InvalidInput(
                    f"objects: there is no object s3://{bucket}/{key}; name one that is there."
                ) from error
            raise
        found.append(_Object(head["LastModified"], key, head["ETag"], head["ContentLength"]))
    wanted = sorted(filter(_is_data, found))
    taken = _that_fit(wanted)
    if len(taken) < len(wanted):
        raise InvalidInput(
            f"objects: together they are larger than the limit of {settings().max_large_upload_mb} MiB "
            "(EMISSARY_MAX_LARGE_UPLOAD_MB); name fewer for a run."
        )
    return taken


def _is_data(found: _Object) -> bool:
    return found.bytes > 0 and _says_a_format(found.key)


def _says_a_format(key: str) -> bool:
    try:
        formats.named(key)
    except InvalidInput:
        return False
    return True


def _that_fit(new: Sequence[_Object]) -> list[_Object]:
    most, taken = settings().max_large_upload_mb, 0
    fitting = []
    for each in new[:MOST_OBJECTS]:
        if each.bytes > most * _MIB:
            raise InvalidInput(
                f"gather.uri: the object {each.key} is larger than the limit of {most} MiB "
                "(EMISSARY_MAX_LARGE_UPLOAD_MB); split it."
            )
        taken += each.bytes
        if taken > most * _MIB:
            break
        fitting.append(each)
    return fitting


def _downloaded(client: Any, bucket: str, wanted: _Object, path: Path) -> Path:
    try:
        body = client.get_object(Bucket=bucket, Key=wanted.key, IfMatch=wanted.etag)["Body"]
        with path.open("wb") as file:
            for chunk in body.iter_chunks(_MIB):
                file.write(chunk)
    except ClientError as error:
        if error_code(error) in (*_MISSING, "PreconditionFailed", "412"):
            raise InvalidInput(
                f"gather.uri: the object {wanted.key} was changed or removed just now; run again."
            ) from error
        raise
    return path


def _rows(bucket: str, files: Sequence[tuple[_Object, Path]], task_type: TaskType) -> Iterator[dict[str, Any]]:
    most = settings().max_large_upload_mb * _MIB
    for each, path in files:
        name = PurePosixPath(each.key).name
        try:
            report = validate(path, name, most_bytes=most)
        except InvalidInput as error:
            raise InvalidInput(
                f"gather.uri: the object s3://{bucket}/{each.key} cannot be used. {error}", details=error.details
            ) from error
        if task_type not in report.compatible_task_types:
            reason = report.misfits.get(task_type, "")
            raise InvalidInput(
                f"gather.uri: the object s3://{bucket}/{each.key} does not fit {task_type}. {reason}".rstrip()
            )
        rows = path.with_suffix(".parquet")
        normalise(path, name, rows)
        path.unlink()
        yield from read_normalised(rows)
        rows.unlink()


@contextmanager
def _bucket(source: S3Source, organization: str) -> Iterator[tuple[Any, str, str]]:
    """A client, the bucket and the prefix; what boto3 raises in the block becomes a sentence."""
    connection = connections.s3_connection(source.uri, organization)
    bucket, _, prefix = source.uri.removeprefix("s3://").partition("/")
    if prefix and source.uri.rstrip("/") == connection.s3.rstrip("/"):
        prefix = f"{prefix.rstrip('/')}/"  # without it neighbours that begin with the same letters would be listed too
    try:
        yield _client(connection), bucket, prefix
    except ClientError as error:
        raise _refusal(source.uri, error) from error
    except (BotoCoreError, ValueError) as error:
        raise Unavailable(
            f"gather.uri: the server of {source.uri} cannot be asked ({type(error).__name__}); have the operator see "
            "that it runs and that EMISSARY_SOURCES is right, then try again."
        ) from error


def _client(connection: S3Connection) -> Any:
    key, secret = connection.access_key_id, connection.secret_access_key
    session = boto3.Session(
        aws_access_key_id=key and key.get_secret_value(),
        aws_secret_access_key=secret and secret.get_secret_value(),
        region_name=connection.region,
    )
    return client_of(session, connection.endpoint_url)


def _refusal(uri: str, error: ClientError) -> EmissaryError:
    code = error_code(error)
    if code in _MISSING:
        return InvalidInput(f"gather.uri: {uri} is not there ({code}); put it back, or change the pipeline.")
    if code in REFUSED:
        return InvalidInput(
            f"gather.uri: S3 refuses access to {uri} ({code}); have the operator give its connection in "
            "EMISSARY_SOURCES a key that may list and read there."
        )
    return Unavailable(f"gather.uri: S3 answered {code} for {uri}; try again later.")
