"""A job whose process the kernel ends for lack of memory fails with what to lower."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from emissary.client import Client
from emissary.up import Platform
from tests.jobs import ROWS, TINY, ended, until, upload

pytestmark = pytest.mark.acceptance

_LIMIT = 32 * 1024 * 1024


@pytest.fixture
def confine() -> Iterator[Callable[[int], None]]:
    """Gives a process that runs at most 32 MiB more than it has, which the kernel's out-of-memory killer enforces."""
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    own = [path for _, controllers, path in lines if controllers == "memory"]
    if not own:
        pytest.skip("NOT TESTED: this machine has no memory controller of control groups, version 1")
    group = Path("/sys/fs/cgroup/memory", own[0].lstrip("/"), f"emissary-test-{os.getpid()}")
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"NOT TESTED: no control group can be made here ({error})")
    try:
        (group / "memory.limit_in_bytes").write_text(str(_LIMIT))
        yield lambda pid: _write(group / "cgroup.procs", pid)
        until((group / "cgroup.procs").read_text, lambda pids: not pids)
    finally:
        group.rmdir()


def _write(file: Path, number: int) -> None:
    file.write_text(str(number))


def test_job_that_is_out_of_memory_three_times_says_what_to_lower(
    client: Client, platform: Platform, confine: Callable[[int], None]
) -> None:
    project = client.post("/v1/projects", {"name": "out of memory"})["id"]
    body = {
        "base_model": "SmolLM2-135M-Instruct",
        "train_dataset_id": upload(client, project, ROWS),
        "parameters": TINY | {"num_train_epochs": 100},
    }
    path = f"/v1/projects/{project}/training-jobs"
    path = f"{path}/{client.post(path, body)['id']}"
    run_id = until(lambda: client.get(path), lambda job: job["flow_run_id"])["flow_run_id"]
    confined: set[str] = set()
    for _ in range(3):

        def process() -> str | None:
            found = httpx.get(f"{platform.prefect_url}/api/flow_runs/{run_id}", trust_env=False).json()
            identity = found["infrastructure_pid"]
            return identity if found["state"]["type"] == "RUNNING" and identity not in confined else None

        identity = until(process, bool)
        confined.add(identity)
        confine(int(identity.split(":")[1]))
    job = until(lambda: client.get(path), ended)
    assert job["status"] == "Failed"
    assert "out of memory" in job["error"]
    assert "per_device_train_batch_size (now 4)" in job["error"]
