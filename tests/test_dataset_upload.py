"""Uploading from the command line: whole or in parts, going on after an interruption."""

import os
from pathlib import Path

import pytest

from emissary.client import ApiError, Client
from emissary.dataset_upload import upload_dataset
from emissary.errors import InvalidInput
from emissary.settings import settings

MIB = 1024 * 1024
ROW = b'{"prompt": "a", "completion": "' + b"x" * (MIB // 2 - 34) + b'"}\n'


@pytest.fixture(scope="module")
def project(client: Client) -> str:
    return str(client.post("/v1/projects", {"name": "uploads"})["id"])


def test_file_within_the_limit_goes_whole(client: Client, project: str, tmp_path: Path) -> None:
    file = tmp_path / "small.jsonl"
    file.write_bytes(ROW)
    shown: list[tuple[int, int]] = []
    made = upload_dataset(client, project, file, "mine", lambda *progress: shown.append(progress))
    assert made["name"] == "mine"
    assert shown[-1] == (len(ROW), len(ROW))


def test_interrupted_upload_goes_on_without_sending_again_what_has_arrived(
    client: Client, project: str, tmp_path: Path
) -> None:
    file = tmp_path / "large.jsonl"
    file.write_bytes(ROW * 40)
    shown: list[int] = []

    def interrupt(sent: int, total: int) -> None:
        shown.append(sent)
        if sent > 12 * MIB:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upload_dataset(client, project, file, on_progress=interrupt)
    (first,) = (Path(os.environ["EMISSARY_HOME"]) / "artifacts" / ".arriving").rglob("part-*")
    written = first.stat().st_mtime_ns
    shown.clear()
    kept: list[int] = []

    def watch(sent: int, total: int) -> None:
        shown.append(sent)
        kept.append(first.stat().st_mtime_ns)

    made = upload_dataset(client, project, file, on_progress=watch)
    assert (shown[0], shown[-1]) == (8 * MIB, 20 * MIB)
    assert set(kept) == {written}
    detail = client.get(f"/v1/projects/{project}/datasets/{made['id']}")
    assert (detail["name"], detail["profile"]["bytes"]) == ("large", 20 * MIB)
    assert not list((settings().home / "uploads").iterdir())


def test_file_that_is_refused_is_begun_anew_next_time(client: Client, project: str, tmp_path: Path) -> None:
    file = tmp_path / "large.jsonl"
    file.write_bytes(ROW * 3 + b"{\n")
    for _ in range(2):
        with pytest.raises(ApiError, match="Line 4"):
            upload_dataset(client, project, file)
    assert not list((settings().home / "uploads").iterdir())


def test_missing_file_is_said(client: Client, project: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"no file .*nothing\.jsonl"):
        upload_dataset(client, project, tmp_path / "nothing.jsonl")
