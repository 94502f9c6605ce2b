"""Errors that reach a person.

Every one carries the HTTP status and the code that the API answers with, and a sentence that says what is wrong,
where, and what to do:

    EmissaryError
    ├── InvalidInput    400  what was asked for cannot be
    ├── Unauthorized    401  no key, or one that is unknown or revoked
    ├── Forbidden       403  the key's role does not allow it
    ├── NotFound        404  there is no such thing, or not for this caller
    ├── Conflict        409  it contradicts what was asked for before
    └── Unavailable     503  it will work later
"""

from typing import Any


class EmissaryError(Exception):
    """The base of all errors meant for a person; `str(error)` is the sentence."""

    status = 500
    code = "internal_error"
    retry_after: int | None = None
    """Seconds after which to try again, where that is known; the API sends it as Retry-After."""

    def __init__(
        self,
        sentence: str,
        code: str | None = None,
        *,
        retry_after: int | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(sentence)
        self.retry_after = retry_after
        self.details = details or {}
        """Further fields of the API's answer."""
        if code is not None:
            self.code = code


class InvalidInput(EmissaryError):
    """What was asked for cannot be."""

    status = 400
    code = "invalid_input"


class Unauthorized(EmissaryError):
    """The request carries no valid key."""

    status = 401
    code = "unauthorized"


class Forbidden(EmissaryError):
    """The key's role does not allow it."""

    status = 403
    code = "forbidden"


class NotFound(EmissaryError):
    """There is no such thing, or not for this caller."""

    status = 404
    code = "object_not_found"


class Conflict(EmissaryError):
    """It contradicts what was asked for before."""

    status = 409
    code = "conflict"


class Unavailable(EmissaryError):
    """It cannot be answered now and will work later."""

    status = 503
    code = "unavailable"
