"""Named connections to buckets, databases and owners on the hub, which the operator keeps in the file EMISSARY_SOURCES.

    {"warehouse": {"organizations": ["default"], "sql": "postgresql://reader:…@host/database"},
     "lake": {"organizations": "all", "s3": "s3://bucket/prefix", "access_key_id": "…", "secret_access_key": "…"},
     "models": {"organizations": ["default"], "hub": "acme", "token": "hf_…"}}

The file is read whenever something is checked, fetched or pushed, so a change counts at once.
"""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Discriminator, Field, SecretStr, Tag, TypeAdapter

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


class HubConnection(Leave):
    """Leave to push models to an owner's repositories on the Hugging Face hub; without a token with HF_TOKEN."""

    hub: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    token: SecretStr | None = None


Connection = S3Connection | SqlConnection | HubConnection


def _kind(value: object) -> str:
    return next((kind for kind in ("sql", "hub") if isinstance(value, dict) and kind in value), "s3")


_AnyConnection = Annotated[
    Annotated[S3Connection, Tag("s3")] | Annotated[SqlConnection, Tag("sql")] | Annotated[HubConnection, Tag("hub")],
    Discriminator(_kind),
]
_FILE: TypeAdapter[dict[str, Connection]] = TypeAdapter(dict[str, _AnyConnection])


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


def hub_connection(repo: str, organization: str) -> HubConnection:
    """The organization's connection to the owner of the hub's repository `repo`.

    Raises InvalidInput where there is none, OperatorFileUnusable.
    """
    owner = repo.partition("/")[0]
    for _, row in _of(organization):
        if isinstance(row, HubConnection) and row.hub.lower() == owner.lower():
            return row
    raise InvalidInput(
        f"push_to_hub.repo: this organization may not push to {owner!r}; name another owner, or have the operator add "
        "it to the file EMISSARY_SOURCES."
    )


def _within(uri: str, root: str) -> bool:
    root = root.rstrip("/")
    return uri == root or uri.startswith(f"{root}/")


def _of(organization: str) -> Iterator[tuple[str, Connection]]:
    path = settings().sources
    if path is None:
        return
    for name, row in operator_files.read("EMISSARY_SOURCES", path, _FILE).items():
        if row.is_for(organization):
            yield name, row
