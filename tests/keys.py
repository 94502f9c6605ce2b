"""Keys of organizations that tests make for themselves."""

import asyncio

from emissary.store import users
from emissary.store.database import dispose, transaction
from emissary.store.users import Role


def make_key(organization: str, role: Role = "admin") -> str:
    """A new key of the organization, which is made when there is none; the platform must be running."""

    async def make() -> str:
        async with transaction() as session:
            _, key = await users.create_key(
                session, f"{organization}-{role}", "test", role=role, organization=organization
            )
        await dispose()
        return key

    return asyncio.run(make())
