"""Users and their keys."""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, cast

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.errors import InvalidInput, NotFound, Unauthorized
from emissary.ids import new_id
from emissary.store.tables import ApiKey, Organization, User

DEFAULT_ORGANIZATION = "default"
Role = Literal["admin", "member", "read-only"]


@dataclass(frozen=True)
class Caller:
    """Who a request comes from, and what the key allows."""

    user_id: str
    organization_id: str
    role: Role


def _sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


async def ensure_first_key(session: AsyncSession, key: str) -> None:
    """Makes `key` valid, for the user `admin`; does nothing when it is known already, revoked or not."""
    user = await ensure_user(session, "admin")
    row = insert(ApiKey).values(id=new_id("key"), user_id=user.id, name="first key", role="admin", sha256=_sha256(key))
    await session.execute(row.on_conflict_do_nothing(index_elements=["sha256"]))


async def _ensure_organization(session: AsyncSession, name: str) -> Organization:
    row = insert(Organization).values(id=new_id("org"), name=name)
    await session.execute(row.on_conflict_do_nothing(index_elements=["name"]))
    return (await session.scalars(select(Organization).where(Organization.name == name))).one()


async def ensure_user(session: AsyncSession, name: str, organization: str | None = None) -> User:
    """The user called `name`, made when there is none, in `organization` (made likewise; default `default`).

    Raises InvalidInput when the user is in another organization.
    """
    wanted = await _ensure_organization(session, organization or DEFAULT_ORGANIZATION)
    row = insert(User).values(id=new_id("user"), name=name, organization_id=wanted.id)
    await session.execute(row.on_conflict_do_nothing(index_elements=["name"]))
    user = (await session.scalars(select(User).where(User.name == name))).one()
    if organization is not None and user.organization_id != wanted.id:
        raise InvalidInput(f"The user {name!r} belongs to another organization; a user belongs to one.")
    return user


async def create_key(
    session: AsyncSession, user_name: str, key_name: str, *, role: Role = "member", organization: str | None = None
) -> tuple[ApiKey, str]:
    """A new key for the user, who is made when unknown. The key itself is returned once and not kept."""
    user = await ensure_user(session, user_name, organization)
    key = f"ek-{secrets.token_urlsafe(32)}"
    row = ApiKey(id=new_id("key"), user_id=user.id, name=key_name, role=role, sha256=_sha256(key))
    session.add(row)
    await session.flush()
    return row, key


async def list_keys(session: AsyncSession) -> Sequence[tuple[ApiKey, User, Organization]]:
    """All keys with their users and organizations, the oldest first."""
    query = (
        select(ApiKey, User, Organization)
        .join(User, User.id == ApiKey.user_id)
        .join(Organization, Organization.id == User.organization_id)
        .order_by(ApiKey.created_at)
    )
    return [(key, user, organization) for key, user, organization in await session.execute(query)]


async def revoke_key(session: AsyncSession, key_id: str) -> None:
    """Makes a key invalid from now on. Raises NotFound."""
    found = await session.scalar(
        update(ApiKey).where(ApiKey.id == key_id).values(revoked_at=func.now()).returning(ApiKey.id)
    )
    if found is None:
        raise NotFound(f"There is no key {key_id}; `emissary keys list` shows them.")


async def authenticate(session: AsyncSession, key: str) -> Caller:
    """Who holds the key. Raises Unauthorized for one that is unknown or revoked."""
    row = (
        await session.execute(
            select(ApiKey, User)
            .join(User, User.id == ApiKey.user_id)
            .where(ApiKey.sha256 == _sha256(key), ApiKey.revoked_at.is_(None))
        )
    ).first()
    if row is None:
        raise Unauthorized("The API key is unknown or revoked; send a valid one as X-API-Key or as Bearer token.")
    key_row, user = row
    if key_row.last_used_at is None or key_row.last_used_at < datetime.now(UTC) - timedelta(minutes=1):
        await session.execute(update(ApiKey).where(ApiKey.id == key_row.id).values(last_used_at=func.now()))
    return Caller(user.id, user.organization_id, cast(Role, key_row.role))
