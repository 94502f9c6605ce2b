"""GRPO on the whole platform: a tiny job from the request to tested checkpoints."""

import json
import time
from typing import Any

import httpx
import pytest

from emissary.client import Client
from emissary.report.gathering import gather
from emissary.report.page import page
from emissary.up import Platform
from tests.jobs import ROWS, ended, until, upload

TINY = {
    "num_train_epochs": 1,
    "per_device_train_batch_size": 4,
    "num_generations": 2,
    "max_length": 64,
    "max_completion_length": 8,
    "max_new_tokens": 4,
    "lora_r": 2,
    "logging_steps": 1,
    "save_steps": 2,
}
SECONDS = 300.0
WEIGHTS = {"exact_match_shared": 0.25, "test_similarity_shared": 0.75}
SAMPLE = {"input_text": "Say red.", "expected_output": "red", "predicted_output": "red"}


@pytest.fixture(scope="module")
def project(client: Client) -> str:
    return str(client.post("/v1/projects", {"name": "grpo"})["id"])


@pytest.fixture(scope="module")
def rewarded(client: Client, project: str) -> dict[str, Any]:
    """A finished job with two checkpoints, tested by the functions that reward it."""
    body = {
        "name": "rewarded",
        "base_model": "SmolLM2-135M-Instruct",
        "train_dataset_id": upload(client, project, ROWS),
        "test_dataset_id": upload(client, project, ROWS[:3], "colours-test"),
        "test_functions": ["test_similarity_shared", "exact_match_shared"],
        "reward": WEIGHTS,
        "parameters": TINY,
    }
    path = f"/v1/projects/{project}/training-jobs"
    created = client.post(f"{path}/grpo", body)
    assert (created["status"], created["training_technique"], created["reward"]) == ("Pending", "GRPO", WEIGHTS)
    job = until(lambda: client.get(f"{path}/{created['id']}"), ended, SECONDS)
    assert job["status"] == "Success", job["error"]
    return dict(job)


