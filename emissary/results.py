"""Every task type on its example, over HTTP: trained, tested, deployed, called, and compared with stated baselines."""

import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from rich.console import Console
from rich.table import Table

from emissary import demo, walkthrough
from emissary.client import Client
from emissary.data.rows import TaskType
from emissary.errors import EmissaryError
from emissary.example_rows import read
from emissary.example_scores import Metric, baseline_scores, better, scored
from emissary.up import Platform

ENCODER = "all-MiniLM-L6-v2"
BASE_MODELS = (demo.BASE_MODEL, ENCODER)
_SMALL = {"learning_rate": 0.001, "per_device_train_batch_size": 16, "max_length": 128}


@dataclass(frozen=True)
class Example:
    """An example, what is trained on it, and the metric that counts."""

    name: str
    suffix: str
    task_type: TaskType
    metric: Metric
    parameters: dict[str, Any]
    base_model: str = ENCODER
    functions: tuple[str, ...] = ()

    def file(self, part: str) -> str:
        """Name of the file of its `train` or `test` rows."""
        return f"{self.name}-{part}{self.suffix}"


EXAMPLES = (
    Example(
        "town-hall", ".jsonl", "classification", "accuracy",
        _SMALL | {"num_train_epochs": 6}, functions=("exact_match_shared",),
    ),
    Example("review-aspects", ".jsonl", "classification", "macro F1", _SMALL | {"num_train_epochs": 10}),
    Example("repair-hours", ".csv", "regression", "mean absolute error", _SMALL | {"num_train_epochs": 4}),
    Example("repair-pairs", ".jsonl", "embedding", "Spearman", _SMALL | {"num_train_epochs": 3}),
    Example(
        "tickets", ".jsonl", "text-generation", "exact match",
        demo.PARAMETERS | {"num_train_epochs": 1}, demo.BASE_MODEL, functions=tuple(demo.FUNCTIONS),
    ),
)  # fmt: skip


@dataclass
class Result:
    """How an example went: scores on its test rows, of baselines and of the best checkpoint called over HTTP."""

    task_type: str
    dataset: str
    train_rows: int
    test_rows: int
    base_model: str
    metric: str
    baselines: dict[str, float] = field(default_factory=dict)
    best_checkpoint: int = 0
    score: float = 0.0
    beats_baselines: bool = False
    seconds: float = 0.0


def run(platform: Platform, console: Console) -> list[Result]:
    """Train on every example on a running platform. Raises EmissaryError when a job or deployment fails."""
    client = Client(platform.api_url, platform.api_key)
    project = client.post("/v1/projects", {"name": "examples"})["id"]
    results = [_result(client, console, project, example) for example in EXAMPLES]
    console.print(_table(results))
    return results


def check(results: list[Result]) -> None:
    """Raises EmissaryError where a best checkpoint does not beat its baselines."""
    if worse := [result.dataset for result in results if not result.beats_baselines]:
        raise EmissaryError(f"The best checkpoint is no better than a baseline on: {', '.join(worse)}.")


def _result(client: Client, console: Console, project: str, example: Example) -> Result:
    train, test = read(example.file("train"), example.task_type), read(example.file("test"), example.task_type)
    result = Result(example.task_type, example.name, len(train[0]), len(test[0]), example.base_model, example.metric)
    console.rule(f"{example.task_type}: {example.name}")
    began = time.monotonic()
    train_id, test_id = (walkthrough.upload(client, console, project, example.file(part)) for part in ("train", "test"))
    request = {
        "name": example.name,
        "task_type": example.task_type,
        "base_model": example.base_model,
        "train_dataset_id": train_id,
        "test_dataset_id": test_id,
        "test_functions": list(example.functions),
        "parameters": example.parameters,
    }
    job, _ = walkthrough.train(client, console, project, request)
    result.best_checkpoint = job["best_checkpoint"]

    def score_of(checkpoint: int | str) -> float:
        name = f"{example.name}-{checkpoint or 'base'}-{project[3:9]}"
        walkthrough.deploy(
            client, console, project, {"training_job_id": job["id"], "checkpoint": checkpoint, "name": name}
        )
        predicted = _answers(client, console, name, example.task_type, test[0])
        return scored(example.metric, test[1], predicted)

    result.score = score_of("best")
    result.seconds = round(time.monotonic() - began, 1)
    if example.task_type in ("classification", "regression"):
        result.baselines = baseline_scores(example.metric, train, test)
    else:
        result.baselines = {"base model": score_of(0)}
    result.beats_baselines = all(better(example.metric, result.score, other) for other in result.baselines.values())
    return result


def _answers(client: Client, console: Console, model: str, task_type: TaskType, inputs: list[Any]) -> list[Any]:
    """What the deployment answers: text, the probability of each label, a number, or the cosine of two texts."""

    def compare(texts: tuple[str, str]) -> float:
        body = {"model": model, "input": texts[0], "target": texts[1]}
        return float(client.post("/v1/embeddings", body)["response"]["cosine_score"])

    if task_type == "text-generation":
        return walkthrough.ask_all(console, model, partial(walkthrough.chat, client, model), inputs)
    if task_type == "embedding":
        return walkthrough.ask_all(console, model, compare, inputs)
    body = {"model": model, "input": inputs}
    if task_type == "regression":
        return [row["logits"] for row in client.post("/v1/regression", body)["data"]]
    return [row["probs"] for row in client.post("/v1/classification", body | {"data_format": "probs"})["data"]]


def _table(results: list[Result]) -> Table:
    table = Table(title="Results on held-out rows", show_lines=True)
    table.add_column("example", no_wrap=True)
    for column in ("metric", "baselines", "best", "seconds"):
        table.add_column(column)
    for row in results:
        example = (row.dataset, f"{row.train_rows} + {row.test_rows} rows", row.task_type, row.base_model)
        baselines = "\n".join(f"{score:.3f} {name}" for name, score in row.baselines.items())
        best = f"{row.score:.3f}\n(checkpoint {row.best_checkpoint})"
        table.add_row("\n".join(example), row.metric, baselines, best, f"{row.seconds:.0f}")
    return table
