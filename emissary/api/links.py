"""Download links that work without a key, for a while."""

from functools import lru_cache
from typing import Any, Literal

from itsdangerous import BadSignature, SignatureExpired, URLSafeTimedSerializer
from pydantic import BaseModel

from emissary.errors import InvalidInput, NotFound
from emissary.secret_files import signing_key
from emissary.settings import settings


class Link(BaseModel):
    """What a link gives: one file of an artifact, or (`file` None) the whole artifact as a zip archive."""

    key: str
    file: str | None
    save_as: str
    kind: Literal["artifact"] = "artifact"


@lru_cache
def _serializer() -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(signing_key(settings()).get_secret_value(), salt="emissary.download")


def sign(key: str, file: str | None, save_as: str) -> str:
    """A link to the artifact `key`, or one file of it, saved under the name `save_as`; works EMISSARY_LINK_SECONDS."""
    token = _serializer().dumps(Link(key=key, file=file, save_as=save_as).model_dump())
    return f"{settings().api_url}/v1/files/{token}"


def read(token: str) -> Link:
    """What a signed link gives. Raises InvalidInput when it has expired, NotFound when it was not signed here."""
    try:
        given: Any = _serializer().loads(token, max_age=settings().link_seconds)
    except SignatureExpired as error:
        raise InvalidInput("The link has expired; ask the API for a new one.", code="link_expired") from error
    except BadSignature as error:
        raise NotFound("There is no such file.") from error
    return Link.model_validate(given)
