"""One page of a list, the newest first."""

from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Select, literal, select, tuple_

from emissary.store.tables import ApiKey, Dataset, Deployment, Engine, Project, TrainingJob

Query = TypeVar("Query", bound=Select[Any])
Listed = Project | Dataset | TrainingJob | Engine | Deployment | ApiKey


@dataclass(frozen=True)
class Page:
    """At most `limit` entries (None: all) of a list, from behind the entry whose id is `after` (None: its start)."""

    limit: int | None = None
    after: str | None = None


def page(query: Query, kind: type[Listed], wanted: Page) -> Query:
    """`query` for rows of `kind`, ordered and cut to the page by key, so that a far page costs what the first does.

    Nothing comes behind an `after` that is not there.
    """
    query = query.order_by(kind.created_at.desc(), kind.id.desc())
    if wanted.after is not None:
        position = tuple_(
            select(kind.created_at).where(kind.id == wanted.after).scalar_subquery(), literal(wanted.after)
        )
        query = query.where(tuple_(kind.created_at, kind.id) < position)
    return query if wanted.limit is None else query.limit(wanted.limit)
