"""Who is calling: `X-API-Key`, or `Authorization: Bearer` as OpenAI's clients send it."""

from typing import Annotated

from fastapi import Depends, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from emissary.errors import Unauthorized
from emissary.store import users
from emissary.store.database import transaction
from emissary.store.tables import User

_header = APIKeyHeader(name="X-API-Key", auto_error=False)
_bearer = HTTPBearer(auto_error=False)


async def _current_user(
    api_key: Annotated[str | None, Security(_header)],
    bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
) -> User:
    key = api_key or (bearer.credentials if bearer else None)
    if not key:
        raise Unauthorized("There is no API key in the request; send it as X-API-Key or as Bearer token.")
    async with transaction() as session:
        return await users.authenticate(session, key)


CurrentUser = Annotated[User, Depends(_current_user)]
