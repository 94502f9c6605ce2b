"""Queries of the answers that are kept for requests with an Idempotency-Key."""

import hashlib
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.store.tables import IdempotentAnswer

KEPT = timedelta(hours=24)


async def find(session: AsyncSession, organization_id: str, key: str) -> IdempotentAnswer | None:
    """The answer kept for the key. Until the transaction ends nobody else gets past this for the same key."""
    digest = hashlib.sha256(f"{organization_id}\n{key}".encode()).digest()
    lock = int.from_bytes(digest[:8], "big", signed=True)
    await session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": lock})
    await session.execute(delete(IdempotentAnswer).where(IdempotentAnswer.created_at < func.now() - KEPT))
    query = select(IdempotentAnswer).where(
        IdempotentAnswer.organization_id == organization_id, IdempotentAnswer.key == key
    )
    return (await session.scalars(query)).first()


async def keep(
    session: AsyncSession, organization_id: str, key: str, request_sha256: str, status: int, body: dict[str, Any]
) -> None:
    """Keep what a request was answered."""
    session.add(
        IdempotentAnswer(
            organization_id=organization_id, key=key, request_sha256=request_sha256, status=status, body=body
        )
    )
    await session.flush()
