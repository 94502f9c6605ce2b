"""Links that work without a key, for a while: to download, and to send a part of a large file."""

from functools import lru_cache
from typing import Any
from urllib.parse import quote

from itsdangerous import BadSignature, SignatureExpired, URLSafeTimedSerializer
from pydantic import BaseModel

from emissary.errors import InvalidInput, NotFound
from emissary.secret_files import signing_key
from emissary.settings import settings
from emissary.store.artifacts import artifact_store
from emissary.store.uploads import LIFETIME

_DOWNLOAD, _PART = "emissary.download", "emissary.upload-part"


class Link(BaseModel):
    """What a link gives: one file of an artifact, or (`file` None) the whole artifact as a zip archive."""

    key: str
    file: str | None
    save_as: str


class PartLink(BaseModel):
    """What a link takes: a part of an upload."""

    upload_id: str
    number: int


@lru_cache
def _serializer(purpose: str) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(signing_key(settings()).get_secret_value(), salt=purpose)


def attachment(save_as: str) -> str:
    """The Content-Disposition of a download that is saved under this name, whatever characters are in it (RFC 6266)."""
    return f"attachment; filename*=UTF-8''{quote(save_as, safe='')}"


def sign(key: str, file: str | None, save_as: str) -> str:
    """A link to the artifact `key`, or one file of it, saved under the name `save_as`; works EMISSARY_LINK_SECONDS.

    It leads to the artifact store where that gives links of its own (S3), which may ask it, so call this in a thread.
    """
    if file is not None:
        url = artifact_store().download_url(key, file, attachment(save_as), settings().link_seconds)
        if url is not None:
            return url
    token = _serializer(_DOWNLOAD).dumps(Link(key=key, file=file, save_as=save_as).model_dump())
    return f"{settings().api_url}/v1/files/{token}"


def read(token: str) -> Link:
    """What a signed link gives. Raises InvalidInput when it has expired, NotFound when it was not signed here."""
    return Link.model_validate(_read(_DOWNLOAD, token, settings().link_seconds))


def sign_part(upload_id: str, number: int) -> str:
    """A link to PUT a part of an upload to; works as long as the upload may be completed."""
    token = _serializer(_PART).dumps(PartLink(upload_id=upload_id, number=number).model_dump())
    return f"{settings().api_url}/v1/uploads/{token}"


def read_part(token: str) -> PartLink:
    """What a signed link takes. Raises as `read`."""
    return PartLink.model_validate(_read(_PART, token, int(LIFETIME.total_seconds())))


def _read(purpose: str, token: str, seconds: int) -> Any:
    try:
        return _serializer(purpose).loads(token, max_age=seconds)
    except SignatureExpired as error:
        raise InvalidInput("The link has expired; ask the API for a new one.", code="link_expired") from error
    except BadSignature as error:
        raise NotFound("There is no such file.") from error
