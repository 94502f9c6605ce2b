"""A small training, for the tests and for the process that one of them kills:
sft_run.py WORK_DIR KILL_AT_STEP [ADAPTER].
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from tasks.sft_rows import Conversation
from tasks.sft_training import train_sft
from tasks.training_steps import Caller
from tests.short_model import short_model_dir

PARAMETERS: dict[str, Any] = {
    "learning_rate": 1e-3,
    "num_train_epochs": 2,
    "per_device_train_batch_size": 2,
    "per_device_eval_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "max_length": 64,
    "lr_scheduler_type": "linear",
    "warmup_ratio": 0.1,
    "weight_decay": 0.0,
    "lora_r": 2,
    "lora_alpha": 4,
    "lora_dropout": 0.1,
    "seed": 7,
    "logging_steps": 2,
    "save_steps": 3,
    "dynamic_loss": False,
}


def row(prompt: str, completion: str) -> Conversation:
    """A prompt and completion row."""
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
    return {"kind": "prompt", "messages": messages}


# Of different lengths, so that grouping by length and the order within an epoch matter.
ROWS = [
    row("Say it. " * (number % 4 + 1), colour)
    for number, colour in enumerate(("red", "green", "blue", "pink", "grey", "teal", "gold", "rose"))
]


def caller_of(changed: dict[str, Any]) -> Caller:
    """A caller with what `changed` has of its fields, which are taken out of it; the others do nothing."""
    silent: dict[str, Any] = {
        "on_log": lambda _: None,
        "on_progress": lambda _: None,
        "on_state": lambda _: None,
        "on_checkpoint": lambda _: None,
        "should_stop": lambda: False,
        "should_save": lambda: False,
        "ends_with": lambda _: False,
    }
    return Caller(**{name: changed.pop(name, default) for name, default in silent.items()})


def run(work_dir: Path, **changed: Any) -> int:
    """`train_sft` on 8 rows, 4 steps an epoch; `changed` replaces arguments, `parameters` single ones."""
    arguments: dict[str, Any] = {
        "model_dir": short_model_dir(),
        "model_name": "SmolLM2-135M-Instruct",
        "train_rows": ROWS,
        "test_rows": ROWS[:2],
        "work_dir": work_dir,
    }
    parameters = PARAMETERS | changed.pop("parameters", {})
    caller = caller_of(changed)
    return train_sft(**(arguments | changed), caller=caller, parameters=parameters)


def _kill_at(step: int, share: float) -> None:
    if share >= step / 8:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    # As in the tests: how sums are split over threads shows in the last bits.
    torch.set_num_threads(1)
    start = Path(sys.argv[3]) if len(sys.argv) > 3 else None
    run(Path(sys.argv[1]), adapter_dir=start, on_progress=lambda share: _kill_at(int(sys.argv[2]), share))
