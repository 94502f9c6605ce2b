"""A pipeline's source outside of the project: whether it is there, and what is new in it."""

from collections.abc import Sequence
from pathlib import Path

from emissary.data.rows import TaskType
from emissary.schemas.sources import HubSource, OutsideSource, S3Source, SqlSource, UrlSource
from emissary.sources import hub, s3, sql, url
from emissary.sources.fetched import Fetched
from emissary.store.tables import Json


def check(source: OutsideSource, organization: str) -> None:
    """Raises EmissaryError, naming the field, where the source cannot be fetched from for the organization of this
    name. Blocks for some seconds at most once it is connected.
    """
    match source:
        case S3Source():
            s3.check(source, organization)
        case UrlSource():
            url.check(source)
        case HubSource():
            hub.check(source)
        case SqlSource():
            sql.check(source, organization)


def fetch(
    source: OutsideSource,
    organization: str,
    known: Sequence[Json],
    task_type: TaskType,
    folder: Path,
    objects: Sequence[str] | None = None,
) -> Fetched | None:
    """What the source has, written to `folder`; None where it says itself that this is nothing but what the origins
    `known` (the oldest first) had. From S3 the objects of these keys alone, where they are given.

    Raises EmissaryError, naming the field, as the module of each source.
    """
    match source:
        case S3Source():
            return s3.fetch(source, organization, known, task_type, folder, objects)
        case UrlSource():
            return url.fetch(source, known, folder)
        case HubSource():
            return hub.fetch(source, known, folder)
        case SqlSource():
            return sql.fetch(source, organization, folder)
