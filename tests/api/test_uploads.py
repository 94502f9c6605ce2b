"""Files over the limit of a direct upload: in parts, completed once, refused whole, given up whole."""

import asyncio
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from emissary.api.completing import completed
from emissary.client import ApiError, Client
from emissary.errors import NotFound
from emissary.store.database import dispose
from emissary.store.tables import Upload
from tests.api.refusals import GOOD, LIMIT, envelope, everything, refused
from tests.catalogue import in_catalogue

PART = 8 * 1024 * 1024
ROW = b'{"prompt": "a", "completion": "' + b"x" * (LIMIT // 2 - 34) + b'"}\n'
CONTENT = ROW * 17  # two parts


def begun(client: Client, project: str, content: bytes = CONTENT, **more: Any) -> dict[str, Any]:
    body = {"file_name": "large.jsonl", "bytes": len(content)} | more
    made: dict[str, Any] = client.post(f"/v1/projects/{project}/datasets/uploads", body)
    return made


def send(upload: dict[str, Any], number: int, content: bytes = CONTENT) -> httpx.Response:
    part = upload["parts"][number - 1]
    start = (number - 1) * upload["part_bytes"]
    return httpx.put(part["url"], content=content[start : start + part["bytes"]], trust_env=False, timeout=60)


def test_parts_become_a_dataset_once(client: Client, project: str) -> None:
    upload = begun(client, project, name="large")
    path = f"/v1/projects/{project}/datasets/uploads/{upload['id']}"
    assert [part["bytes"] for part in upload["parts"]] == [PART, len(CONTENT) - PART]
    assert upload["expires_at"] - upload["created_at"] == 24 * 3600
    assert send(upload, 2).status_code == 204
    with refused(client, project, "1 of 2 parts have not arrived (1)"):
        client.post(f"{path}/complete")
    resumed = client.get(path)
    assert [part["arrived"] for part in resumed["parts"]] == [False, True]
    assert resumed["parts"][1]["url"] is None
    assert send(resumed, 1).status_code == 204
    dataset = client.post(f"{path}/complete")
    assert (dataset["name"], dataset["is_uploaded"]) == ("large", True)
    assert client.post(f"{path}/complete") == dataset
    assert client.get(path)["dataset_id"] == dataset["id"]
    envelope(send(upload, 1), 404, "object_not_found")
    with refused(client, project, "complete", dataset["id"]):
        client.call("DELETE", path)
    detail = client.get(f"/v1/projects/{project}/datasets/{dataset['id']}")
    assert detail["profile"]["rows"] == 17
    answer = httpx.get(detail["dataset_download_url"], trust_env=False)
    assert answer.content == CONTENT
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''large.jsonl"
    client.call("DELETE", f"/v1/projects/{project}/datasets/{dataset['id']}")
    with pytest.raises(ApiError) as error:
        client.get(path)
    assert error.value.status == 404
    assert not leftovers(dataset["id"])


def leftovers(dataset_id: str) -> list[Path]:
    return list((Path(os.environ["EMISSARY_HOME"]) / "artifacts").rglob(f"*{dataset_id}*"))


def test_file_that_cannot_be_used_is_refused_naming_the_line_and_nothing_is_left(client: Client, project: str) -> None:
    content = GOOD + b'{"prompt": "a"}\n'
    before = everything(client, project)
    files = set(leftovers("ds-"))
    upload = begun(client, project, content)
    assert send(upload, 1, content).status_code == 204
    path = f"/v1/projects/{project}/datasets/uploads/{upload['id']}"
    sentences = set()
    for _ in range(2):  # whoever did not hear it may ask again
        response = client.http.post(f"{path}/complete")
        assert response.status_code == 400
        assert response.json()["problems"] == [{"line": 2, "reason": "'completion' is missing"}]
        assert response.json()["problem_count"] == 1
        sentences.add(response.json()["error"])
    found = client.get(path)
    assert sentences == {found["refused"]}
    assert found["refused"].startswith("Line 2")
    assert (found["dataset_id"], found["parts"][0]["url"]) == (None, None)
    envelope(send(upload, 1, content), 404, "object_not_found")
    assert everything(client, project) == before
    assert set(leftovers("ds-")) == files
    client.delete(path)
    envelope(client.http.get(path), 404, "object_not_found")


def test_unusable_rows_of_a_file_in_parts_are_left_out_where_that_is_asked_for(client: Client, project: str) -> None:
    content = GOOD + b'{"prompt": "a"}\n' + GOOD
    upload = begun(client, project, content, on_invalid="skip")
    assert upload["on_invalid"] == "skip"
    assert send(upload, 1, content).status_code == 204
    dataset = client.post(f"/v1/projects/{project}/datasets/uploads/{upload['id']}/complete")
    profile = client.get(f"/v1/projects/{project}/datasets/{dataset['id']}")["profile"]
    assert (profile["rows"], profile["skipped"]) == (2, 1)
    client.delete(f"/v1/projects/{project}/datasets/{dataset['id']}")


def test_rows_of_a_file_in_parts_that_do_not_fit_the_task_type_are_left_out(client: Client, project: str) -> None:
    content = b"input,expected_output\ngood,5\nfair,n/a\nbad,1\n"
    upload = begun(client, project, content, file_name="ratings.csv", on_invalid="skip", task_type="regression")
    assert upload["task_type"] == "regression"
    assert send(upload, 1, content).status_code == 204
    dataset = client.post(f"/v1/projects/{project}/datasets/uploads/{upload['id']}/complete")
    detail = client.get(f"/v1/projects/{project}/datasets/{dataset['id']}")
    assert "regression" in detail["compatible_task_types"]
    assert (detail["profile"]["rows"], detail["profile"]["problems"][0]["line"]) == (2, 3)
    client.delete(f"/v1/projects/{project}/datasets/{dataset['id']}")


def row_of(upload_id: str) -> Upload:
    return in_catalogue(lambda session: session.get_one(Upload, upload_id))


def test_completions_at_once_wait_for_one_reading(client: Client, project: str) -> None:
    upload = begun(client, project)
    assert [send(upload, number).status_code for number in (1, 2)] == [204, 204]
    row = row_of(upload["id"])

    async def complete() -> tuple[Any, list[Any]]:
        try:
            return await completed(row, seconds=0), await asyncio.gather(*(completed(row, 60) for _ in range(3)))
        finally:
            await dispose()

    unfinished, made = asyncio.run(complete())
    assert unfinished is None
    assert {id(dataset) for dataset in made} == {id(made[0])}
    path = f"/v1/projects/{project}/datasets/uploads/{upload['id']}"
    assert client.post(f"{path}/complete")["id"] == made[0].id == client.get(path)["dataset_id"]


def test_upload_given_up_while_it_is_read_leaves_nothing(client: Client, project: str) -> None:
    files = set(leftovers("ds-"))
    upload = begun(client, project)
    assert [send(upload, number).status_code for number in (1, 2)] == [204, 204]
    row = row_of(upload["id"])

    async def complete() -> None:
        try:
            assert await completed(row, seconds=0) is None
            client.delete(f"/v1/projects/{project}/datasets/uploads/{upload['id']}")
            with pytest.raises(NotFound):
                await completed(row, 60)
        finally:
            await dispose()

    asyncio.run(complete())
    assert set(leftovers("ds-")) == files


@pytest.mark.parametrize("size", [0, len(GOOD) - 1, len(GOOD) + 1, 5 * LIMIT])
def test_part_of_another_size_is_refused(client: Client, project: str, size: int) -> None:
    upload = begun(client, project, GOOD)
    url = upload["parts"][0]["url"]
    body = bytes(size)
    for content in (body, iter([body])):  # the second without a Content-Length
        envelope(httpx.put(url, content=content, trust_env=False), 400, "wrong_size")
    path = f"/v1/projects/{project}/datasets/uploads/{upload['id']}"
    assert not client.get(path)["parts"][0]["arrived"]
    client.call("DELETE", path)
    envelope(client.http.get(path), 404, "object_not_found")
    envelope(httpx.put(url, content=GOOD, trust_env=False), 404, "object_not_found")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"file_name": "a.jsonl", "bytes": 5121 * 1024 * 1024}, ["bytes", "5120 MiB", "EMISSARY_MAX_LARGE_UPLOAD_MB"]),
        ({"file_name": "a.jsonl", "bytes": 0}, ["bytes"]),
        ({"file_name": "a.jsonl", "bytes": True}, ["bytes"]),
        ({"file_name": "a.txt", "bytes": 5}, [".txt", ".jsonl"]),
        ({"file_name": "../a.jsonl", "bytes": 5}, ["file_name"]),
        ({"file_name": "a .jsonl", "bytes": 5}, ["name"]),
        ({"file_name": "a.jsonl", "bytes": 5, "name": "a/b"}, ["name"]),
        ({"file_name": "a.jsonl", "bytes": 5, "on_invalid": "ignore"}, ["on_invalid"]),
        ({"file_name": "a.jsonl", "bytes": 5, "task_type": "poetry"}, ["task_type"]),
        ({"bytes": 5}, ["file_name"]),
    ],
)
def test_bad_announcement_is_refused(client: Client, project: str, body: dict[str, Any], words: list[str]) -> None:
    with refused(client, project, *words):
        client.post(f"/v1/projects/{project}/datasets/uploads", body)


