"""Uploads a dataset file: in one request, or in parts that an interrupted upload goes on from."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx

from emissary.client import ApiError, Client
from emissary.data.rows import OnInvalid, TaskType
from emissary.errors import EmissaryError, InvalidInput, Unavailable
from emissary.settings import settings

Progress = Callable[[int, int], None]
"""Told the bytes that have been sent, and how many there are."""

_READ_BYTES = 256 * 1024
_SEND_TIMEOUT = httpx.Timeout(120.0, connect=10.0)
_PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds before what failed for now is tried again, of which an API that is restarted needs about ten."""
_T = TypeVar("_T")


def upload_dataset(
    client: Client,
    project_id: str,
    path: Path,
    name: str | None = None,
    on_progress: Progress | None = None,
    *,
    on_invalid: OnInvalid = "refuse",
    task_type: TaskType | None = None,
) -> dict[str, Any]:
    """Upload the file at `path` as a dataset called `name` (None: as the file), whose rows are to fit
    `task_type` (None: what most of them do); returns the API's summary of it.

    A file over EMISSARY_MAX_UPLOAD_MB, ours or the server's, goes in parts; a part that fails is sent again for about
    a minute. When the upload is interrupted, calling this again for the unchanged file sends what is missing. Raises
    InvalidInput without such a file, ApiError when the API refuses it, Unavailable when the connection stays broken.
    """
    if not path.is_file():
        raise InvalidInput(f"There is no file {path}.")
    given = {"on_invalid": on_invalid, "name": name, "task_type": task_type}
    fields = {field: value for field, value in given.items() if value is not None}
    show = on_progress or (lambda _sent, _total: None)
    if path.stat().st_size <= settings().max_upload_mb * 1024 * 1024:
        try:
            return _send_whole(client, project_id, path, fields, show)
        except ApiError as error:
            if error.code != "too_large":
                raise
    return _send_parts(client, project_id, path, fields, show)


class _Counted:
    """A file that says how much of it was read."""

    def __init__(self, path: Path, show: Progress) -> None:
        self._file, self._size, self._show = path.open("rb"), path.stat().st_size, show

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        self._show(self._file.tell(), self._size)
        return content

    def fileno(self) -> int:
        return self._file.fileno()

    def seek(self, offset: int) -> int:
        return self._file.seek(offset)

    def close(self) -> None:
        self._file.close()


def _send_whole(client: Client, project_id: str, path: Path, fields: dict[str, str], show: Progress) -> dict[str, Any]:
    file = _Counted(path, show)
    try:
        answer: dict[str, Any] = client.call(
            "POST", f"/v1/projects/{project_id}/datasets", files={"file": (path.name, file)}, data=fields
        )
    finally:
        file.close()
    return answer


def _send_parts(client: Client, project_id: str, path: Path, fields: dict[str, str], show: Progress) -> dict[str, Any]:
    uploads = f"/v1/projects/{project_id}/datasets/uploads"
    noted = _note(client, project_id, path, fields)
    upload = _resumed(client, uploads, noted)
    if upload is None:
        upload = client.post(uploads, {"file_name": path.name, "bytes": path.stat().st_size} | fields)
        noted.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        noted.write_text(json.dumps({"upload_id": upload["id"]}))
    if upload["refused"] is None:
        _send_missing(upload, path, show)
    try:
        dataset = _complete(client, f"{uploads}/{upload['id']}/complete")
    except ApiError as error:
        if error.status < 500 and error.code != "parts_missing":
            noted.unlink()
        raise
    noted.unlink()
    return dataset


def _send_missing(upload: dict[str, Any], path: Path, show: Progress) -> None:
    sent = sum(part["bytes"] for part in upload["parts"] if part["arrived"])
    show(sent, upload["bytes"])
    # Without the key: a part may go to another server, and its link is the permission.
    with httpx.Client(timeout=_SEND_TIMEOUT, trust_env=False) as http:
        for part in upload["parts"]:
            if not part["arrived"]:
                start = (part["number"] - 1) * upload["part_bytes"]

                def send(part: dict[str, Any] = part, start: int = start, sent: int = sent) -> None:
                    _send_part(http, part, _slice(path, start, part["bytes"], sent, upload["bytes"], show))

                _repeated(send)
                sent += part["bytes"]


def _complete(client: Client, path: str) -> dict[str, Any]:
    """The dataset, once the API has read all rows: until then it answers now and then that it has not."""
    while True:
        answer: dict[str, Any] = _repeated(lambda: client.call("POST", path))
        if "parts" not in answer:
            return answer


def _repeated(attempt: Callable[[], _T]) -> _T:
    """What `attempt` returns; one that fails for now is repeated, each time after a longer pause."""
    for seconds in _PAUSES:
        try:
            return attempt()
        except EmissaryError as error:
            if error.status < 500:
                raise
        time.sleep(seconds)
    return attempt()


def _note(client: Client, project_id: str, path: Path, fields: dict[str, str]) -> Path:
    """Where the id of the upload of this very file is kept until it is complete."""
    stat = path.stat()
    what = [str(client.http.base_url), project_id, str(path.resolve()), stat.st_size, stat.st_mtime_ns, fields]
    return settings().home / "uploads" / f"{hashlib.sha256(json.dumps(what).encode()).hexdigest()[:32]}.json"


def _resumed(client: Client, uploads: str, noted: Path) -> dict[str, Any] | None:
    """The upload that was interrupted; None when there is none, or it is gone from the server."""
    if not noted.exists():
        return None
    try:
        upload: dict[str, Any] = client.get(f"{uploads}/{json.loads(noted.read_text())['upload_id']}")
    except ApiError as error:
        if error.status != 404:
            raise
        return None
    return upload


def _slice(path: Path, start: int, size: int, sent: int, total: int, show: Progress) -> Iterator[bytes]:
    """The `size` bytes of the file from `start`; `sent` bytes of it are on the server before."""
    done = 0
    with path.open("rb") as file:
        file.seek(start)
        while done < size and (chunk := file.read(min(_READ_BYTES, size - done))):
            yield chunk
            done += len(chunk)
            show(sent + done, total)


def _send_part(http: httpx.Client, part: dict[str, Any], content: Iterator[bytes]) -> None:
    try:
        response = http.put(part["url"], content=content, headers={"Content-Length": str(part["bytes"])})
    except httpx.TransportError as error:
        raise Unavailable(
            f"The upload was interrupted at part {part['number']} ({error}); run it again to go on from there."
        ) from error
    if response.is_error:
        kind = Unavailable if response.is_server_error else InvalidInput
        raise kind(
            f"Part {part['number']} was refused ({response.status_code}: {response.text[:300]}); run the upload again "
            "to go on from there."
        )