def test_job_trains_on_its_rewards_tests_every_checkpoint_and_is_shown_in_prefect(
    client: Client, platform: Platform, project: str, rewarded: dict[str, Any]
) -> None:
    job, weights, path = rewarded, WEIGHTS, f"/v1/projects/{project}/training-jobs"
    assert (job["progress"], job["reward"], job["hyper_parameters"]["num_generations"]) == (100, weights, 2)
    assert [point["step"] for point in job["training_loss"]] == [1, 2, 3, 4]
    for point in job["training_loss"]:
        parts = [weight * point["rewards"][name] for name, weight in weights.items()]
        assert point["reward"] == pytest.approx(sum(parts), abs=1e-5)
        assert 0 < point["completion_length"] <= 8
        assert point["kl"] is not None
        assert point["reward_failures"] == 0
        assert point["clip_ratio"] == 0
        assert point["learning_rate"] is not None
        assert point["reward_group_std"] >= 0
    last = job["training_loss"][-1]
    parts = {f"rewards/{name}": last["rewards"][name] for name in weights}
    assert job["training_metrics"].items() >= parts.items()
    for name in ("epoch", "loss", "learning_rate", "reward", "reward_group_std", "kl", "entropy", "clip_ratio"):
        assert job["training_metrics"][name] == last[name]
    checkpoints = client.get(f"{path}/{job['id']}/checkpoints")
    assert [row["checkpoint"] for row in checkpoints] == [1, 2]
    for row in checkpoints:
        assert set(row["test_results"]["aggregated_test_result"]) == set(weights)
        assert row["test_loss"] is None
    assert job["best_checkpoint"] in (1, 2)
    assert job["id"] in {row["id"] for row in client.get(path) if row["training_technique"] == "GRPO"}
    shown = artifacts(platform, job["flow_run_id"])
    key = job["id"].lower().replace("_", "-")
    assert {f"{name}-{key}" for name in ("loss", "reward", "policy", "completions", "checkpoints")} <= set(shown)
    assert shown[f"reward-{key}"][-1]["data"].startswith("data:image/png;base64,")
    rows = json.loads(shown[f"completions-{key}"][-1]["data"])
    assert [row["at step"] for row in rows] == [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4
    for row in rows:
        assert row["input"] == f"Say {row['expected_output']}."
        parts = [weight * row[name] for name, weight in weights.items()]
        assert row["weighted sum"] == pytest.approx(sum(parts), abs=1e-3)


def test_report_shows_the_rewards(client: Client, project: str, rewarded: dict[str, Any]) -> None:
    html = page(gather(client, project, rewarded["id"]), time.time())
    for title in ("Training loss", "Rewards", "Policy"):
        assert f'alt="{title}"' in html
    for function, weight in WEIGHTS.items():
        assert f"reward: {function}</th><td>{weight}" in html


def artifacts(platform: Platform, flow_run_id: str) -> dict[str, list[dict[str, Any]]]:
    """What Prefect shows of the run: key to versions, the newest last."""
    wanted = {"artifacts": {"flow_run_id": {"any_": [flow_run_id]}}, "sort": "CREATED_DESC"}
    found = httpx.post(f"{platform.prefect_url}/api/artifacts/filter", json=wanted, trust_env=False).json()
    shown: dict[str, list[dict[str, Any]]] = {}
    for artifact in reversed(found):
        shown.setdefault(artifact["key"], []).append(artifact)
    return shown


UNSTEADY = """def unsteady(input_text, expected_output, predicted_output):
    return 1.0 if input_text == "Say red." else 1 / 0
"""


@pytest.mark.acceptance
def test_events_warn_once_of_functions_that_fail_and_of_rewards_that_teach_nothing(
    client: Client, project: str
) -> None:
    client.post("/v1/testing-functions", {"name": "unsteady", "content": UNSTEADY, "sample": SAMPLE})
    body = {
        "base_model": "SmolLM2-135M-Instruct",
        "train_dataset_id": upload(client, project, ROWS[:4] * 6, "four-colours"),
        "test_functions": ["unsteady"],
        "reward": {"unsteady": 1.0},
        "parameters": TINY | {"per_device_train_batch_size": 2, "max_completion_length": 2, "save_steps": 100},
    }
    path = f"/v1/projects/{project}/training-jobs"
    path = f"{path}/{client.post(f'{path}/grpo', body)['id']}"
    job = until(lambda: client.get(path), ended, SECONDS)
    assert job["status"] == "Success", job["error"]
    assert sum(point["reward_failures"] > 0 for point in job["training_loss"]) == 18
    warnings = [event["details"] for event in client.get(f"{path}/events") if event["kind"] == "warning"]
    about = ["nothing_to_test_on", "reward_failures", "equal_rewards"]
    assert [warning["about"] for warning in warnings] == about
    _, failed, idle = (warning["message"] for warning in warnings)
    assert "Try the function on such rows, and correct it or them. The last was unsteady: " in failed
    assert "ZeroDivisionError: division by zero (line 2)" in failed
    assert idle.startswith("Of the steps 1 to 12 nothing was learnt")
    assert "Raise temperature or num_generations" in idle
    traced = [line for line in client.get(f"{path}/logs") if "line 2, in unsteady" in line["message"]]
    assert [line["level"] for line in traced] == ["WARNING"]


def test_run_started_from_prefects_form_registers_its_own_grpo_job(
    client: Client, platform: Platform, project: str
) -> None:
    prefect = httpx.Client(base_url=f"{platform.prefect_url}/api", trust_env=False)
    flow_deployment = prefect.get("/deployments/name/train_grpo/train_grpo").json()
    request = {
        "name": "from-the-form",
        "base_model": "SmolLM2-135M-Instruct",
        "train_dataset_id": upload(client, project, ROWS[:2]),
        "test_functions": ["test_similarity_shared"],
        "reward": {"test_similarity_shared": 1.0},
        "parameters": TINY,
    }
    body = {"parameters": {"project_id": project, "request": request}}
    run = prefect.post(f"/deployments/{flow_deployment['id']}/create_flow_run", json=body).json()

    def mine() -> list[dict[str, Any]]:
        jobs = client.get(f"/v1/projects/{project}/training-jobs")
        return [job for job in jobs if job["name"] == "from-the-form" and ended(job)]

    (job,) = until(mine, bool, SECONDS)
    detail = client.get(f"/v1/projects/{project}/training-jobs/{job['id']}")
    assert (detail["status"], detail["flow_run_id"]) == ("Success", run["id"]), detail["error"]
    assert (detail["training_technique"], detail["best_checkpoint"]) == ("GRPO", None)
    assert len(detail["training_loss"]) == 1
