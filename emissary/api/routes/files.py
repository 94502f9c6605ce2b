"""Downloads by signed link."""

import shutil
import tempfile
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool

from emissary.api import links
from emissary.store.artifacts import artifact_store

router = APIRouter(tags=["Files"])


@router.get("/v1/files/{token}", summary="Download by signed link", response_class=FileResponse)
async def download(token: str) -> FileResponse:
    """The file, or the artifact as a zip archive; the link itself is the permission."""
    link = links.read(token)
    store = artifact_store()
    if link.file is not None:
        return FileResponse(store.file(link.key, link.file), filename=link.save_as)
    folder = await run_in_threadpool(store.folder, link.key)
    scratch = Path(tempfile.mkdtemp(prefix="emissary-download-"))
    archive = await run_in_threadpool(shutil.make_archive, str(scratch / "archive"), "zip", folder)
    cleanup = BackgroundTask(shutil.rmtree, scratch)
    return FileResponse(archive, filename=link.save_as, media_type="application/zip", background=cleanup)
