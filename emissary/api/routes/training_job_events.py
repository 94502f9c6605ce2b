"""What happens to a training job: as a list, and as a stream of server-sent events (WHATWG HTML, section 9.2)."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Annotated, Any

from fastapi import Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from emissary.api.auth import OwnedProject
from emissary.api.job_event_feed import following, is_ending
from emissary.api.paging import Limit, link_next
from emissary.api.routing import also_as, keyed_router
from emissary.errors import NotFound
from emissary.schemas.events import TrainingJobEvent
from emissary.schemas.fields import IN_DIGITS
from emissary.store import job_events, training_jobs
from emissary.store.database import transaction
from emissary.store.pages import Page
from emissary.store.tables import TERMINAL

router = keyed_router("Training Jobs", "/v1/projects/{project_id}/training-jobs/{training_job_id}")

HEARTBEAT_SECONDS = 15.0
_STREAM = "text/event-stream"
_EXAMPLE = 'id: 7\nevent: checkpoint\ndata: {"id":7,"kind":"checkpoint","details":{"checkpoint":1},…}\n\n'
EventId = Annotated[int, Query(ge=0, lt=2**63, description="Id of the last event before the page."), IN_DIGITS]
LastEventId = Annotated[
    int | None, Header(ge=0, lt=2**63, description="A stream goes on behind this event."), IN_DIGITS
]


@router.get(
    "/events",
    operation_id="listTrainingJobEvents",
    summary="List or follow training job events",
    response_model=list[TrainingJobEvent],
    responses=also_as(_STREAM, _EXAMPLE),
)
async def list_training_job_events(
    project: OwnedProject,
    training_job_id: str,
    request: Request,
    response: Response,
    limit: Limit = None,
    after: EventId = 0,
    last_event_id: LastEventId = None,
) -> Any:
    """What happened and when. With `Accept: text/event-stream` a stream until the job has ended, told as it happens."""
    async with transaction() as session:
        await training_jobs.get(session, training_job_id, project.id)
        if _STREAM not in request.headers.get("accept", ""):
            events = await job_events.list_all(session, training_job_id, limit=limit, after=after)
            link_next(request, response, Page(limit), [event.id for event in events])
            return events
    told = stream(training_job_id, after if last_event_id is None else last_event_id)
    return StreamingResponse(told, media_type=_STREAM, headers={"Cache-Control": "no-store"})


async def stream(training_job_id: str, after: int) -> AsyncGenerator[str, None]:
    """The job's events behind the one with the id `after`, as they happen, until the job has ended, or the API ends."""
    with following(training_job_id) as news:
        while True:
            news.clear()
            ended = await _ended(training_job_id)  # before its events are read, so that none comes after them
            async with transaction() as session:
                events = await job_events.list_all(session, training_job_id, after=after)
            for event in events:
                after = event.id
                data = TrainingJobEvent.model_validate(event).model_dump_json()
                yield f"id: {event.id}\nevent: {event.kind}\ndata: {data}\n\n"
            if ended or is_ending():
                return
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    await news.wait()
            except TimeoutError:
                yield ": nothing new\n\n"


async def _ended(training_job_id: str) -> bool:
    """Whether the job has ended, or is deleted."""
    try:
        async with transaction() as session:
            return (await training_jobs.get(session, training_job_id)).status in TERMINAL
    except NotFound:
        return True
