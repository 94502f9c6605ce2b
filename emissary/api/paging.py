"""`limit` and `after` of lists, and the Link header (RFC 8288) to the next page."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Depends, Query, Request, Response

from emissary.schemas.fields import IN_DIGITS
from emissary.store.pages import Page

Limit = Annotated[int | None, Query(ge=1, le=1000, description="Entries of a page; all without it."), IN_DIGITS]


def _wanted(
    limit: Limit = None,
    after: Annotated[str | None, Query(max_length=200, description="Id of the last entry before the page.")] = None,
) -> Page:
    return Page(limit, after)


WantedPage = Annotated[Page, Depends(_wanted)]
"""The page that a list request asks for."""


def link_next(request: Request, response: Response, wanted: Page, ids: Sequence[Any]) -> None:
    """Name the page behind the one with `ids`, unless that one is the last for sure."""
    if wanted.limit is not None and len(ids) == wanted.limit:
        following = request.url.include_query_params(limit=wanted.limit, after=ids[-1])
        response.headers["Link"] = f'<{following}>; rel="next"'
