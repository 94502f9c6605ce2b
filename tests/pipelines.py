"""Pipelines as tests make and run them."""

from typing import Any

from emissary.client import Client
from tests.jobs import ended, until
from tests.tasks.pooled_run import ENCODER, TOPICS

NAMES = sorted(TOPICS)
TEST = [(text, topic) for topic, texts in TOPICS.items() for text in texts[:2]]
TRAINING = [(text, topic) for topic, texts in TOPICS.items() for text in texts[2:]]
QUICK = {
    "num_train_epochs": 8,
    "per_device_train_batch_size": 2,
    "max_length": 32,
    "lora_r": 4,
    "learning_rate": 3e-3,
}
SHORT = QUICK | {"num_train_epochs": 1, "learning_rate": 1e-5}


def rows(pairs: list[tuple[str, str]], turn: int = 0) -> list[dict[str, Any]]:
    """Rows to upload; with a `turn` every one has a wrong label."""
    named = [(text, NAMES[(NAMES.index(topic) + turn) % len(NAMES)]) for text, topic in pairs]
    return [{"prompt": text, "completion": {name: int(name == topic) for name in NAMES}} for text, topic in named]


def config(golden: str, deployment: str | None, **changed: Any) -> dict[str, Any]:
    return {
        "name": "nightly",
        "gather": {"datasets": "newest"},
        "test_dataset_id": golden,
        "train": {
            "base_model": ENCODER,
            "task_type": "classification",
            "test_functions": ["exact_match_shared"],
            "parameters": QUICK,
        },
        "gate": {"minimum_score": {"exact_match_shared": 0.6}, "class_tolerance": 0.5, "confidence": 0.6},
        "deployment_id": deployment,
    } | changed


def run(client: Client, path: str, **body: Any) -> dict[str, Any]:
    """A run of the pipeline at `path`, once it has ended."""
    made = client.post(f"{path}/runs", body)
    return dict(until(lambda: client.get(f"{path}/runs/{made['id']}"), ended, seconds=240))


def other(client: Client, project: str, **changed: Any) -> str:
    """The path of another pipeline, which deploys nothing."""
    path = f"/v1/projects/{project}/pipelines"
    return f"{path}/{client.post(path, changed)['id']}"
