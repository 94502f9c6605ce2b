"""The main job, over HTTP, as a client would do it: data → training → tests → deployment → answers."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from rich.console import Console
from rich.table import Table

from emissary import walkthrough
from emissary.client import Client
from emissary.up import Platform

BASE_MODEL = "SmolLM2-135M-Instruct"
FUNCTIONS = ["exact_match_shared", "test_similarity_shared"]
PARAMETERS = {
    "num_train_epochs": 2,
    "learning_rate": 0.001,
    "per_device_train_batch_size": 4,
    "max_length": 256,
    "max_new_tokens": 32,
}


@dataclass
class Report:
    """What the demo found, and how long its stages took."""

    base_score: float = 0.0
    deployed_score: float = 0.0
    checkpoints: list[dict[str, Any]] = field(default_factory=list)
    best_checkpoint: int = 0
    best_score: float = 0.0
    deployment: str = ""
    training_job: str = ""
    stages: dict[str, float] = field(default_factory=dict)
    total_seconds: float = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times one stage."""
        began = time.monotonic()
        yield
        self.stages[name] = round(time.monotonic() - began, 1)


def run(platform: Platform, console: Console) -> Report:
    """Run the main job on a running platform and show it on the way. Raises EmissaryError when something fails."""
    client, report = Client(platform.api_url, platform.api_key), Report()
    began = time.monotonic()
    with report.stage("upload"):
        project = client.post("/v1/projects", {"name": "support-tickets"})["id"]
        train_id, test_id = (
            walkthrough.upload(client, console, project, f"tickets-{part}.jsonl") for part in ("train", "test")
        )
        lines = (walkthrough.EXAMPLES / "tickets-test.jsonl").read_text().splitlines()
        tests = [json.loads(line) for line in lines]
    job = _train(client, console, report, project, train_id, test_id)
    with report.stage("deploy"):
        tuned = _deploy(client, console, project, job["id"], "best")
        base = _deploy(client, console, project, job["id"], 0)
    report.deployment, report.training_job = tuned, job["id"]
    with report.stage("answer"):
        console.print(f"Asking base model and deployment the {len(tests)} test tickets")
        inputs = [row["messages"][:-1] for row in tests]
        base_answers, tuned_answers = (
            walkthrough.ask_all(console, model, partial(walkthrough.chat, client, model), inputs)
            for model in (base, tuned)
        )
    report.base_score = _exact_match(base_answers, tests)
    report.deployed_score = _exact_match(tuned_answers, tests)
    report.total_seconds = round(time.monotonic() - began, 1)
    _show(console, platform, report, tests, base_answers, tuned_answers)
    return report


def _train(
    client: Client, console: Console, report: Report, project: str, train_id: str, test_id: str
) -> dict[str, Any]:
    """Start the job and follow it to its end."""
    request = {
        "name": "triage",
        "base_model": BASE_MODEL,
        "train_dataset_id": train_id,
        "test_dataset_id": test_id,
        "test_functions": FUNCTIONS,
        "parameters": PARAMETERS,
    }
    job, stages = walkthrough.train(client, console, project, request)
    report.stages |= stages
    report.checkpoints = [
        {
            "checkpoint": row["checkpoint"],
            "scores": {name: float(score) for name, score in row["test_results"]["aggregated_test_result"].items()},
        }
        for row in client.get(f"/v1/projects/{project}/training-jobs/{job['id']}/checkpoints")
    ]
    report.best_checkpoint = job["best_checkpoint"]
    scores = {row["checkpoint"]: row["scores"] for row in report.checkpoints}
    report.best_score = scores[report.best_checkpoint][FUNCTIONS[0]]
    return job


def _deploy(client: Client, console: Console, project: str, job_id: str, checkpoint: int | str) -> str:
    """Name of the job's checkpoint as it is deployed."""
    name = f"triage-{checkpoint or 'base'}-{project[3:9]}"
    request = {"training_job_id": job_id, "checkpoint": checkpoint, "name": name}
    return str(walkthrough.deploy(client, console, project, request)["name"])


def _exact_match(answers: list[str], tests: list[dict[str, Any]]) -> float:
    right = [
        answer.strip() == row["messages"][-1]["content"].strip() for answer, row in zip(answers, tests, strict=True)
    ]
    return float(sum(right) / len(right))


def _show(
    console: Console,
    platform: Platform,
    report: Report,
    tests: list[dict[str, Any]],
    base_answers: list[str],
    tuned_answers: list[str],
) -> None:
    answers = Table("ticket", "base model", "fine-tuned", "expected", title="Unseen tickets", show_lines=True)
    for row, base, tuned in list(zip(tests, base_answers, tuned_answers, strict=True))[:5]:
        messages = row["messages"]
        answers.add_row(*map(_plain, (messages[-2]["content"], base, tuned, messages[-1]["content"])))
    console.print(answers)
    scores = Table("checkpoint", *FUNCTIONS, title="Scores on the test set")
    scores.add_row("base model (over HTTP)", f"{report.base_score:.3f}", "")
    for row in report.checkpoints:
        best = " ★ best" if row["checkpoint"] == report.best_checkpoint else ""
        scores.add_row(f"{row['checkpoint']}{best}", *(f"{row['scores'][name]:.3f}" for name in FUNCTIONS))
    scores.add_row(f"{report.deployment} (over HTTP)", f"{report.deployed_score:.3f}", "")
    console.print(scores)
    stages = Table("stage", "seconds", title="Time")
    for name, seconds in (report.stages | {"total": report.total_seconds}).items():
        stages.add_row(name, f"{seconds:.1f}")
    console.print(stages)
    console.print(f"API {platform.api_url}   docs {platform.api_url}/docs   Prefect {platform.prefect_url}")


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
