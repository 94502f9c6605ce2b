"""Early stopping, hyperparameters that are `auto`, truncation and dry runs, on the whole platform."""

from typing import Any

import httpx
import pytest

from emissary.client import Client
from emissary.up import Platform
from tests.api.refusals import everything
from tests.command_line import answer, fine
from tests.jobs import ended, until, upload
from tests.tasks.pooled_run import ENCODER, TOPICS, encoder_dir

FUNCTION = "exact_match_shared"
ROWS = [
    {"prompt": f"{text} and more of it" * (4 if text == texts[0] else 1), "completion": {topic: 1}}
    for topic, texts in TOPICS.items()
    for text in texts
]
PARAMETERS = {
    "learning_rate": "auto",
    "per_device_train_batch_size": "auto",
    "num_train_epochs": 6,
    "max_length": 16,
    "lora_r": 4,
    "early_stopping_patience": 1,
    "early_stopping_metric": FUNCTION,
}


@pytest.fixture(scope="module")
def project(client: Client) -> str:
    return str(client.post("/v1/projects", {"name": "options"})["id"])


@pytest.fixture(scope="module")
def body(client: Client, project: str) -> dict[str, Any]:
    encoder_dir()
    dataset = upload(client, project, ROWS, "topics")
    return {
        "task_type": "classification",
        "base_model": ENCODER,
        "train_dataset_id": dataset,
        "test_dataset_id": dataset,
        "test_functions": [FUNCTION],
        "parameters": PARAMETERS,
    }


@pytest.mark.acceptance
def test_dry_run_says_what_the_job_then_is_and_keeps_nothing(
    client: Client, project: str, body: dict[str, Any]
) -> None:
    path = f"/v1/projects/{project}/training-jobs"
    before = everything(client, project)
    key = {"Idempotency-Key": "dry-and-then-real"}
    answer = client.http.post(f"{path}?dry_run=true", json=body, headers=key)
    assert answer.status_code == 200, answer.text
    plan = answer.json()
    assert everything(client, project) == before
    assert (plan["train_rows"], plan["test_rows"], plan["longest_row"], plan["truncated_rows"]) == (12, 12, 16, 6)
    assert plan["steps"] == plan["checkpoints"] * 12 / plan["hyper_parameters"]["per_device_train_batch_size"] == 18
    assert plan["estimate"]["training_seconds"] == pytest.approx(18 * plan["estimate"]["step_seconds"])
    assert plan["estimate"]["memory_bytes"] > 80e6  # the model alone
    assert plan["note"] is None

    # The key of a dry run is free for the job itself.
    created = client.http.post(path, json=body, headers=key)
    assert created.status_code == 201
    path = f"{path}/{created.json()['id']}"
    job = until(lambda: client.get(path), ended)
    assert job["status"] == "Success", job["error"]
    assert job["hyper_parameters"] == plan["hyper_parameters"]
    events = client.get(f"{path}/events")
    (chosen,) = [event["details"] for event in events if event["kind"] == "chosen"]
    assert chosen == {
        "learning_rate": plan["hyper_parameters"]["learning_rate"],
        "per_device_train_batch_size": 4,
        "reason": plan["reason"],
    }
    (cut,) = [event["details"] for event in events if event["kind"] == "truncated"]
    assert cut == {"rows": 6, "max_length": 16}

    # It ends with the epoch after the best one, and each checkpoint was tested once, as it came.
    checkpoints = client.get(f"{path}/checkpoints")
    scores = [float(row["test_results"]["aggregated_test_result"][FUNCTION]) for row in checkpoints]
    assert len(scores) < 6
    assert scores.index(max(scores)) == len(scores) - 2
    assert scores[job["best_checkpoint"] - 1] == max(scores)
    (stopped,) = [event["details"] for event in events if event["kind"] == "stopped_early"]
    assert stopped == {"epoch": len(scores), "metric": FUNCTION, "patience": 1, "best": len(scores) - 1}
    told = [event["kind"] for event in events if event["kind"] in ("checkpoint", "tested")]
    assert told == ["checkpoint", "tested"] * len(scores)
    assert events[-1]["kind"] == "succeeded"


def test_dry_run_refuses_what_training_would_refuse(client: Client, project: str, body: dict[str, Any]) -> None:
    path = f"/v1/projects/{project}/training-jobs"

    def asked(changed: dict[str, Any], query: str = "dry_run=true") -> httpx.Response:
        return client.http.post(f"{path}?{query}", json=body | changed)

    before = everything(client, project)
    answers = [asked({"task_type": "regression"}), asked({"parameters": {"lora_r": 0}}), asked({}, "dry_run=perhaps")]
    for refused, words in zip(answers, ("does not fit regression", "lora_r", "dry_run"), strict=True):
        assert (refused.status_code, refused.json()["status"]) == (400, 400)
        assert words in refused.json()["error"]
    far = asked({"base_model": "bge-small-en-v1.5"}).json()
    assert far["estimate"] is None
    assert far["tokens"] is None
    assert far["hyper_parameters"]["learning_rate"] == "auto"
    assert "emissary models pull" in far["note"]
    reward = {"test_functions": [FUNCTION], "reward": {FUNCTION: 1.0}}
    prompts = upload(client, project, [{"prompt": "a", "completion": "b"}] * 3, "prompts")
    wanted = {"base_model": "Qwen3-0.6B", "train_dataset_id": prompts, "parameters": {"num_generations": 2}} | reward
    plan = client.post(f"{path}/grpo?dry_run=true", wanted)
    # Two prompts a step, of three rows: a step an epoch, each with a checkpoint.
    assert (plan["training_technique"], plan["steps"], plan["checkpoints"], plan["estimate"]) == ("GRPO", 15, 15, None)
    odd = client.http.post(f"{path}/grpo?dry_run=true", json=wanted | {"parameters": {"num_generations": 3}})
    assert (odd.status_code, odd.json()["code"]) == (400, "invalid_parameters")
    assert everything(client, project) == before | {prompts}


def test_command_shows_a_dry_run(client: Client, platform: Platform, project: str, body: dict[str, Any]) -> None:
    options = ("--task-type", "classification", "--train-dataset", body["train_dataset_id"], "--test-split", "25")
    command = ("jobs", "create", "--dry-run", "--base-model", "bge-small-en-v1.5", *options)
    before = everything(client, project)
    shown = fine(platform, *command, EMISSARY_PROJECT=project)
    assert "train rows" in shown
    assert "emissary models pull" in shown
    assert "estimate" not in shown
    plan = answer(platform, *command, EMISSARY_PROJECT=project)
    assert (plan["train_rows"], plan["test_rows"], plan["estimate"]) == (9, 3, None)
    assert everything(client, project) == before
