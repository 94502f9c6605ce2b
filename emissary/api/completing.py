"""Completing an upload in parts: every row is read in a process of its own, however long that takes and whoever waits.

One task per upload does it. Requests wait for the task, and one that is repeated waits for the same, so a connection
that broke off loses nothing.
"""

import asyncio
from contextvars import Context

from anyio import to_process
from starlette.concurrency import run_in_threadpool

from emissary.api import submit
from emissary.data.rows import OnInvalid, TaskType
from emissary.errors import InvalidInput, NotFound
from emissary.processes import die_with_parent
from emissary.store import pipeline_triggers, uploads
from emissary.store.artifacts import artifact_store
from emissary.store.database import transaction
from emissary.store.dataset_files import store_arrived
from emissary.store.parts import Arriving
from emissary.store.tables import Dataset, Upload

_running: dict[str, asyncio.Task[Dataset]] = {}


async def completed(upload: Upload, seconds: float) -> Dataset | None:
    """The dataset that `upload` becomes; None when its rows are still being read after `seconds`.

    Raises InvalidInput when the file cannot be used, with the code `parts_missing` while parts of it have not arrived;
    NotFound when the upload was given up meanwhile.
    """
    task = _running.get(upload.id)
    if task is None:
        # In a context of its own, for the task outlives the request and its transaction.
        task = _running[upload.id] = asyncio.create_task(_complete(upload), context=Context())
        task.add_done_callback(lambda done: _forget(upload.id, done))
    await asyncio.wait({task}, timeout=seconds)
    return task.result() if task.done() else None


def _forget(upload_id: str, done: asyncio.Task[Dataset]) -> None:
    del _running[upload_id]
    if not done.cancelled():
        done.exception()  # read, or asyncio would complain where no request waited to the end


async def _complete(upload: Upload) -> Dataset:
    arriving = uploads.arriving(upload)
    try:
        # Ended with the task: nobody would hear what it finds.
        read = await to_process.run_sync(
            _read,
            arriving,
            upload.dataset_id,
            upload.file_name,
            upload.on_invalid,
            upload.task_type,
            cancellable=True,
        )
    except Exception as error:
        # The files go when the upload is given up, and when another process of the API has completed it.
        async with transaction() as session:
            known = await uploads.dataset(session, await uploads.get(session, upload.project_id, upload.id))
        if known is not None:
            return known
        if isinstance(error, InvalidInput) and error.code != "parts_missing":
            await _refuse(upload, error)
        raise
    try:
        return await _register(upload, read)
    except NotFound:
        await run_in_threadpool(artifact_store().delete, arriving.key)
        raise


def _read(
    arriving: Arriving, dataset_id: str, file_name: str, on_invalid: OnInvalid, task_type: TaskType | None
) -> Dataset:
    die_with_parent()
    return store_arrived(arriving, dataset_id, file_name, on_invalid, task_type)


async def _register(upload: Upload, dataset: Dataset) -> Dataset:
    async with transaction() as session:
        row = await uploads.get(session, upload.project_id, upload.id, lock=True)
        if (known := await uploads.dataset(session, row)) is not None:
            return known
        dataset.project_id, dataset.name, dataset.upload_by = row.project_id, row.name, row.created_by
        session.add(dataset)
        await session.flush()
        runs = await pipeline_triggers.dataset_uploaded(session, dataset)
    for run in runs:
        await submit.submit(run)
    return dataset


async def _refuse(upload: Upload, error: InvalidInput) -> None:
    """Keep why for whoever asks again; the file goes."""
    async with transaction() as session:
        row = await uploads.get(session, upload.project_id, upload.id, lock=True)
        row.refused, row.refused_details = str(error), error.details
    await run_in_threadpool(artifact_store().delete, uploads.arriving(upload).key)
