"""Field types that several resources share."""

import re
from datetime import datetime
from difflib import get_close_matches
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from emissary.errors import InvalidInput


class Strict(BaseModel):
    """What a request brings, with no other fields: a misspelt one would be as if it were not given."""

    model_config = ConfigDict(extra="forbid")


class Lenient(BaseModel):
    """What a request of the Emissary API brings: other fields are left out, for its clients may know more of them than
    this version; those that are nearly ones that it knows are misspelt, and refused.
    """

    @model_validator(mode="before")
    @classmethod
    def _none_is_misspelt(cls, value: object) -> object:
        for name in value if isinstance(value, dict) else ():
            if name not in cls.model_fields and (meant := get_close_matches(str(name)[:100], cls.model_fields, 1, 0.8)):
                raise ValueError(f"there is no field {str(name)[:100]!r}; {meant[0]!r} may be meant")
        return value


def _unix(value: object) -> object:
    return int(value.timestamp()) if isinstance(value, datetime) else value


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("must not contain control characters")
    return value


def _plain_name(value: str) -> str:
    if "/" in value or "\\" in value or value.strip(".") == "":
        raise ValueError("must not contain '/' or '\\', nor consist of dots")
    if value != value.strip():
        raise ValueError("must not begin or end with a space")
    return value


def _without_nul(value: str) -> str:
    if "\0" in value:  # PostgreSQL cannot keep it
        raise ValueError("must not contain NUL characters")
    return value


def _digits(value: object) -> object:
    if isinstance(value, str) and not re.fullmatch("-?[0-9]+", value):
        raise ValueError("input should be a valid integer, written in digits")
    return value


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


UnixTime = Annotated[int, BeforeValidator(_unix)]
"""UNIX seconds; takes a datetime."""

IN_DIGITS = BeforeValidator(_digits)
"""Marks a whole number in a query or header: `1.0` and `1_0`, which pydantic would read too, are none."""

WHOLE = BeforeValidator(_whole)
"""Marks a whole number in JSON, which has one kind of number: some clients write 3 as 3.0."""

Name = Annotated[
    str, Field(strict=True, min_length=1, max_length=100), AfterValidator(_printable), AfterValidator(_plain_name)
]
"""A name that is safe in a path, a log and a terminal."""

Reference = Annotated[str, Field(strict=True, min_length=1, max_length=200), AfterValidator(_printable)]
"""The name or id of something there is."""

Description = Annotated[str, Field(strict=True, max_length=2000), AfterValidator(_without_nul)]
"""Text of several lines."""

LEFT_OUT = Field(exclude_if=lambda value: value is None)
"""Marks a field of an answer that is not there when it has no value: the contract knows no null for it."""
_NAME: TypeAdapter[str] = TypeAdapter(Name)


def checked_name(field: str, value: str) -> str:
    """`value`, which came in `field` of a form or was made of one. Raises InvalidInput when it is not a `Name`."""
    try:
        return _NAME.validate_python(value)
    except ValidationError as error:
        raise InvalidInput(f"{field}: the name {value!r} is not allowed: {error.errors()[0]['msg']}.") from error
