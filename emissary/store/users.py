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
from emissary.store.pages import Page, fetch
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
    """The user called `name` in `organization` (default `default`); each is made when there is none."""
    return await _user(session, name, (await _ensure_organization(session, organization or DEFAULT_ORGANIZATION)).id)


async def _user(session: AsyncSession, name: str, organization_id: str) -> User:
    row = insert(User).values(id=new_id("user"), name=name, organization_id=organization_id)
    await session.execute(row.on_conflict_do_nothing(constraint="users_organization_name"))
    return (await session.scalars(select(User).where(User.organization_id == organization_id, User.name == name))).one()


async def create_key(
    session: AsyncSession, user_name: str, key_name: str, *, role: Role = "member", organization: str | None = None
) -> tuple[ApiKey, str]:
    """A new key for the user, who is made when unknown. The key itself is returned once and not kept."""
    return await _new_key(session, await ensure_user(session, user_name, organization), key_name, role)


async def _new_key(session: AsyncSession, user: User, name: str, role: Role) -> tuple[ApiKey, str]:
    key = f"ek-{secrets.token_urlsafe(32)}"
    row = ApiKey(id=new_id("key"), user_id=user.id, name=name, role=role, sha256=_sha256(key))
    session.add(row)
    await session.flush()
    return row, key


async def create_key_for(
    session: AsyncSession, caller: Caller, *, user_name: str | None, key_name: str, role: Role
) -> tuple[ApiKey, User, str]:
    """A new key for a user of the caller's organization (made when unknown; default the caller), and the key itself."""
    if user_name is None:
        user = await session.get_one(User, caller.user_id)
    else:
        user = await _user(session, user_name, caller.organization_id)
    row, key = await _new_key(session, user, key_name, role)
    return row, user, key


async def list_keys(session: AsyncSession, organization_id: str, wanted: Page) -> Sequence[tuple[ApiKey, User]]:
    """The organization's keys with their users, the newest first; also those that are revoked."""
    query = select(ApiKey, User).join(User, User.id == ApiKey.user_id).where(User.organization_id == organization_id)
    return [(key, user) for key, user in await fetch(session, query, ApiKey, wanted)]


async def revoke_key(session: AsyncSession, key_id: str, organization_id: str | None = None) -> None:
    """Makes a key invalid from now on; one that is so already stays so.

    Raises NotFound where there is no such key, in the organization where one is given, and InvalidInput for the last
    admin key of an organization.
    """
    query = select(ApiKey, User).join(User, User.id == ApiKey.user_id).where(ApiKey.id == key_id)
    row = (await session.execute(query)).first()
    if row is None or organization_id not in (None, row[1].organization_id):
        raise NotFound(f"There is no key {key_id!r}.")
    key, user = row
    # The two last keys may be revoked at the same time: the second one waits here.
    await session.execute(select(Organization).where(Organization.id == user.organization_id).with_for_update())
    await session.refresh(key)
    if key.revoked_at is not None:
        return
    others = select(ApiKey.id).join(User, User.id == ApiKey.user_id)
    others = others.where(User.organization_id == user.organization_id, ApiKey.role == "admin")
    others = others.where(ApiKey.revoked_at.is_(None), ApiKey.id != key.id)
    if key.role == "admin" and (await session.scalars(others.limit(1))).first() is None:
        raise InvalidInput(
            f"The key {key_id} is the organization's last admin key; make another admin key before revoking it."
        )
    key.revoked_at = datetime.now(UTC)
    await session.flush()


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
