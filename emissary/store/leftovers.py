"""What deleted things leave outside the catalogue, noted in the transaction that deletes them, so nothing is lost; and
what is being stored for a thing that is not in the catalogue yet.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.store import prepared
from emissary.store.tables import Leftover


def of_dataset(dataset_id: str, sha256: str | None) -> Leftover:
    """Its upload, and what was made of its content, whose SHA-256 is None where the file has not arrived."""
    made = [] if sha256 is None else [prepared.all_keys(sha256)]
    return Leftover(id=dataset_id, artifacts=[f"datasets/{dataset_id}", *made])


def of_coming_dataset(dataset_id: str) -> Leftover:
    """Its upload, which is left where the process that stores it dies: in an hour it has arrived, or never will."""
    return Leftover(
        id=dataset_id, artifacts=[f"datasets/{dataset_id}"], created_at=datetime.now(UTC) + timedelta(hours=1)
    )


def of_training_job(training_job_id: str) -> Leftover:
    """Its checkpoints and test results."""
    return Leftover(id=training_job_id, artifacts=[f"training-jobs/{training_job_id}"])


def of_pipeline_run(run_id: str) -> Leftover:
    """The results of what it compared with."""
    return Leftover(id=run_id, artifacts=[f"pipeline-runs/{run_id}"])


def of_deployment(deployment_id: str, engine_id: str) -> Leftover:
    """The adapter on its engine."""
    return Leftover(id=deployment_id, artifacts=[], engine_id=engine_id)


async def take_one(session: AsyncSession, older_than: timedelta) -> Leftover | None:
    """The oldest one that is older and that nobody else has taken; it is kept from others for this transaction."""
    query = select(Leftover).where(Leftover.created_at < func.now() - older_than).order_by(Leftover.created_at)
    return (await session.scalars(query.limit(1).with_for_update(skip_locked=True))).first()


async def has_come(session: AsyncSession, coming: Leftover) -> None:
    """Forget it; commit that together with the thing itself."""
    await session.execute(delete(Leftover).where(Leftover.id == coming.id))


async def is_left(session: AsyncSession, coming: Leftover) -> bool:
    """Whether the thing has not come."""
    return await session.get(Leftover, coming.id) is not None


async def add(session: AsyncSession, left: Sequence[Leftover]) -> None:
    """Note them; commit them together with the deletion."""
    session.add_all(left)
    await session.flush()
