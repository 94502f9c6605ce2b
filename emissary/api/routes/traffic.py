"""Captured traffic of a deployment: listed, corrected, accepted, downloaded as a dataset, removed."""

import json
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Query, Request, Response
from fastapi.responses import StreamingResponse

from emissary.api.auth import CurrentCaller, OwnedDeployment
from emissary.api.paging import link_next
from emissary.api.routing import keyed_router
from emissary.schemas.fields import IN_DIGITS
from emissary.schemas.traffic import Capture, Only, State, TrafficCorrection, TrafficEntry
from emissary.store import traffic
from emissary.store.database import transaction
from emissary.store.pages import Page
from emissary.store.tables import Deployment

router = keyed_router("Deployments", "/v1/projects/{project_id}/deployments/{deployment_id}")


@router.put("/capture", operation_id="captureDeploymentTraffic", summary="Capture traffic of a deployment")
async def capture_traffic(deployment: OwnedDeployment, body: Capture) -> Capture:
    """Keep requests and answers from now on; entries that are there expire by the new `keep_days`."""
    async with transaction() as session:
        await traffic.capture(session, deployment, body)
    return body


@router.delete(
    "/capture",
    status_code=204,
    operation_id="stopCapturingDeploymentTraffic",
    summary="Capture no traffic of a deployment any more",
)
async def stop_capturing_traffic(deployment: OwnedDeployment) -> None:
    """Keep nothing from now on; what is there stays until it expires or is deleted."""
    async with transaction() as session:
        await traffic.capture(session, deployment, None)


@router.get("/traffic", operation_id="listDeploymentTraffic", summary="List captured traffic")
async def list_traffic(
    deployment: OwnedDeployment,
    request: Request,
    response: Response,
    limit: Annotated[int, Query(ge=1, le=1000, description="Entries of a page."), IN_DIGITS] = 100,
    after: Annotated[str | None, Query(max_length=200, description="Id of the last entry before the page.")] = None,
    state: Annotated[State | None, Query(description="Only entries of this state.")] = None,
    answer_id: Annotated[
        str | None, Query(max_length=200, description="Only those of the answer of this `id`.")
    ] = None,
) -> list[TrafficEntry]:
    """What the deployment was asked and answered, the newest first."""
    page = Page(limit, after)
    async with transaction() as session:
        rows = await traffic.list_all(session, deployment.id, page, state=state, answer_id=answer_id)
    link_next(request, response, page, [row.id for row in rows])
    return [TrafficEntry.model_validate(row) for row in rows]


@router.delete("/traffic", status_code=204, operation_id="deleteDeploymentTraffic", summary="Delete captured traffic")
async def delete_traffic(deployment: OwnedDeployment) -> None:
    """Remove all that was captured of the deployment; datasets that runs made of it stay."""
    async with transaction() as session:
        await traffic.delete_all(session, deployment.id)


@router.get(
    "/traffic.jsonl",
    operation_id="downloadDeploymentTraffic",
    summary="Download captured traffic as a dataset",
    response_class=StreamingResponse,
    responses={
        200: {
            "content": {"application/jsonl": {"schema": {"type": "string"}}},
            "description": "Rows as a dataset is uploaded, a line each.",
        }
    },
)
async def download_traffic(
    deployment: OwnedDeployment,
    only: Annotated[Only, Query(description="Which entries: `reviewed` are those corrected or accepted.")] = "reviewed",
) -> StreamingResponse:
    """The entries as a file that can be uploaded as a dataset, corrections in place of answers."""
    name = f'attachment; filename="{deployment.id}-traffic.jsonl"'
    return StreamingResponse(
        _lines(deployment, only), media_type="application/jsonl", headers={"Content-Disposition": name}
    )


async def _lines(deployment: Deployment, only: Only) -> AsyncIterator[str]:
    async with transaction() as session:
        async for row in traffic.examples(session, deployment, only):
            yield json.dumps(row, ensure_ascii=False) + "\n"


@router.get("/traffic/{traffic_id}", operation_id="retrieveDeploymentTrafficById", summary="Retrieve captured traffic")
async def retrieve_traffic(deployment: OwnedDeployment, traffic_id: str) -> TrafficEntry:
    """An entry, by its own id or by that of the answer."""
    async with transaction() as session:
        return TrafficEntry.model_validate(await traffic.get(session, deployment.id, traffic_id))


@router.put(
    "/traffic/{traffic_id}/correction",
    operation_id="correctDeploymentTrafficById",
    summary="Correct captured traffic",
)
async def correct_traffic(
    deployment: OwnedDeployment, traffic_id: str, body: TrafficCorrection, caller: CurrentCaller
) -> TrafficEntry:
    """Say what would have been right, checked by the deployment's task type; an earlier correction is replaced."""
    async with transaction() as session:
        row = await traffic.correct(session, deployment, traffic_id, body.output, caller.user_id)
        return TrafficEntry.model_validate(row)


@router.post(
    "/traffic/{traffic_id}/accept", operation_id="acceptDeploymentTrafficById", summary="Accept captured traffic"
)
async def accept_traffic(deployment: OwnedDeployment, traffic_id: str, caller: CurrentCaller) -> TrafficEntry:
    """Say that the answer was right; a correction is taken back."""
    async with transaction() as session:
        row = await traffic.accept(session, deployment, traffic_id, caller.user_id)
        return TrafficEntry.model_validate(row)


@router.delete(
    "/traffic/{traffic_id}",
    status_code=204,
    operation_id="deleteDeploymentTrafficById",
    summary="Delete an entry of captured traffic",
)
async def delete_traffic_entry(deployment: OwnedDeployment, traffic_id: str) -> None:
    """Remove one entry; datasets that runs made of it stay."""
    async with transaction() as session:
        await session.delete(await traffic.get(session, deployment.id, traffic_id))
