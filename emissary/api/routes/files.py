"""Downloads by signed link."""

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from emissary.api import links
from emissary.api.archive import zip_chunks
from emissary.store.artifacts import artifact_store, not_complete

router = APIRouter(tags=["Files"])
_TYPES = ("application/octet-stream", "application/zip", "image/png")
_BINARY = {"content": {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in _TYPES}}


@router.get("/v1/files/{token}", summary="Download by signed link", response_class=Response, responses={200: _BINARY})
async def download(token: str) -> Response:
    """The file, or the artifact as a zip archive; the link itself is the permission."""
    link, store = links.read(token), artifact_store()
    headers = {"Content-Disposition": links.attachment(link.save_as), "X-Content-Type-Options": "nosniff"}
    if link.file is not None:
        path = await run_in_threadpool(store.file, link.key, link.file)
        # A page shows a plot only where its type is said.
        media_type = "image/png" if path.suffix == ".png" else "application/octet-stream"
        return FileResponse(path, media_type=media_type, headers=headers)
    manifest = await run_in_threadpool(store.manifest, link.key)
    if manifest is None:
        raise not_complete(link.key)
    archive = zip_chunks(store, link.key, manifest)
    return StreamingResponse(archive, media_type="application/zip", headers=headers)
