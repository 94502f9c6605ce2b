"""Field types that several resources share."""

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field


def _unix(value: object) -> object:
    return int(value.timestamp()) if isinstance(value, datetime) else value


def _plain_name(value: str) -> str:
    if not value.isprintable():
        raise ValueError("must not contain control characters")
    if "/" in value or "\\" in value or value.strip(".") == "":
        raise ValueError("must not contain '/' or '\\', nor consist of dots")
    if value != value.strip():
        raise ValueError("must not begin or end with a space")
    return value


UnixTime = Annotated[int, BeforeValidator(_unix)]
"""UNIX seconds; takes a datetime."""

Name = Annotated[str, Field(strict=True, min_length=1, max_length=100), AfterValidator(_plain_name)]
"""A name that is safe in a path, a log and a terminal."""

Description = Annotated[str, Field(strict=True, max_length=2000)]
