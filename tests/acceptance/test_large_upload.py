"""A large file, in parts: the API's memory stays as it was, and others are answered meanwhile."""

import itertools
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from emissary.client import Client
from emissary.dataset_upload import upload_dataset
from emissary.settings import settings
from tests.acceptance.conftest import S3Server
from tests.acceptance.s3_up import up_on_s3
from tests.jobs import until

pytestmark = pytest.mark.acceptance
MIB = 1024 * 1024
BYTES = 400 * MIB


@pytest.fixture(params=["folder", "S3"])
def client(request: pytest.FixtureRequest, base_model_dir: Path) -> Iterator[Client]:
    """A client of the platform, with each artifact store."""
    if request.param == "folder":
        yield request.getfixturevalue("client_of_platform")
        return
    server: S3Server = request.getfixturevalue("s3_server")
    with up_on_s3(server, base_model_dir) as platform:
        yield platform.client


@pytest.fixture
def client_of_platform(request: pytest.FixtureRequest) -> Client:
    platform = request.getfixturevalue("platform")
    return Client(platform.api_url, platform.api_key)


def api_process(client: Client) -> psutil.Process:
    """The process that listens at the client's port."""
    port = client.http.base_url.port
    (found,) = {
        link.pid
        for link in psutil.net_connections("tcp")
        if link.status == psutil.CONN_LISTEN and link.laddr.port == port
    }
    return psutil.Process(found)


def write_rows(file: Path) -> int:
    """Write rows of BYTES and a little more, all different; returns how many."""
    size, rest = 0, "x" * 400
    with file.open("w") as target:
        for number in itertools.count(1):
            size += target.write(json.dumps({"prompt": f"{number} {rest}", "completion": rest}) + "\n")
            if size > BYTES:
                return number
    raise AssertionError


def test_large_file_is_uploaded_while_others_are_answered(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings(), "max_upload_mb", 1)
    monkeypatch.setattr(settings(), "home", tmp_path / "home")
    project = client.post("/v1/projects", {"name": "large"})["id"]
    file = tmp_path / "large.jsonl"
    rows = write_rows(file)
    api = api_process(client)
    before, peaks, waits, done = api.memory_info().rss, [0], [0.0], threading.Event()

    def watch() -> None:
        with httpx.Client(base_url=client.http.base_url, headers=client.http.headers, trust_env=False) as http:
            while not done.wait(0.2):
                began = time.monotonic()
                assert http.get("/v1/projects", timeout=60).is_success
                waits.append(time.monotonic() - began)
                peaks.append(api.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        made = upload_dataset(client, project, file)
    finally:
        done.set()
        watcher.join()
    assert max(peaks) - before < 100 * MIB
    assert len(waits) > 10
    assert max(waits) < 10
    profile = client.get(f"/v1/projects/{project}/datasets/{made['id']}")["profile"]
    assert (profile["rows"], profile["duplicates"], profile["bytes"]) == (rows, 0, file.stat().st_size)
    client.delete(f"/v1/projects/{project}")
    until(lambda: client.get("/v1/projects"), lambda found: project not in [row["id"] for row in found])
