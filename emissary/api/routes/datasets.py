"""Datasets: upload, list, retrieve, delete."""

import hashlib
from pathlib import PurePath
from typing import IO, Any, cast, get_args

from anyio import CancelScope
from fastapi import Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from emissary.api import deleting, idempotency, links, submit
from emissary.api.auth import CurrentCaller, OwnedProject
from emissary.api.paging import WantedPage, link_next
from emissary.api.routing import keyed_router
from emissary.api.upload import uploaded_form
from emissary.data.formats import unextended
from emissary.data.rows import TASK_TYPES, OnInvalid, TaskType
from emissary.errors import InvalidInput
from emissary.ids import new_id
from emissary.schemas.datasets import DatasetDetail, DatasetSummary
from emissary.schemas.fields import checked_name
from emissary.schemas.uploads import ON_INVALID, TASK_TYPE
from emissary.settings import settings
from emissary.store import datasets, leftovers, pipeline_triggers
from emissary.store.database import transaction
from emissary.store.dataset_files import store_file, stored_name
from emissary.store.tables import Dataset

router = keyed_router("Datasets")
_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {
                            "type": "string",
                            "format": "binary",
                            "description": "JSONL, JSON, CSV or Parquet, also packed with gzip or zstd.",
                        },
                        "name": {"type": "string", "description": "Name of the dataset; default the file's."},
                        "on_invalid": {
                            "enum": list(get_args(OnInvalid)),
                            "default": "refuse",
                            "description": ON_INVALID,
                        },
                        "task_type": {"enum": list(TASK_TYPES), "description": TASK_TYPE},
                    },
                }
            }
        },
    }
}


@router.post(
    "/v1/projects/{project_id}/datasets",
    status_code=201,
    operation_id="createDataset",
    summary="Upload dataset",
    response_model=DatasetSummary,
    openapi_extra=_FORM,
)
async def create_dataset(project: OwnedProject, request: Request, caller: CurrentCaller) -> Response:
    """Stores a dataset after reading every row of it; one that cannot be used is refused and leaves nothing."""
    async with uploaded_form(request, settings().max_upload_mb) as (upload, fields):
        file_name = checked_name("file", PurePath(upload.filename or "").name)
        name = checked_name("name", fields.get("name", unextended(file_name)))
        on_invalid = _on_invalid(fields.get("on_invalid", "refuse"))
        task_type = _task_type(fields.get("task_type"))

        async def create() -> Response:
            coming = leftovers.of_coming_dataset(new_id("ds"))
            async with transaction() as session:
                await leftovers.add(session, [coming])
            try:
                row = await run_in_threadpool(store_file, upload.file, file_name, on_invalid, coming.id, task_type)
                row.project_id, row.name, row.upload_by = project.id, name, caller.user_id
                async with transaction() as session:
                    await leftovers.has_come(session, coming)
                    session.add(row)
                    await session.flush()
                    runs = await pipeline_triggers.dataset_uploaded(session, row)
            except BaseException:
                with CancelScope(shield=True):
                    await deleting.give_up(coming)
                raise
            for run in runs:
                await submit.submit(run)
            return JSONResponse(DatasetSummary.model_validate(row).model_dump(mode="json"), 201)

        digest = await run_in_threadpool(_sha256, upload.file)
        asked = "\n".join([name, file_name, digest, on_invalid, *([task_type] if task_type else [])])
        return await idempotency.answer_once(request, asked.encode(), create)


def _on_invalid(value: str) -> OnInvalid:
    if value not in get_args(OnInvalid):
        raise InvalidInput(f"on_invalid: it must be {' or '.join(get_args(OnInvalid))}.")
    return cast(OnInvalid, value)


def _task_type(value: str | None) -> TaskType | None:
    if value not in (None, *TASK_TYPES):
        raise InvalidInput(f"task_type: it must be one of {', '.join(TASK_TYPES)}.")
    return value


def _sha256(file: IO[bytes]) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


@router.get("/v1/projects/{project_id}/datasets", operation_id="listDatasets", summary="List datasets")
async def list_datasets(
    project: OwnedProject, page: WantedPage, request: Request, response: Response
) -> list[DatasetSummary]:
    """The project's datasets, the newest first."""
    async with transaction() as session:
        rows = await datasets.list_all(session, project.id, page)
    link_next(request, response, page, [row.id for row in rows])
    return [DatasetSummary.model_validate(row) for row in rows]


@router.get(
    "/v1/projects/{project_id}/datasets/{dataset_id}", operation_id="retrieveDatasetById", summary="Retrieve dataset"
)
async def retrieve_dataset(project: OwnedProject, dataset_id: str) -> DatasetDetail:
    """A dataset with what its validation and, soon after the upload, its profile found."""
    async with transaction() as session:
        row = await datasets.get(session, project.id, dataset_id)
    return await run_in_threadpool(_detail, row)


def _detail(row: Dataset) -> DatasetDetail:
    profile = row.report | {"bytes": row.bytes, "sha256": row.sha256}
    if row.profile is not None and row.profile_artifact is not None:
        names = row.profile["plots"]
        plots = {name: links.sign(row.profile_artifact, f"{name}.png", f"{row.name}-{name}.png") for name in names}
        warnings = row.report["warnings"] + row.profile["warnings"]
        profile |= row.profile | {"warnings": warnings, "plots": plots}
    return DatasetDetail(
        id=row.id,
        name=row.name,
        created_at=row.created_at,
        updated_at=row.updated_at,
        is_profiled=row.is_profiled,
        profile_status=row.status,
        profile_error=row.error,
        upload_by=row.upload_by,
        dataset_download_url=links.sign(row.artifact, stored_name(row.file_name), row.file_name),
        compatible_task_types=row.report["compatible_task_types"],
        profile=profile,
    )


@router.delete(
    "/v1/projects/{project_id}/datasets/{dataset_id}",
    status_code=204,
    operation_id="deleteDatasetById",
    summary="Delete dataset",
)
async def delete_dataset(project: OwnedProject, dataset_id: str) -> None:
    """Removes row and files; 400 while a training job was made from it."""
    async with transaction() as session:
        row = await datasets.get(session, project.id, dataset_id)
        await datasets.delete(session, row)
        left = [leftovers.of_dataset(dataset_id, row.sha256)]
        await leftovers.add(session, left)
    await deleting.clear(left)
