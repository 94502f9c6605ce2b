"""Whether jobs can run."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from sqlalchemy import text

from emissary.api.prefect_client import POOLS, prefect_client
from emissary.store.database import transaction

router = APIRouter(tags=["Health"])


@router.get("/healthz", summary="Whether jobs can run", responses={503: {"description": "What is missing."}})
async def healthz() -> JSONResponse:
    """200 once jobs can run, else 503 and what is missing."""
    parts = {"api": await _api(), "prefect": "down", "worker": "down"}
    try:
        async with prefect_client() as client:
            await client.hello()
            parts["prefect"] = "ok"
            online = [await _has_worker(client, pool) for pool in POOLS]
            parts["worker"] = "ok" if all(online) else "down"
    except Exception as error:
        parts["missing"] = f"Prefect: {str(error) or type(error).__name__}"
    ready = all(parts[name] == "ok" for name in ("api", "prefect", "worker"))
    return JSONResponse(parts, 200 if ready else 503)


async def _api() -> str:
    try:
        async with transaction() as session:
            await session.execute(text("SELECT 1"))
    except Exception as error:
        return f"no database: {error}"
    return "ok"


async def _has_worker(client: Any, pool: str) -> bool:
    workers = await client.read_workers_for_work_pool(pool)
    return any(worker.status == "ONLINE" for worker in workers)
