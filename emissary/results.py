"""Every task type on its example, over HTTP: trained, tested, deployed, called, and compared with stated baselines.

One of them is trained by SFT, and then by GRPO from the checkpoint that SFT made.
"""

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
    """An example, what is trained on it, and the metric that counts.

    With `grpo`, the parameters of a GRPO job, that job goes on from the best checkpoint of SFT on the same rows; its
    reward is the first of the `functions`.
    """

    name: str
    suffix: str
    task_type: TaskType
    metric: Metric
    parameters: dict[str, Any]
    base_model: str = ENCODER
    functions: tuple[str, ...] = ()
    grpo: dict[str, Any] | None = None

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
    Example(
        "expenses", ".jsonl", "text-generation", "exact match",
        {
            "num_train_epochs": 1, "learning_rate": 1e-4, "per_device_train_batch_size": 8, "max_length": 128,
            "max_new_tokens": 8,
        },
        demo.BASE_MODEL,
        functions=("exact_match_shared",),
        grpo={
            "num_train_epochs": 1, "downsample_size": 60, "learning_rate": 3e-4, "per_device_train_batch_size": 16,
            "num_generations": 4, "max_length": 128, "max_completion_length": 8, "max_new_tokens": 8, "beta": 0.0,
            "save_steps": 1000,
        },
    ),
)  # fmt: skip


@dataclass
class Result:
    """How a training went: scores on its example's test rows, of what it is held against and of the best checkpoint
    called over HTTP.
    """

    task_type: str
    technique: str
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
    results = [result for example in EXAMPLES for result in _Trial(client, console, project, example).results()]
    console.print(_table(results))
    return results


def check(results: list[Result]) -> None:
    """Raises EmissaryError where a best checkpoint does not beat its baselines."""
    if worse := [f"{result.dataset} ({result.technique})" for result in results if not result.beats_baselines]:
        raise EmissaryError(f"The best checkpoint is no better than a baseline on: {', '.join(worse)}.")


class _Trial:
    """One example on the platform."""

    def __init__(self, client: Client, console: Console, project: str, example: Example) -> None:
        self._client, self._console, self._project, self._example = client, console, project, example
        self._train, self._test = (read(example.file(part), example.task_type) for part in ("train", "test"))

    def results(self) -> list[Result]:
        """Of SFT, and of GRPO from its best checkpoint where the example has that."""
        example = self._example
        self._console.rule(f"{example.task_type}: {example.name}")
        train, test = (
            walkthrough.upload(self._client, self._console, self._project, example.file(part))
            for part in ("train", "test")
        )
        request = {
            "name": example.name,
            "task_type": example.task_type,
            "base_model": example.base_model,
            "train_dataset_id": train,
            "test_dataset_id": test,
            "test_functions": list(example.functions),
            "parameters": example.parameters,
        }
        job, sft = self._trained("SFT", request)
        if example.task_type in ("classification", "regression"):
            self._compare(sft, baseline_scores(example.metric, self._train, self._test))
        else:
            self._compare(sft, {"base model": self._score(job, 0)})
        if example.grpo is None:
            return [sft]
        _, grpo = self._trained(
            "GRPO",
            request
            | {
                "name": f"{example.name}-grpo",
                "base_model_option": "fine-tuned",
                "base_model": job["id"],
                "checkpoint": job["best_checkpoint"],
                "reward": {example.functions[0]: 1.0},
                "parameters": example.grpo,
            },
        )
        self._compare(grpo, {"SFT": sft.score})
        return [sft, grpo]

    def _trained(self, technique: str, request: dict[str, Any]) -> tuple[dict[str, Any], Result]:
        """The job of `request` at its end, and what its best checkpoint scores, compared with nothing yet."""
        example, began = self._example, time.monotonic()
        job, _ = walkthrough.train(self._client, self._console, self._project, request)
        score = self._score(job, "best")
        seconds = round(time.monotonic() - began, 1)
        result = Result(
            example.task_type, technique, example.name, len(self._train[0]), len(self._test[0]), example.base_model,
            example.metric, best_checkpoint=job["best_checkpoint"], score=score, seconds=seconds,
        )  # fmt: skip
        return job, result

    def _compare(self, result: Result, baselines: dict[str, float]) -> None:
        result.baselines = baselines
        result.beats_baselines = all(better(self._example.metric, result.score, other) for other in baselines.values())

    def _score(self, job: dict[str, Any], checkpoint: int | str) -> float:
        """The metric of what a checkpoint of the job, deployed, answers to the test rows."""
        example = self._example
        name = f"{job['name']}-{checkpoint or 'base'}-{self._project[3:9]}"
        request = {"training_job_id": job["id"], "checkpoint": checkpoint, "name": name}
        walkthrough.deploy(self._client, self._console, self._project, request)
        predicted = _answers(self._client, self._console, name, example.task_type, self._test[0])
        return scored(example.metric, self._test[1], predicted)


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
        kind = row.task_type if row.technique == "SFT" else f"{row.task_type}, {row.technique}"
        example = (row.dataset, f"{row.train_rows} + {row.test_rows} rows", kind, row.base_model)
        baselines = "\n".join(f"{score:.3f} {name}" for name, score in row.baselines.items())
        best = f"{row.score:.3f}\n(checkpoint {row.best_checkpoint})"
        table.add_row("\n".join(example), row.metric, baselines, best, f"{row.seconds:.0f}")
    return table
