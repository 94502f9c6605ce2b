"""Dataset files that are too large for one request: begin, send the parts, complete."""

import uuid
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from emissary.api import links
from emissary.api.auth import CurrentCaller, OwnedProject
from emissary.api.completing import completed
from emissary.api.routing import keyed_router
from emissary.data.formats import named, unextended
from emissary.errors import InvalidInput, NotFound
from emissary.ids import new_id
from emissary.schemas.datasets import DatasetSummary
from emissary.schemas.fields import checked_name
from emissary.schemas.uploads import UploadCreate, UploadDetail, UploadPart
from emissary.settings import settings
from emissary.store import uploads
from emissary.store.artifacts import artifact_store
from emissary.store.database import transaction
from emissary.store.dataset_files import artifact_key, stored_name
from emissary.store.local_parts import LocalParts
from emissary.store.parts import Arriving
from emissary.store.tables import Upload

router = keyed_router("Datasets", "/v1/projects/{project_id}/datasets/uploads")
part_router = APIRouter(tags=["Datasets"])
_WRITE_BYTES = 1024 * 1024
_WAIT_SECONDS = 15.0  # no proxy gives up before that, and an API that is stopped still answers
_PART: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post("", status_code=201, operation_id="createUpload", summary="Begin an upload in parts")
async def create_upload(project: OwnedProject, body: UploadCreate, caller: CurrentCaller) -> UploadDetail:
    """Says where to PUT the parts of a file; uploads that were not completed within a day are removed."""
    limit = settings().max_large_upload_mb
    if body.bytes > limit * 1024 * 1024:
        raise InvalidInput(
            f"bytes: the file is larger than the limit of {limit} MiB (EMISSARY_MAX_LARGE_UPLOAD_MB).", code="too_large"
        )
    named(body.file_name)
    name = body.name or checked_name("name", unextended(body.file_name))
    store, dataset_id = artifact_store(), new_id("ds")
    async with transaction() as session:
        for old in await uploads.expired(session):
            if await uploads.dataset(session, old) is None:
                await run_in_threadpool(store.delete, artifact_key(old.dataset_id))
            await session.delete(old)
        state = await run_in_threadpool(store.parts.begin, artifact_key(dataset_id), stored_name(body.file_name))
        upload = Upload(
            id=new_id("up"),
            project_id=project.id,
            dataset_id=dataset_id,
            name=name,
            file_name=body.file_name,
            bytes=body.bytes,
            part_bytes=uploads.part_bytes(body.bytes),
            state=state,
            on_invalid=body.on_invalid,
            task_type=body.task_type,
            created_by=caller.user_id,
        )
        session.add(upload)
        await session.flush()
    return await run_in_threadpool(_detail, upload, set(), complete=False)


@router.get("/{upload_id}", operation_id="retrieveUpload", summary="Retrieve an upload in parts")
async def retrieve_upload(project: OwnedProject, upload_id: str) -> UploadDetail:
    """Which parts have arrived, and new links for those that have not."""
    async with transaction() as session:
        upload = await uploads.get(session, project.id, upload_id)
        complete = await uploads.dataset(session, upload) is not None
    arriving = uploads.arriving(upload)
    arrived = set(arriving.numbers)
    if not complete and upload.refused is None:
        arrived = await run_in_threadpool(artifact_store().parts.arrived, arriving)
    return await run_in_threadpool(_detail, upload, arrived, complete=complete)


def _detail(upload: Upload, arrived: set[int], *, complete: bool) -> UploadDetail:
    arriving, parts = uploads.arriving(upload), artifact_store().parts
    expires_at = upload.created_at + uploads.LIFETIME
    seconds = max(1, int((expires_at - datetime.now(UTC)).total_seconds()))

    def url(number: int) -> str:
        return parts.url(arriving, number, seconds) or links.sign_part(upload.id, number)

    return UploadDetail(
        id=upload.id,
        name=upload.name,
        file_name=upload.file_name,
        bytes=upload.bytes,
        part_bytes=upload.part_bytes,
        parts=[
            UploadPart(
                number=number,
                bytes=arriving.size(number),
                arrived=number in arrived,
                url=None if number in arrived else url(number),
            )
            for number in arriving.numbers
        ],
        dataset_id=upload.dataset_id if complete else None,
        refused=upload.refused,
        on_invalid=upload.on_invalid,
        task_type=upload.task_type,
        created_at=upload.created_at,
        expires_at=expires_at,
    )


