"""API keys of the caller's organization, for its admins."""

from fastapi import Request, Response

from emissary.api.auth import AdminCaller
from emissary.api.idempotency import keep_without
from emissary.api.paging import WantedPage, link_next
from emissary.api.routing import keyed_router
from emissary.schemas.keys import KeyCreate, KeyCreated, KeySummary
from emissary.store import users
from emissary.store.database import transaction
from emissary.store.tables import ApiKey, User

router = keyed_router("Keys", "/v1/keys")


def _summary(key: ApiKey, user: User) -> KeySummary:
    return KeySummary(
        id=key.id,
        name=key.name,
        user=user.name,
        role=key.role,
        created_at=key.created_at,
        last_used_at=key.last_used_at,
        revoked_at=key.revoked_at,
    )


@router.get("", operation_id="listKeys", summary="List keys")
async def list_keys(caller: AdminCaller, page: WantedPage, request: Request, response: Response) -> list[KeySummary]:
    """The organization's keys, the newest first; also those that are revoked."""
    async with transaction() as session:
        found = await users.list_keys(session, caller.organization_id, page)
    link_next(request, response, page, [key.id for key, _ in found])
    return [_summary(key, user) for key, user in found]


@router.post("", status_code=201, operation_id="createKey", summary="Create key")
async def create_key(caller: AdminCaller, body: KeyCreate, request: Request) -> KeyCreated:
    """A new key, shown in this answer only."""
    keep_without(request, "key")
    async with transaction() as session:
        row, user, key = await users.create_key_for(
            session, caller, user_name=body.user, key_name=body.name, role=body.role
        )
    return KeyCreated(**_summary(row, user).model_dump(), key=key)


@router.delete("/{key_id}", status_code=204, operation_id="revokeKey", summary="Revoke key")
async def revoke_key(caller: AdminCaller, key_id: str) -> None:
    """Makes a key invalid from now on; 400 for the last admin key."""
    async with transaction() as session:
        await users.revoke_key(session, key_id, caller.organization_id)
