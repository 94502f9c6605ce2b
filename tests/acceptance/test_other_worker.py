"""A training run whose machine freezes goes on with a worker that has another home; they share only S3 and servers."""

import io
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from emissary.settings import PROJECT_ROOT
from tests.acceptance.conftest import S3Server
from tests.acceptance.s3_up import UpOnS3, up_on_s3
from tests.jobs import ROWS, TINY, ended, until, upload

pytestmark = pytest.mark.acceptance


@contextmanager
def other_worker(platform: UpOnS3) -> Iterator[Path]:
    """`emissary worker` with a home of its own, which is yielded."""
    worker = worker_of(platform).environ()
    named = ("EMISSARY_DATABASE_URL", "PREFECT_API_URL")
    with tempfile.TemporaryDirectory(prefix="emissary-other-worker-") as home:
        environment = platform.environment | {name: worker[name] for name in named} | {"EMISSARY_HOME": home}
        with Path(home, "worker.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "emissary.cli", "worker", "--pool", "training"],
                env=environment, cwd=PROJECT_ROOT, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            yield Path(home)
        finally:
            process.terminate()
            assert process.wait(30) == 0
            assert not list(Path(home, "scratch").iterdir())


def worker_of(platform: UpOnS3) -> psutil.Process:
    children = psutil.Process(platform.process.pid).children()
    (found,) = [child for child in children if "emissary.worker" in child.cmdline()]
    return found


@contextmanager
def frozen(worker: psutil.Process) -> Iterator[list[psutil.Process]]:
    """Freeze the worker and what it runs, as a machine that hangs is, and let them go on at the end of the block."""
    processes = [worker, *worker.children(recursive=True)]
    for process in processes:
        process.suspend()
    try:
        yield processes
    finally:
        for process in reversed(processes):
            process.resume()


def digests(client: Any, path: str) -> dict[int, bytes]:
    """Checkpoint → its archive's adapter."""

    found = {}
    for row in client.get(f"{path}/checkpoints"):
        archive = client.http.get(row["model_download_url"], follow_redirects=True).content
        with zipfile.ZipFile(io.BytesIO(archive)) as files:
            (name,) = [name for name in files.namelist() if name.endswith("adapter_model.safetensors")]
            found[row["checkpoint"]] = files.read(name)
    return found


def test_run_of_a_frozen_machine_goes_on_elsewhere_and_ends_in_the_same_bytes(
    s3_server: S3Server, base_model_dir: Path
) -> None:
    with up_on_s3(s3_server, base_model_dir, "two-workers") as platform:
        client = platform.client
        project = client.post("/v1/projects", {"name": "two-workers"})["id"]
        jobs = f"/v1/projects/{project}/training-jobs"
        body = {
            "base_model": "SmolLM2-135M-Instruct",
            "train_dataset_id": upload(client, project, ROWS),
            "test_dataset_id": upload(client, project, ROWS[:2], "colours-test"),
            "test_functions": ["exact_match_shared"],
            "parameters": TINY | {"num_train_epochs": 8, "save_steps": 1},
        }
        undisturbed = f"{jobs}/{client.post(jobs, body)['id']}"
        assert until(lambda: client.get(undisturbed), ended)["status"] == "Success"

        path = f"{jobs}/{client.post(jobs, body)['id']}"
        until(lambda: client.get(f"{path}/checkpoints"), lambda found: len(found) >= 2)
        with frozen(worker_of(platform)) as processes, other_worker(platform) as home:
            until(lambda: list((home / "cache").rglob("optimizer.pt")), bool, 120)  # its trainer state comes from S3
            job = until(lambda: client.get(path), ended, 300)
            assert job["status"] == "Success", job["error"] + Path(home, "worker.log").read_text()[-5000:]
            run = max(processes[1:], key=lambda process: process.create_time())
        # Awake again, the first process finds that its row was another's; nobody takes that for a crash.
        assert run.wait(60) in (0, None)
        assert client.get(path)["status"] == "Success"
        assert digests(client, path) == digests(client, undisturbed)
        kinds = [event["kind"] for event in client.get(f"{path}/events")]
        assert [kinds.count(kind) for kind in ("started", "resumed", "checkpoint", "tested")] == [1, 1, 8, 8]
