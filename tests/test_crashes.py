"""What happens to a job whose process is killed."""

import os
import signal
from typing import Any

import httpx
import pytest

from emissary.client import Client
from emissary.up import Platform
from tests.jobs import ROWS, TINY, ended, until, upload

# Chaos: processes are killed, and the rest waits until that is noticed.
pytestmark = pytest.mark.acceptance


def kill_run(platform: Platform, flow_run_id: str, again: set[str]) -> None:
    """Kill -9 the process of a flow run, once it has one that is not in `again`."""
    prefect = httpx.Client(base_url=f"{platform.prefect_url}/api", trust_env=False)

    def process() -> str | None:
        run: dict[str, Any] = prefect.get(f"/flow_runs/{flow_run_id}").json()
        identity = run["infrastructure_pid"]
        return identity if run["state"]["type"] == "RUNNING" and identity not in again else None

    identity = until(process, bool)
    again.add(identity)
    os.kill(int(identity.split(":")[1]), signal.SIGKILL)


def start(client: Client, epochs: int) -> str:
    project = client.post("/v1/projects", {"name": "crashes"})["id"]
    body = {
        "base_model": "SmolLM2-135M-Instruct",
        "train_dataset_id": upload(client, project, ROWS),
        "test_dataset_id": upload(client, project, ROWS[:2], "colours-test"),
        "test_functions": ["exact_match_shared"],
        "parameters": TINY | {"num_train_epochs": epochs},
    }
    path = f"/v1/projects/{project}/training-jobs"
    return f"{path}/{client.post(path, body)['id']}"


def test_killed_job_goes_on_from_its_last_checkpoint(client: Client, platform: Platform) -> None:
    path = start(client, epochs=6)
    until(lambda: client.get(f"{path}/checkpoints"), lambda found: len(found) >= 2)
    kill_run(platform, client.get(path)["flow_run_id"], set())
    job = until(lambda: client.get(path), ended)
    assert job["status"] == "Success", job["error"]
    assert [row["checkpoint"] for row in client.get(f"{path}/checkpoints")] == [1, 2, 3, 4, 5, 6]
    steps = [point["step"] for point in job["training_loss"]]
    assert steps == sorted(set(steps))
    kinds = [event["kind"] for event in client.get(f"{path}/events")]
    assert [kinds.count(kind) for kind in ("started", "resumed", "epoch", "checkpoint", "succeeded")] == [1, 1, 6, 6, 1]


def test_job_killed_three_times_fails_with_a_sentence_that_says_what_to_do(client: Client, platform: Platform) -> None:
    path = start(client, epochs=100)
    killed: set[str] = set()
    until(lambda: client.get(path), lambda job: job["status"] == "Running" and job["flow_run_id"])
    for _ in range(3):
        kill_run(platform, client.get(path)["flow_run_id"], killed)
    job = until(lambda: client.get(path), ended)
    assert job["status"] == "Failed"
    assert "signal 9" in job["error"]
    assert "out of memory" not in job["error"]
    last = client.get(f"{path}/events")[-1]
    assert (last["kind"], last["details"]) == ("failed", {"reason": job["error"]})
