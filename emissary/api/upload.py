"""Reads a multipart upload to disk without holding it in memory, and stops when it grows past the limit."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.types import Message

from emissary.errors import InvalidInput

_FORM_OVERHEAD = 64 * 1024


@asynccontextmanager
async def uploaded_form(request: Request, max_mb: int) -> AsyncIterator[tuple[UploadFile, dict[str, str]]]:
    """The form's `file`, spooled to disk, and its other fields. Raises InvalidInput naming the field that is wrong."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise InvalidInput("The body must be multipart/form-data with the dataset as the field `file`.")
    limit = max_mb * 1024 * 1024
    too_large = InvalidInput(
        f"file: it is larger than the limit of {max_mb} MiB (EMISSARY_MAX_UPLOAD_MB); send it in parts "
        "(`emissary datasets upload`, or POST …/datasets/uploads).",
        code="too_large",
    )
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit + _FORM_OVERHEAD:
        raise too_large
    received = 0
    receive = request.receive

    async def counted() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit + _FORM_OVERHEAD:
            raise too_large
        return message

    async with Request(request.scope, counted).form(max_files=1, max_fields=8) as form:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise InvalidInput("file: the dataset file is missing from the form.")
        if (file.size or 0) > limit:
            raise too_large
        texts = {name: value for name, value in form.items() if isinstance(value, str)}
        if others := form.keys() - texts.keys() - {"file"}:
            raise InvalidInput(f"{min(others)}: it must be text, not a file.")
        yield file, texts