@router.post(
    "/{upload_id}/complete",
    status_code=201,
    operation_id="completeUpload",
    summary="Complete an upload in parts",
    response_model=DatasetSummary,
    responses={202: {"model": UploadDetail, "description": "The rows are still being read; ask again."}},
)
async def complete_upload(project: OwnedProject, upload_id: str) -> DatasetSummary | Response:
    """Registers the dataset once every row is read; 202 when that takes longer: repeat the request to wait on.

    A repeated request joins the reading that is under way, and gets its result for a day. A file that cannot be used
    is refused and removed.
    """
    async with transaction() as session:
        upload = await uploads.get(session, project.id, upload_id)
        dataset = await uploads.dataset(session, upload)
    if upload.refused is not None:
        raise InvalidInput(upload.refused, details=upload.refused_details)
    if dataset is None and (dataset := await completed(upload, _WAIT_SECONDS)) is None:
        unfinished = await run_in_threadpool(_detail, upload, set(uploads.arriving(upload).numbers), complete=False)
        return JSONResponse(unfinished.model_dump(mode="json"), 202)
    return DatasetSummary.model_validate(dataset)


@router.delete("/{upload_id}", status_code=204, operation_id="deleteUpload", summary="Give up an upload in parts")
async def delete_upload(project: OwnedProject, upload_id: str) -> None:
    """Removes what has arrived; 400 once it is complete."""
    async with transaction() as session:
        upload = await uploads.get(session, project.id, upload_id, lock=True)
        if await uploads.dataset(session, upload) is not None:
            raise InvalidInput(
                f"The upload {upload_id} is complete; it is dataset {upload.dataset_id} now. Delete that instead."
            )
        await session.delete(upload)
        await run_in_threadpool(artifact_store().delete, artifact_key(upload.dataset_id))


@part_router.put(
    "/v1/uploads/{token}", status_code=204, operation_id="putPart", summary="Send a part", openapi_extra=_PART
)
async def put_part(token: str, request: Request) -> None:
    """Takes a part of exactly the size that the upload says; the link itself is the permission. May be repeated."""
    link, parts = links.read_part(token), artifact_store().parts
    async with transaction() as session:
        arriving = uploads.arriving(await uploads.unfinished(session, link.upload_id))
    if not isinstance(parts, LocalParts):
        raise NotFound("Parts go to the artifact store itself; ask the API for new links.")
    await _receive(request, parts, arriving, link.number)


async def _receive(request: Request, parts: LocalParts, arriving: Arriving, number: int) -> None:
    """Write the body to the disk, then make it the part. Raises InvalidInput when it is not of the part's size."""
    wanted, received, waiting = arriving.size(number), 0, bytearray()
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) != wanted:
        raise _wrong_size(number, declared, wanted)
    draft = parts.folder(arriving) / uuid.uuid4().hex
    try:
        with draft.open("wb") as file:
            async for chunk in request.stream():
                received += len(chunk)
                if received > wanted:
                    raise _wrong_size(number, "more", wanted)
                waiting += chunk
                if len(waiting) >= _WRITE_BYTES:
                    await run_in_threadpool(file.write, bytes(waiting))
                    waiting.clear()
            await run_in_threadpool(file.write, bytes(waiting))
        if received != wanted:
            raise _wrong_size(number, str(received), wanted)
        await run_in_threadpool(parts.keep, arriving, number, draft)
    except ClientDisconnect as error:
        raise InvalidInput(f"The connection ended before the whole part {number} was sent; send it again.") from error
    finally:
        draft.unlink(missing_ok=True)


def _wrong_size(number: int, found: str, wanted: int) -> InvalidInput:
    return InvalidInput(f"The body of part {number} must have {wanted} bytes, not {found}.", code="wrong_size")
