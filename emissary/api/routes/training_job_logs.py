"""The log of a training job's run, which Prefect keeps."""

import logging
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Query, Request, Response
from fastapi.responses import PlainTextResponse
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import Log
from prefect.client.schemas.sorting import LogSort

from emissary.api.auth import OwnedProject
from emissary.api.paging import link_next
from emissary.api.prefect_client import PREFECT_AWAY, prefect_client
from emissary.api.routing import also_as, keyed_router
from emissary.errors import Unavailable
from emissary.schemas.events import LogLine
from emissary.schemas.fields import IN_DIGITS
from emissary.store import training_jobs
from emissary.store.database import transaction
from emissary.store.pages import Page

router = keyed_router("Training Jobs", "/v1/projects/{project_id}/training-jobs/{training_job_id}")

PATIENCE_SECONDS = 10.0
_PREFECT_PAGE = 200  # as many lines as its API gives at once
LineLimit = Annotated[int, Query(ge=1, le=1000, description="Lines of a page."), IN_DIGITS]
LineNumber = Annotated[int, Query(ge=0, lt=2**31, description="Number of lines before the page."), IN_DIGITS]


@router.get(
    "/logs",
    operation_id="listTrainingJobLogs",
    summary="Read a training job's log",
    response_model=list[LogLine],
    responses=also_as("text/plain", "2026-11-23T13:20:01Z INFO step 10"),
)
async def list_training_job_logs(
    project: OwnedProject,
    training_job_id: str,
    request: Request,
    response: Response,
    limit: LineLimit = 1000,
    after: LineNumber = 0,
) -> Any:
    """The run's log, the oldest line first; with `Accept: text/plain` as text. 503 while Prefect, which keeps it, is
    away.
    """
    async with transaction() as session:
        job = await training_jobs.get(session, training_job_id, project.id)
    lines = [] if job.flow_run_id is None else await _lines(job.flow_run_id, limit, after)
    link_next(request, response, Page(limit), range(after + 1, after + len(lines) + 1))
    if "text/plain" in request.headers.get("accept", ""):
        return PlainTextResponse("".join(_text(line) for line in lines), headers=dict(response.headers))
    return lines


async def _lines(flow_run_id: UUID, limit: int, after: int) -> list[LogLine]:
    wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run_id]))
    found: list[Log] = []
    try:
        async with prefect_client(PATIENCE_SECONDS) as client:
            while len(found) < limit:
                page = min(_PREFECT_PAGE, limit - len(found))
                more = await client.read_logs(wanted, page, after + len(found), LogSort.TIMESTAMP_ASC)
                found += more
                if len(more) < page:
                    break
    except PREFECT_AWAY as error:
        raise Unavailable("Prefect, which keeps the log, cannot be reached now; try again soon.") from error
    return [
        LogLine(timestamp=line.timestamp.timestamp(), level=logging.getLevelName(line.level), message=line.message)
        for line in found
    ]


def _text(line: LogLine) -> str:
    when = datetime.fromtimestamp(line.timestamp, UTC)
    return f"{when:%Y-%m-%dT%H:%M:%SZ} {line.level} {line.message}\n"
