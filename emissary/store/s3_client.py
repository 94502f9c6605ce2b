"""The connection to S3, and what its errors mean in words."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from boto3.exceptions import RetriesExceededError, S3UploadFailedError
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
)

from emissary.errors import EmissaryError, Unavailable

# 4 parts of 8 MiB on their way at most, and a queue of 16 MiB to the disk.
TRANSFER = TransferConfig(max_concurrency=4, max_io_queue=64)
_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, ProfileNotFound)
REFUSED = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "403")
_KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE)"


class ArtifactStoreError(EmissaryError):
    """The S3 store is not set up as it must be."""

    code = "artifact_store"


def connect() -> Any:
    """An S3 client by the usual AWS variables and files (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, …)."""
    with _sentences("", ""):
        return client_of(boto3.Session())


def client_of(session: boto3.Session, endpoint_url: str | None = None) -> Any:
    """An S3 client of the session, for `endpoint_url` where one is given. Raises as boto3 does."""
    client = session.client("s3", endpoint_url=endpoint_url, config=_config())
    if "amazonaws.com" in client.meta.endpoint_url:
        return client
    # Servers other than Amazon's seldom have a host name per bucket.
    return session.client("s3", endpoint_url=endpoint_url, config=_config(s3={"addressing_style": "path"}))


def _config(**more: Any) -> Config:
    # Presigned links would have the signature of 2006 otherwise, which does not cover the size of a part.
    return Config(
        signature_version="s3v4",
        connect_timeout=5,
        read_timeout=60,
        retries={"mode": "standard", "max_attempts": 4},
        **more,
    )


def error_code(error: ClientError) -> str:
    """S3's word for what is wrong, such as `NoSuchKey`; the HTTP status where it has none."""
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def told(client: Any, bucket: str) -> Iterator[None]:
    """Turns what boto3 raises in the block into errors that name the bucket and say what to set."""
    with _sentences(f"the bucket {bucket!r}", f" at {client.meta.endpoint_url}"):
        yield


@contextmanager
def _sentences(bucket: str, where: str) -> Iterator[None]:
    try:
        yield
    except _CREDENTIALS as error:
        raise ArtifactStoreError(
            f"EMISSARY_ARTIFACTS is on S3, but there are no credentials ({error}); set {_KEYS}."
        ) from error
    except ClientError as error:
        raise _sentence(error, bucket, where) from error
    except S3UploadFailedError as error:
        cause = error.__context__
        raise (_sentence(cause, bucket, where) if isinstance(cause, ClientError) else _away(error, where)) from error
    except (BotoCoreError, RetriesExceededError) as error:
        raise _away(error, where) from error


def _sentence(error: ClientError, bucket: str, where: str) -> EmissaryError:
    code = error_code(error)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code == "NoSuchBucket" or (code == "404" and error.operation_name == "HeadBucket"):
        return ArtifactStoreError(
            f"EMISSARY_ARTIFACTS: {bucket} does not exist{where}; create it, name another one, or set "
            "AWS_ENDPOINT_URL to the server that has it."
        )
    if code in REFUSED:
        return ArtifactStoreError(
            f"S3{where} refuses access to {bucket} ({code}); set {_KEYS} to ones that may read, write, list and "
            "delete in it."
        )
    if status >= 500 or code in ("SlowDown", "RequestTimeout"):
        return _away(error, where)
    return ArtifactStoreError(f"S3{where} answered {code} to {error.operation_name} on {bucket}: {error}.")


def _away(error: Exception, where: str) -> EmissaryError:
    return Unavailable(
        f"The artifact store's S3 server{where} cannot be reached or does not answer ({type(error).__name__}); see "
        "that it runs and that AWS_ENDPOINT_URL is right, then try again."
    )
