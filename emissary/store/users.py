"""Users and their keys."""

import hashlib
import secrets
from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.errors import NotFound, Unauthorized
from emissary.ids import new_id
from emissary.store.tables import ApiKey, User


def _sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


async def ensure_first_key(session: AsyncSession, key: str) -> None:
    """Makes `key` valid, for the user `admin`; does nothing when it is known already, revoked or not."""
    user = await ensure_user(session, "admin")
    row = insert(ApiKey).values(id=new_id("key"), user_id=user.id, name="first key", sha256=_sha256(key))
    await session.execute(row.on_conflict_do_nothing(index_elements=["sha256"]))


async def ensure_user(session: AsyncSession, name: str) -> User:
    """The user called `name`, made when there is none."""
    row = insert(User).values(id=new_id("user"), name=name)
    await session.execute(row.on_conflict_do_nothing(index_elements=["name"]))
    return (await session.scalars(select(User).where(User.name == name))).one()


async def create_key(session: AsyncSession, user_name: str, key_name: str) -> tuple[ApiKey, str]:
    """A new key for the user, who is made when unknown. The key itself is returned once and not kept."""
    user = await ensure_user(session, user_name)
    key = f"ek-{secrets.token_urlsafe(32)}"
    row = ApiKey(id=new_id("key"), user_id=user.id, name=key_name, sha256=_sha256(key))
    session.add(row)
    await session.flush()
    return row, key


async def list_keys(session: AsyncSession) -> Sequence[tuple[ApiKey, User]]:
    """All keys with their users, the oldest first."""
    rows = await session.execute(select(ApiKey, User).join(User, User.id == ApiKey.user_id).order_by(ApiKey.created_at))
    return [(key, user) for key, user in rows]


async def revoke_key(session: AsyncSession, key_id: str) -> None:
    """Makes a key invalid from now on. Raises NotFound."""
    found = await session.scalar(
        update(ApiKey).where(ApiKey.id == key_id).values(revoked_at=func.now()).returning(ApiKey.id)
    )
    if found is None:
        raise NotFound(f"There is no key {key_id}; `emissary keys list` shows them.")


async def authenticate(session: AsyncSession, key: str) -> User:
    """The user of a key. Raises Unauthorized for one that is unknown or revoked."""
    row = (
        await session.execute(
            select(ApiKey, User)
            .join(User, User.id == ApiKey.user_id)
            .where(ApiKey.sha256 == _sha256(key), ApiKey.revoked_at.is_(None))
        )
    ).first()
    if row is None:
        raise Unauthorized("The API key is unknown or revoked; send a valid one as X-API-Key or as Bearer token.")
    await session.execute(
        update(ApiKey)
        .where(ApiKey.id == row[0].id)
        .where(ApiKey.last_used_at.is_(None) | (ApiKey.last_used_at < func.now() - timedelta(minutes=1)))
        .values(last_used_at=func.now())
    )
    return row[1]