def test_upload_of_another_project_is_not_found(client: Client, project: str) -> None:
    upload = begun(client, project)
    other = client.post("/v1/projects", {"name": "other"})["id"]
    path = f"/v1/projects/{other}/datasets/uploads/{upload['id']}"
    for method, end in (("GET", ""), ("POST", "/complete"), ("DELETE", "")):
        with refused(client, project, upload["id"], status=404):
            client.call(method, path + end)
    client.call("DELETE", f"/v1/projects/{project}/datasets/uploads/{upload['id']}")


def test_upload_that_nobody_completed_is_removed_after_a_day(client: Client, project: str) -> None:
    old = begun(client, project)
    assert send(old, 1).status_code == 204
    files = set(leftovers("ds-"))

    then = datetime.now(UTC) - timedelta(hours=25)
    query = update(Upload).where(Upload.id == old["id"]).values(created_at=then)
    in_catalogue(lambda session: session.execute(query))
    path = f"/v1/projects/{project}/datasets/uploads"
    envelope(client.http.get(f"{path}/{old['id']}"), 404, "object_not_found")
    envelope(client.http.post(f"{path}/{old['id']}/complete"), 404, "object_not_found")
    envelope(send(old, 2), 404, "object_not_found")
    new = begun(client, project)
    assert len(files - set(leftovers("ds-"))) == 1
    client.call("DELETE", f"{path}/{new['id']}")
