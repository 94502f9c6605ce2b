"""Uploading from the command line: whole or in parts, going on after an interruption."""

import asyncio
import math
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from emissary import dataset_upload
from emissary.client import ApiError, Client
from emissary.dataset_upload import upload_dataset
from emissary.errors import InvalidInput, Unavailable
from emissary.settings import settings
from emissary.up import Platform
from tests.command_line import COMMAND, answer, emissary, environment
from tests.jobs import until

MIB = 1024 * 1024
ROW = b'{"prompt": "a", "completion": "' + b"x" * (MIB // 2 - 34) + b'"}\n'


@pytest.fixture(scope="module")
def project(client: Client) -> str:
    return str(client.post("/v1/projects", {"name": "uploads"})["id"])


@pytest.fixture(autouse=True)
def uploader(client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The settings of whoever uploads, on a machine of her own."""
    monkeypatch.setattr(settings(), "max_upload_mb", 1)
    monkeypatch.setattr(settings(), "home", tmp_path / "home")


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


def test_command_that_is_killed_goes_on_when_it_is_run_again(
    platform: Platform, client: Client, project: str, tmp_path: Path
) -> None:
    file = tmp_path / "killed.jsonl"
    file.write_bytes(ROW * 400)
    arriving = Path(os.environ["EMISSARY_HOME"]) / "artifacts" / ".arriving"
    variables = {
        "EMISSARY_HOME": str(settings().home),
        "EMISSARY_API_KEY": platform.api_key,
        "EMISSARY_PROJECT": project,
    }
    command = ("datasets", "upload", str(file))

    def parts() -> dict[Path, int]:
        found = {}
        with suppress(FileNotFoundError):  # removed meanwhile, for the upload is complete
            for path in arriving.rglob("part-*"):
                found[path] = path.stat().st_mtime_ns
        return found

    with subprocess.Popen([*COMMAND, *command], env=environment(platform) | variables) as process:
        until(lambda: len(parts()), lambda count: count > 2)
        process.kill()
    arrived = parts()
    assert 2 < len(arrived) < 25
    seen = dict(arrived)
    with subprocess.Popen([*COMMAND, *command], env=environment(platform) | variables) as process:
        while process.poll() is None:
            seen |= {path: at for path, at in parts().items() if path in arrived}
    assert process.returncode == 0
    assert seen == arrived
    (made,) = [row for row in client.get(f"/v1/projects/{project}/datasets") if row["name"] == "killed"]
    assert client.get(f"/v1/projects/{project}/datasets/{made['id']}")["profile"]["bytes"] == 200 * MIB


class Breaking:
    """Passes connections on to the API at `address`, and breaks off the first ones once `after` bytes have come."""

    def __init__(self, address: tuple[str, int], times: int, after: int) -> None:
        self.address, self.times, self.after = address, times, after

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, out = await asyncio.open_connection(*self.address)

        async def passed(source: asyncio.StreamReader, target: asyncio.StreamWriter, limit: float) -> None:
            while limit > 0 and (chunk := await source.read(65536)):
                limit -= len(chunk)
                target.write(chunk)
                await target.drain()

        breaks, self.times = self.times > 0, self.times - 1
        ways = {asyncio.create_task(passed(reader, out, self.after if breaks else math.inf)),
                asyncio.create_task(passed(back, writer, math.inf))}  # fmt: skip
        _, open_ways = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in open_ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        for side in (out, writer):
            side.transport.abort()


@contextmanager
def breaking(url: str, *, times: int, after: int) -> Iterator[str]:
    """Where the API at `url` is reached over connections of which the first `times` break off."""
    address = httpx.URL(url)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    proxy = Breaking((address.host, address.port or 80), times, after)
    server = asyncio.run_coroutine_threadsafe(asyncio.start_server(proxy.serve, "127.0.0.1", 0), loop).result()
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:

        async def end() -> None:
            server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_part_that_fails_is_sent_again(
    platform: Platform, client: Client, project: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "broken.jsonl"
    file.write_bytes(ROW * 40)
    monkeypatch.setattr(dataset_upload, "_PAUSES", (0.1, 0.1, 0.1))
    whole = client.call

    def through(url: str) -> None:
        """Have the links of parts lead to `url`."""

        def call(method: str, path: str, **arguments: Any) -> Any:
            answer = whole(method, path, **arguments)
            for part in answer.get("parts", []):
                part["url"] = part["url"] and part["url"].replace(platform.api_url, url)
            return answer

        monkeypatch.setattr(client, "call", call)

    with breaking(platform.api_url, times=3, after=2 * MIB) as url:
        through(url)
        made = upload_dataset(client, project, file)
    assert client.get(f"/v1/projects/{project}/datasets/{made['id']}")["profile"]["bytes"] == 20 * MIB
    file.write_bytes(ROW * 41)
    with breaking(platform.api_url, times=4, after=2 * MIB) as url:
        through(url)
        with pytest.raises(Unavailable, match=r"interrupted at part 1 .* run it again"):
            upload_dataset(client, project, file)


def test_file_that_is_refused_is_begun_anew_next_time(client: Client, project: str, tmp_path: Path) -> None:
    file = tmp_path / "large.jsonl"
    file.write_bytes(ROW * 3 + b"{\n")
    for _ in range(2):
        with pytest.raises(ApiError, match="Line 4"):
            upload_dataset(client, project, file)
    assert not list((settings().home / "uploads").iterdir())


def test_file_over_the_servers_limit_goes_in_parts(
    client: Client, project: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(settings(), "max_upload_mb", 100)
    file = tmp_path / "large.jsonl"
    file.write_bytes(ROW * 20)
    made = upload_dataset(client, project, file)
    assert client.get(f"/v1/projects/{project}/datasets/{made['id']}")["profile"]["bytes"] == 10 * MIB


def test_missing_file_is_said(client: Client, project: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"no file .*nothing\.jsonl"):
        upload_dataset(client, project, tmp_path / "nothing.jsonl")


GOOD, BAD = '{"prompt": "a", "completion": "b"}\n', '{"prompt": "a"}\n'


def test_command_lists_unusable_rows_and_leaves_them_out_when_told(
    platform: Platform, client: Client, project: str, tmp_path: Path
) -> None:
    file = tmp_path / "some-bad.jsonl"
    file.write_text(GOOD + BAD + GOOD + "{\n")
    here = {"EMISSARY_PROJECT": project, "EMISSARY_API_KEY": platform.api_key}
    refused = emissary(platform, "datasets", "upload", str(file), **here)
    assert refused.returncode == 1
    lines = [line for line in refused.stderr.splitlines() if line]  # the progress bar leaves an empty one
    assert lines[0] == "2: 'completion' is missing"
    assert lines[1].startswith("4: invalid JSON at column 2: ")
    assert lines[2].startswith("Error: Line 2: 'completion' is missing. 1 more row does not fit")
    taken = emissary(platform, "datasets", "upload", str(file), "--skip-invalid", **here)
    assert taken.returncode == 0
    assert "2 rows are in the dataset; 2 were left out." in taken.stderr.splitlines()
    assert "some-bad" in taken.stdout
    file = tmp_path / "ratings.csv"
    file.write_text("input,expected_output\ngood,5\nbad,n/a\n")
    refused = emissary(platform, "datasets", "upload", str(file), "--task-type", "regression", **here)
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].startswith(
        "Error: Line 3: 'expected_output' must be a number, and is text 'n/a'."
    )


@pytest.mark.acceptance
def test_command_uploads_a_folder_that_datasets_reads(platform: Platform, project: str, tmp_path: Path) -> None:
    folder = tmp_path / "tickets"
    folder.mkdir()
    (folder / "train.csv").write_text("prompt,completion\na,b\nc,d\n")
    (folder / "test.csv").write_text("prompt,completion\ne,f\n")
    here = {"EMISSARY_PROJECT": project, "EMISSARY_API_KEY": platform.api_key, "HF_HOME": str(tmp_path / "hub")}
    which = emissary(platform, "datasets", "upload", str(folder), **here)
    assert which.returncode == 1
    assert "several splits; say which one: train, test" in which.stderr
    made = answer(platform, "datasets", "upload", str(folder), "--split", "train", **here)
    assert made["name"] == "tickets"
    unknown = emissary(platform, "datasets", "upload", "owner/name", **here)
    assert unknown.returncode == 1
    assert "no file or folder owner/name, and the Hugging Face hub" in unknown.stderr
