"""Small jobs of every kind, for storms and for the kill matrix: a new kind joins both by one line of `ALL`."""

from dataclasses import dataclass
from typing import Any

from tests.conftest import BASE_MODEL
from tests.jobs import ROWS
from tests.tasks.pooled_run import ENCODER, TOPICS

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Small:
    """A job: what is asked of the API but for the datasets, their rows, and how many checkpoints come of it."""

    name: str
    body: dict[str, Any]
    rows: Rows
    test_rows: Rows
    checkpoints: int
    path: str = "training-jobs"

    @property
    def epochs(self) -> int:
        """Of its parameters."""
        return int(self.body["parameters"]["num_train_epochs"])

    @property
    def epoch_steps(self) -> int:
        """Optimizer steps of an epoch."""
        parameters = self.body["parameters"]
        rows = int(parameters["per_device_train_batch_size"]) // int(parameters.get("num_generations", 1))
        return -(-len(self.rows) // rows)


_TOPIC_ROWS: Rows = [
    {"prompt": text, "completion": {name: int(name == topic) for name in TOPICS}}
    for topic, texts in TOPICS.items()
    for text in texts
]
_NUMBER_ROWS: Rows = [{"prompt": f"the price is {price} euros", "completion": price} for price in range(10, 130, 10)]
_PAIR_ROWS: Rows = [
    {"itemA": {"text": first}, "itemB": {"text": second}, "similarity": 1 if one == other else -0.5}
    for one, left in TOPICS.items()
    for other, right in TOPICS.items()
    for first, second in zip(left[:2], right[2:], strict=True)
]
# Logged at every step, so that a step can be seen; saved within an epoch, so that there is something between.
_STEPS = {"num_train_epochs": 2, "per_device_train_batch_size": 2, "logging_steps": 1, "save_steps": 3}
_TEXT = _STEPS | {"max_length": 64, "lora_r": 2, "lora_dropout": 0.1, "max_new_tokens": 4}
_POOLED = _STEPS | {"max_length": 32, "lora_r": 4, "lora_dropout": 0.1, "learning_rate": 3e-3}
_TESTED = {"test_functions": ["test_similarity_shared"]}

SFT = Small("text generation", {"base_model": BASE_MODEL, "parameters": _TEXT} | _TESTED, ROWS, ROWS[:4], 2)
CLASSES = Small(
    "classification",
    {"base_model": ENCODER, "task_type": "classification", "parameters": _POOLED},
    _TOPIC_ROWS,
    _TOPIC_ROWS[:6],
    2,
)
NUMBERS = Small(
    "regression",
    {"base_model": ENCODER, "task_type": "regression", "parameters": _POOLED},
    _NUMBER_ROWS,
    _NUMBER_ROWS[:6],
    2,
)
PAIRS = Small(
    "embedding",
    {"base_model": ENCODER, "task_type": "embedding", "parameters": _POOLED},
    _PAIR_ROWS,
    _PAIR_ROWS[:6],
    2,
)
GRPO = Small(
    "GRPO",
    {
        "base_model": BASE_MODEL,
        "reward": {"test_similarity_shared": 1.0},
        "parameters": {
            "num_train_epochs": 2,
            "per_device_train_batch_size": 4,
            "num_generations": 2,
            "max_length": 64,
            "max_completion_length": 8,
            "max_new_tokens": 4,
            "lora_r": 2,
            "logging_steps": 1,
            "save_steps": 3,
        },
    }
    | _TESTED,
    ROWS,
    ROWS[:3],
    3,
    "training-jobs/grpo",
)
ALL = [SFT, CLASSES, NUMBERS, PAIRS, GRPO]
