"""What the tests of refused requests share."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from emissary.client import ApiError, Client

MODEL = "SmolLM2-135M-Instruct"
GOOD = b'{"prompt": "Say red.", "completion": "red"}\n'
LIMIT = 1024 * 1024  # bytes, as the fixture `platform` sets it
BAD_NAMES = {
    "parent folder": "../escaped",
    "slash": "a/b",
    "backslash": "a\\b",
    "dots": "..",
    "line feed": "a\nb",
    "NUL": "a\x00b",
    "terminal escape": "a\x1b[31mb",
    "outer space": " a",
    "empty": "",
    "too long": "a" * 101,
}
bad_name = pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES)


def upload(client: Client, project: str, content: bytes, file_name: str = "rows.jsonl", **form: str) -> Any:
    files = {"file": (file_name, content)}
    return client.call("POST", f"/v1/projects/{project}/datasets", files=files, data=form)


def everything(client: Client, project: str) -> set[str]:
    """Ids of all that is listed, and of the datasets in the artifact store."""
    lists = ("datasets", "training-jobs", "deployments")
    paths = ["/v1/projects", "/v1/engines", *(f"/v1/projects/{project}/{kind}" for kind in lists)]
    store = Path(os.environ["EMISSARY_HOME"]) / "artifacts"
    folders = {path.name for path in store.glob("datasets/*")}  # runs of other tests make other ones
    return folders | {row["id"] for path in paths for row in client.get(path)}


@contextmanager
def refused(client: Client, project: str, *words: str, status: int = 400) -> Iterator[None]:
    """The block is refused by the API in a sentence with all of `words`, and leaves nothing behind."""
    before = everything(client, project)
    with pytest.raises(ApiError) as raised:
        yield
    sentence = str(raised.value)
    assert raised.value.status == status, sentence
    for word in words:
        assert word in sentence
    assert sentence.isprintable()
    assert everything(client, project) == before


def envelope(response: httpx.Response, status: int, code: str) -> None:
    """The response is an error of that status and code, in the API's one shape."""
    body = response.json()
    assert set(body) == {"status", "error", "code"}
    assert (response.status_code, body["status"], body["code"]) == (status, status, code)
    assert len(body["error"]) > 10
