"""What a pipeline's run has done about a promotion, step by step."""

from sqlalchemy.ext.asyncio import AsyncSession

from emissary.schemas.pipelines import Promotion
from emissary.store import pipeline_runs


async def of_run(session: AsyncSession, run_id: str) -> Promotion | None:
    """What is noted; None where nothing was begun."""
    run = await pipeline_runs.get(session, run_id)
    return None if run.promotion is None else Promotion.model_validate(run.promotion)


async def keep(session: AsyncSession, run_id: str, promotion: Promotion) -> None:
    """Note it as it is now."""
    run = await pipeline_runs.locked(session, run_id)
    run.promotion, run.crashes = promotion.model_dump(mode="json"), 0
