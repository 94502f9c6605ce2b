"""Jobs that are cancelled, resumed, timed out or frozen, on the whole platform."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from emissary.client import Client
from emissary.up import Platform
from tests.jobs import ROWS, TINY, ended, until, upload

# Trains for a minute, or waits for what is silent.
pytestmark = pytest.mark.acceptance

GONE_SECONDS = 5.0


def start(client: Client, epochs: int, **more: Any) -> str:
    project = client.post("/v1/projects", {"name": "resuming"})["id"]
    body = {
        "base_model": "SmolLM2-135M-Instruct",
        "train_dataset_id": upload(client, project, ROWS),
        "test_dataset_id": upload(client, project, ROWS[:2], "colours-test"),
        "test_functions": ["exact_match_shared"],
        "parameters": TINY | {"num_train_epochs": epochs},
    }
    path = f"/v1/projects/{project}/training-jobs"
    return f"{path}/{client.post(path, body | more)['id']}"


def flow_run(platform: Platform, client: Client, path: str) -> dict[str, Any]:
    run_id = client.get(path)["flow_run_id"]
    return dict(httpx.get(f"{platform.prefect_url}/api/flow_runs/{run_id}", trust_env=False, timeout=30).json())


def process_of(platform: Platform, client: Client, path: str) -> psutil.Process:
    identity = until(lambda: flow_run(platform, client, path)["infrastructure_pid"], bool)
    return psutil.Process(int(identity.split(":")[1]))


def kinds(client: Client, path: str) -> list[str]:
    return [event["kind"] for event in client.get(f"{path}/events")]


def trained(client: Client, path: str, checkpoints: int) -> None:
    until(lambda: client.get(f"{path}/checkpoints"), lambda found: len(found) >= checkpoints)


def is_whole(client: Client, path: str, epochs: int) -> None:
    """The job has succeeded, each epoch done once."""
    job = until(lambda: client.get(path), ended)
    assert job["status"] == "Success", job["error"]
    assert [row["checkpoint"] for row in client.get(f"{path}/checkpoints")] == list(range(1, epochs + 1))
    told = kinds(client, path)
    assert [told.count(kind) for kind in ("epoch", "checkpoint", "tested", "succeeded")] == [epochs, epochs, epochs, 1]


@pytest.mark.parametrize("by", ["the API", "Prefect"])
def test_cancelled_job_stops_within_seconds_and_resumes_from_its_checkpoints(
    client: Client, platform: Platform, by: str
) -> None:
    path = start(client, epochs=8)
    trained(client, path, 2)
    process = process_of(platform, client, path)
    run_id = client.get(path)["flow_run_id"]
    begun = time.monotonic()
    if by == "the API":
        client.post(f"{path}/cancel")
        assert client.get(path)["status"] == "Cancelled"
    else:
        body = {"state": {"type": "CANCELLING"}}
        url = f"{platform.prefect_url}/api/flow_runs/{run_id}/set_state"
        httpx.post(url, json=body, trust_env=False).raise_for_status()
    psutil.wait_procs([process], timeout=GONE_SECONDS)
    assert not process.is_running()
    assert time.monotonic() - begun < GONE_SECONDS
    until(lambda: client.get(path)["status"], lambda status: status == "Cancelled", 5)
    before = client.get(f"{path}/checkpoints")
    assert len(before) >= 2
    client.post(f"{path}/resume")
    is_whole(client, path, 8)
    job = client.get(path)
    assert job["flow_run_id"] != run_id
    after = client.get(f"{path}/checkpoints")
    assert [row["created_at"] for row in after[: len(before)]] == [row["created_at"] for row in before]


def test_job_over_its_time_limit_is_timed_out_and_resumes(client: Client, platform: Platform) -> None:
    path = start(client, epochs=100, timeout_seconds=20)
    job = until(lambda: client.get(path), ended, 120)
    assert job["status"] == "TimedOut"
    assert "timeout_seconds" in job["error"]
    done = len(client.get(f"{path}/checkpoints"))
    assert done
    client.post(f"{path}/resume")
    trained(client, path, done + 1)
    assert "resumed" in kinds(client, path)
    client.post(f"{path}/cancel")


def test_base_model_is_tested_once_in_the_life_of_a_job(client: Client, platform: Platform) -> None:
    path = start(client, epochs=6)
    job_id = path.rpartition("/")[2]
    results = Path(os.environ["EMISSARY_HOME"]) / "artifacts" / "training-jobs" / job_id / "results"
    (manifest,) = until(lambda: list(results.glob("*/base/manifest.json")), bool)
    process_of(platform, client, path).kill()
    made = manifest.stat().st_mtime_ns
    is_whole(client, path, 6)
    assert "resumed" in kinds(client, path)
    assert manifest.stat().st_mtime_ns == made
    differences = [
        row["test_results"]["test_summary"]["exact_match_shared"]["difference"]
        for row in client.get(f"{path}/checkpoints")
    ]
    assert None not in differences


def test_function_that_was_changed_between_two_runs_scores_every_checkpoint(client: Client) -> None:
    def content(score: float) -> dict[str, str]:
        return {"content": f"def steady(input_text, expected_output, predicted_output):\n    return {score}\n"}

    client.post("/v1/testing-functions", content(0.25) | {"name": "steady"})
    stopping = {"early_stopping_metric": "steady", "early_stopping_patience": 6}  # so each epoch is tested at once
    path = start(client, epochs=6, test_functions=["steady"], parameters=TINY | {"num_train_epochs": 6} | stopping)
    until(lambda: kinds(client, path), lambda told: "tested" in told)
    client.post(f"{path}/cancel")
    client.call("PUT", "/v1/testing-functions/steady", json=content(0.75))
    client.post(f"{path}/resume")
    job = until(lambda: client.get(path), ended)
    assert job["status"] == "Success", job["error"]
    checkpoints = client.get(f"{path}/checkpoints")
    assert [row["test_results"]["aggregated_test_result"]["steady"] for row in checkpoints] == ["0.75"] * 6
    assert {row["test_results"]["test_summary"]["steady"]["base"]["mean"] for row in checkpoints} == {0.75}
    told = [event["details"] for event in client.get(f"{path}/events") if event["kind"] == "tested"]
    of_first = [details["scores"]["steady"] for details in told if details["checkpoint"] == 1]
    assert of_first == [0.25, 0.75]


def test_frozen_run_is_replaced_and_does_nothing_more_when_it_thaws(client: Client, platform: Platform) -> None:
    path = start(client, epochs=8)
    trained(client, path, 2)
    frozen = process_of(platform, client, path)
    frozen.send_signal(signal.SIGSTOP)
    begun = time.monotonic()
    try:
        until(lambda: client.get(path)["status"], lambda status: status == "Pending", 35)
        assert time.monotonic() - begun < 30
        replaced = until(lambda: process_of(platform, client, path), lambda process: process.pid != frozen.pid, 60)
        assert replaced.is_running()
    finally:
        frozen.send_signal(signal.SIGCONT)
    psutil.wait_procs([frozen], timeout=30)
    assert not frozen.is_running()
    is_whole(client, path, 8)
    assert kinds(client, path).count("resumed") == 1
