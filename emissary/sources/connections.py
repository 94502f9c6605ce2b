"""Named connections to buckets and databases, which the operator keeps in the file EMISSARY_SOURCES.

    {"warehouse": {"organizations": ["default"], "sql": "postgresql://reader:…@host/database"},
     "lake": {"organizations": "all", "s3": "s3://bucket/prefix", "access_key_id": "…", "secret_access_key": "…"}}

The file is read whenever a source is checked or fetched, so a change counts at once.
"""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Discriminator, SecretStr, Tag, TypeAdapter

from emissary import operator_files
from emissary.errors import InvalidInput
from emissary.operator_files import Leave
from emissary.schemas.sources import S3Uri
from emissary.settings import settings


class S3Connection(Leave):
    """Leave to read the objects below a prefix; what is not given is taken from the usual AWS variables."""

    s3: S3Uri
    endpoint_url: str | None = None
    region: str | None = None
    access_key_id: SecretStr | None = None
    secret_access_key: SecretStr | None = None


class SqlConnection(Leave):
    """Leave to query a database, as the user in its SQLAlchemy URL."""

    sql: SecretStr


_AnyConnection = Annotated[
    Annotated[S3Connection, Tag("s3")] | Annotated[SqlConnection, Tag("sql")],
    Discriminator(lambda value: "sql" if isinstance(value, dict) and "sql" in value else "s3"),
]
_FILE: TypeAdapter[dict[str, S3Connection | SqlConnection]] = TypeAdapter(dict[str, _AnyConnection])


def s3_connection(uri: str, organization: str) -> S3Connection:
    """The organization's connection with the longest prefix that `uri` is within.

    Raises InvalidInput where there is none, OperatorFileUnusable.
    """
    found = [row for _, row in _of(organization) if isinstance(row, S3Connection) and _within(uri, row.s3)]
    if not found:
        raise InvalidInput(
            f"gather.uri: {uri} is not within a connection that this organization has; name another one, or have the "
            "operator add it to the file EMISSARY_SOURCES."
        )
    return max(found, key=lambda row: len(row.s3))


def sql_connection(name: str, organization: str) -> SqlConnection:
    """The organization's connection of that name. Raises InvalidInput where there is none, OperatorFileUnusable."""
    for known, row in _of(organization):
        if known == name and isinstance(row, SqlConnection):
            return row
    raise InvalidInput(
        f"gather.connection: this organization has no connection {name!r} to a database; name another one, or have the "
        "operator add it to the file EMISSARY_SOURCES."
    )


def _within(uri: str, root: str) -> bool:
    root = root.rstrip("/")
    return uri == root or uri.startswith(f"{root}/")


def _of(organization: str) -> Iterator[tuple[str, S3Connection | SqlConnection]]:
    path = settings().sources
    if path is None:
        return
    for name, row in operator_files.read("EMISSARY_SOURCES", path, _FILE).items():
        if row.is_for(organization):
            yield name, row
