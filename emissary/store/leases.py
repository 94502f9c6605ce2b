"""Leases: which process works for a row, told by a token that grows with each that takes it over (a fencing token).

Martin Kleppmann, "How to do distributed locking" (2016), describes the method. A process takes the lease of its row
when it begins, beats while it lives, and asks whether the lease is still its own before it publishes anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Select, delete, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.store.tables import Lease


@dataclass(frozen=True)
class Beat:
    """A sign of life: as long as `beats` grows for one `token`, the process of the flow run lives."""

    flow_run_id: UUID
    token: int
    beats: int
    holder: str


async def take(session: AsyncSession, row_id: str, flow_run_id: UUID, holder: str) -> int:
    """Make `holder` (host:pid:start) the one that works for the row, in place of who did; returns its token."""
    values = {"flow_run_id": flow_run_id, "holder": holder, "beats": 0}
    row = insert(Lease).values(id=row_id, token=1, **values)
    taken = row.on_conflict_do_update(index_elements=["id"], set_={**values, "token": Lease.token + 1})
    return (await session.execute(taken.returning(Lease.token))).scalar_one()


async def forget(session: AsyncSession, row_ids: Sequence[str] | Select[tuple[str]]) -> None:
    """Remove the leases of rows that are deleted; whoever still holds one finds that out as if it were taken."""
    await session.execute(delete(Lease).where(Lease.id.in_(row_ids)))


async def beats(session: AsyncSession, row_ids: Sequence[str]) -> dict[str, Beat]:
    """The newest sign of life for each row that somebody works for or has worked for."""
    rows = (await session.scalars(select(Lease).where(Lease.id.in_(row_ids)))).all()
    return {row.id: Beat(row.flow_run_id, row.token, row.beats, row.holder) for row in rows}


async def revoke(session: AsyncSession, row_id: str) -> None:
    """Take the lease away from whoever has it: a process that still lives finds out before it publishes anything."""
    await session.execute(update(Lease).where(Lease.id == row_id).values(token=Lease.token + 1))
