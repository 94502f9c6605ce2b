"""A small GRPO training, for the tests and the process that one of them kills:
grpo_run.py WORK_DIR KILL_AT_STEP [ADAPTER].
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from emissary.testing_function_files import TestingFunction
from tasks.grpo_training import train_grpo
from tests.short_model import short_model_dir
from tests.tasks.sft_run import ROWS, caller_of

PARAMETERS: dict[str, Any] = {
    "learning_rate": 1e-3,
    "num_train_epochs": 2,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "num_generations": 2,
    "max_length": 64,
    "max_completion_length": 8,
    "temperature": 1.0,
    "beta": 0.01,
    "loss_type": "dapo",
    "on_reward_failure": "lowest",
    "lr_scheduler_type": "linear",
    "warmup_ratio": 0.1,
    "weight_decay": 0.0,
    "adam_beta1": 0.9,
    "adam_beta2": 0.99,
    "max_grad_norm": 0.1,
    "lora_r": 2,
    "lora_alpha": 4,
    "seed": 7,
    "logging_steps": 1,
    "save_steps": 3,
}
STEPS = 4


def function(name: str, body: str) -> TestingFunction:
    """A testing function whose body is one expression of its three arguments."""
    source = f"def {name}(input_text, expected_output, predicted_output):\n    return {body}\n"
    return TestingFunction(name=name, content=source)


SHARE_OF_E = function("share_of_e", "predicted_output.count('e') / max(1, len(predicted_output))")
LENGTH = function("length", "len(predicted_output)")


def run(work_dir: Path, **changed: Any) -> int:
    """`train_grpo` on 4 rows, 2 steps an epoch; `changed` replaces arguments, `parameters` single ones."""
    arguments: dict[str, Any] = {
        "model_dir": short_model_dir(),
        "model_name": "SmolLM2-135M-Instruct",
        "train_rows": ROWS[:4],
        "functions": [SHARE_OF_E, LENGTH],
        "weights": {"share_of_e": 1.0},
        "work_dir": work_dir,
        "on_warning": lambda _about, _sentence, _tracebacks: None,
        "on_completions": lambda _: None,
    }
    parameters = PARAMETERS | changed.pop("parameters", {})
    caller = caller_of(changed)
    return train_grpo(**(arguments | changed), caller=caller, parameters=parameters)


def _kill_at(step: int, share: float) -> None:
    if share >= step / STEPS:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    # As in the tests: how sums are split over threads shows in the last bits.
    torch.set_num_threads(1)
    start = Path(sys.argv[3]) if len(sys.argv) > 3 else None
    run(Path(sys.argv[1]), adapter_dir=start, on_progress=lambda share: _kill_at(int(sys.argv[2]), share))
