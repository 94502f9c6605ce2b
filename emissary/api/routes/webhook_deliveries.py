"""What other systems send to webhooks. No API key: the signature is the permission."""

import hashlib
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from emissary.api import submit, webhook_signatures
from emissary.data import strict_json
from emissary.errors import InvalidInput
from emissary.payload_templates import reads, rendered
from emissary.schemas.pipelines import PipelineRunCreate
from emissary.schemas.webhooks import WebhookAnswer
from emissary.store import pipeline_runs, pipelines, webhook_deliveries
from emissary.store.database import transaction
from emissary.store.pipeline_tables import Webhook

router = APIRouter(tags=["Webhooks"])
MAX_BYTES = 1024 * 1024
_SECRET_HEADERS = ("authorization", "x-webhook-token", "x-api-key", "cookie")
_BODY: dict[str, Any] = {
    "requestBody": {
        "content": {
            "application/json": {
                "schema": {"description": "Anything.", "examples": [{"dataset_id": "ds-8hJ3mPz5QaUc6WkTxS0bVe"}]}
            }
        }
    }
}
_ERROR = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"model": WebhookAnswer, "description": "GitHub's ping; it begins nothing."},
    401: {
        "description": "There is no such webhook, it is not signed with its secret, or was signed too long ago.",
        "content": _ERROR,
    },
    409: {"description": "The delivery's id came with another body before.", "content": _ERROR},
    413: {"description": "The body is larger than 1 MiB.", "content": _ERROR},
}


@router.post(
    "/v1/webhooks/{webhook_id}",
    status_code=202,
    operation_id="receiveWebhook",
    summary="Start a pipeline by webhook",
    responses=_RESPONSES,
    openapi_extra=_BODY,
)
async def receive_webhook(webhook_id: str, request: Request, response: Response) -> WebhookAnswer:
    """Runs the webhook's pipeline as its parameters say, once for each delivery's id; also while it is paused.

    Without parameters of its own a delivery joins a run that waits and has not looked for data yet.
    """
    body = await _body(request)
    async with transaction() as session:
        found = await session.get(Webhook, webhook_id)
    webhook, delivery_id = webhook_signatures.verified(found, request.headers, body)
    if webhook.scheme == "github" and request.headers.get("x-github-event") == "ping":
        response.status_code = HTTPStatus.OK
        return WebhookAnswer(pipeline_run_id=None)
    digest = hashlib.sha256(body).hexdigest()
    async with transaction() as session:
        # So one delivery is looked at after the other.
        pipeline = await pipelines.locked(session, webhook.pipeline_id)
        run = None
        if delivery_id is not None:
            run = await webhook_deliveries.run_of(session, webhook, delivery_id, digest)
        if run is None:
            wanted = _wanted(webhook, request, body)
            if not webhook.parameters:
                run = await pipeline_runs.waiting(session, pipeline)
            run = run or await pipeline_runs.create(
                session, pipeline, "webhook", webhook.created_by, wanted, trigger_id=webhook.id
            )
            await webhook_deliveries.record(session, webhook, delivery_id, digest, run)
    await submit.submit(run)
    return WebhookAnswer(pipeline_run_id=run.id)


async def _body(request: Request) -> bytes:
    """The body. Raises HTTPException (413) as soon as it is known to be too large."""
    too_large = HTTPException(413, f"The body is larger than {MAX_BYTES // 1024**2} MiB; send less.")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > MAX_BYTES:
        raise too_large
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BYTES:
                raise too_large
    except ClientDisconnect as error:
        raise InvalidInput("The connection ended before the whole body was sent; send it again.") from error
    return bytes(body)


def _wanted(webhook: Webhook, request: Request, body: bytes) -> PipelineRunCreate:
    """What the webhook's templates make of the request. Raises InvalidInput, naming what is missing or wrong."""
    if not webhook.parameters:
        return PipelineRunCreate()  # whatever the body is
    headers = {name: value for name, value in request.headers.items() if name not in _SECRET_HEADERS}
    of_body = any(reads(template, "payload") for templates in webhook.parameters.values() for template in templates)
    values = {"payload": _payload(body) if of_body else None, "headers": headers}
    made: dict[str, list[Any]] = {}
    for name, templates in webhook.parameters.items():
        found = [rendered(template, values) for template in templates]
        made[name] = [each for value in found for each in (value if isinstance(value, list) else [value])]
    try:
        return PipelineRunCreate.model_validate(made)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        message = problem["msg"].removeprefix("Value error, ")
        templates = webhook.parameters[str(problem["loc"][0])]
        raise InvalidInput(f"{where}: {message}; it was made of {templates}.") from error


def _payload(body: bytes) -> Any:
    try:
        return strict_json.decode(body.decode())
    except ValueError as error:
        raise InvalidInput(f"The body is not JSON, which the webhook's parameters are read from ({error}).") from error
