"""The main job, over HTTP, as a client would do it: data → training → tests → deployment → answers."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from emissary.client import Client
from emissary.errors import EmissaryError
from emissary.settings import PROJECT_ROOT
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
_POLL_SECONDS = 1.0
_DEADLINE_SECONDS = 3600.0
_AT_ONCE = 32


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
        project, train_id, test_id, tests = _upload(client, console)
    job = _train(client, console, report, project, train_id, test_id)
    with report.stage("deploy"):
        tuned = _deploy(client, console, project, {"training_job_id": job["id"], "checkpoint": "best"})
        base = _deploy(client, console, project, {"training_job_id": job["id"], "checkpoint": 0})
    report.deployment, report.training_job = tuned["name"], job["id"]
    with report.stage("answer"):
        console.print(f"Asking base model and deployment the {len(tests)} test tickets")
        base_answers = _ask_all(client, console, base["name"], tests)
        tuned_answers = _ask_all(client, console, tuned["name"], tests)
    report.base_score = _exact_match(base_answers, tests)
    report.deployed_score = _exact_match(tuned_answers, tests)
    report.total_seconds = round(time.monotonic() - began, 1)
    _show(console, platform, report, tests, base_answers, tuned_answers)
    return report


def _upload(client: Client, console: Console) -> tuple[str, str, str, list[dict[str, Any]]]:
    project = client.post("/v1/projects", {"name": "support-tickets"})["id"]
    ids = []
    for name in ("tickets-train", "tickets-test"):
        with (PROJECT_ROOT / "examples" / f"{name}.jsonl").open("rb") as file:
            created = client.call("POST", f"/v1/projects/{project}/datasets", files={"file": file}, data={"name": name})
        detail = client.get(f"/v1/projects/{project}/datasets/{created['id']}")
        console.print(f"Uploaded {name}: {detail['profile']['rows']} rows, {detail['id']}")
        ids.append(created["id"])
    lines = (PROJECT_ROOT / "examples" / "tickets-test.jsonl").read_text().splitlines()
    return project, ids[0], ids[1], [json.loads(line) for line in lines]


def _train(
    client: Client, console: Console, report: Report, project: str, train_id: str, test_id: str
) -> dict[str, Any]:
    """Start the job and follow it to its end."""
    jobs = f"/v1/projects/{project}/training-jobs"
    request = {
        "name": "triage",
        "base_model": BASE_MODEL,
        "train_dataset_id": train_id,
        "test_dataset_id": test_id,
        "test_functions": FUNCTIONS,
        "parameters": PARAMETERS,
    }
    job: dict[str, Any] = client.post(jobs, request)
    console.print(f"Training job {job['id']} on {BASE_MODEL}")
    began, status = time.monotonic(), "Pending"
    columns = TextColumn("{task.description:32}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console) as bar:
        shown = bar.add_task(status, total=100)
        while status not in ("Success", "Failed", "TimedOut", "Cancelled"):
            job = client.get(f"{jobs}/{job['id']}")
            if job["status"] != status:
                report.stages[status.lower()] = round(time.monotonic() - began, 1)
                began, status = time.monotonic(), job["status"]
                bar.console.print(f"  {status}")
            loss = f"loss {job['training_loss'][-1]['loss']:.3f}" if job["training_loss"] else ""
            bar.update(shown, completed=job["progress"], description=f"{status} {loss}")
            time.sleep(_POLL_SECONDS)
    if status != "Success":
        raise EmissaryError(f"The training job {job['id']} ended as {status}: {job['error']}")
    report.checkpoints = [
        {
            "checkpoint": row["checkpoint"],
            "scores": {name: float(score) for name, score in row["test_results"]["aggregated_test_result"].items()},
        }
        for row in client.get(f"{jobs}/{job['id']}/checkpoints")
    ]
    report.best_checkpoint = job["best_checkpoint"]
    scores = {row["checkpoint"]: row["scores"] for row in report.checkpoints}
    report.best_score = scores[report.best_checkpoint][FUNCTIONS[0]]
    return job


def _deploy(client: Client, console: Console, project: str, request: dict[str, Any]) -> dict[str, Any]:
    path = f"/v1/projects/{project}/deployments"
    deployment: dict[str, Any] = client.post(
        path, request | {"name": f"triage-{request['checkpoint'] or 'base'}-{project[3:9]}"}
    )
    deadline = time.monotonic() + _DEADLINE_SECONDS
    with console.status(f"Deploying {deployment['name']}"):
        while deployment["status"] in ("Pending", "Deploying") and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            deployment = client.get(f"{path}/{deployment['id']}")
    if deployment["status"] != "Deployed":
        raise EmissaryError(f"The deployment {deployment['name']} is {deployment['status']}: {deployment['error']}")
    console.print(f"Deployed {deployment['name']} (checkpoint {deployment['checkpoint']}) on {deployment['engine_id']}")
    return deployment


def _ask_all(client: Client, console: Console, model: str, tests: list[dict[str, Any]]) -> list[str]:
    """The model's greedy answers to all test tickets, asked 32 at once."""

    def ask(row: dict[str, Any]) -> str:
        body = {"model": model, "messages": row["messages"][:-1], "temperature": 0, "max_tokens": 32}
        return str(client.post("/v1/chat/completions", body)["choices"][0]["message"]["content"])

    with console.status(f"{model} answers"), ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(ask, tests))


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
