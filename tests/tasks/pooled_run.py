"""Small trainings of each task, for tests and for the process that one kills:
pooled_run.py WORK_DIR KILL_AT_STEP [ADAPTER].
"""

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from emissary import model_files
from emissary.serving.adapter_task import AdapterTask
from emissary.settings import Settings
from tasks.pooled_training import train_pooled
from tests.tasks.sft_run import caller_of

ENCODER = "all-MiniLM-L6-v2"
PARAMETERS: dict[str, Any] = {
    "learning_rate": 3e-3,
    "num_train_epochs": 4,
    "per_device_train_batch_size": 4,
    "per_device_eval_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "max_length": 64,
    "lr_scheduler_type": "linear",
    "warmup_ratio": 0.1,
    "weight_decay": 0.0,
    "lora_r": 4,
    "lora_alpha": 8,
    "lora_dropout": 0.1,
    "seed": 7,
    "logging_steps": 2,
    "save_steps": 4,
    "dynamic_loss": False,
}
SPORT = ("the match ended two to one", "she scored a late goal", "the team won the cup", "he ran the marathon")
FOOD = ("add salt to the soup", "bake the bread for an hour", "fry the onions in butter", "a ripe and sweet mango")
WEATHER = ("rain is falling tonight", "snow on the hills", "a warm and sunny day", "strong wind from the sea")
TOPICS = {"sport": SPORT, "food": FOOD, "weather": WEATHER}
MULTICLASS = [
    {"prompt": text, "labels": {name: int(name == topic) for name in TOPICS}}
    for topic, texts in TOPICS.items()
    for text in texts
]
BINARY = [
    {"prompt": text, "labels": {"food": int(topic == "food")}} for topic, texts in TOPICS.items() for text in texts
]
NUMBERS = [{"prompt": f"the price is {price} euros", "target": float(price)} for price in (10, 20, 30, 40, 50, 60)] * 2
PAIRS = [
    {"text_a": first, "text_b": second, "similarity": 1.0 if one == other else -0.5}
    for one, left in TOPICS.items()
    for other, right in TOPICS.items()
    for first, second in zip(left[:2], right[2:], strict=True)
]
TASKS = {
    "multiclass": AdapterTask(task_type="classification", label_kind="multiclass", labels=["food", "sport", "weather"]),
    "binary": AdapterTask(task_type="classification", label_kind="binary", labels=["food"]),
    "numbers": AdapterTask(task_type="regression", target_mean=35.0, target_std=17.078),
    "pairs": AdapterTask(task_type="embedding"),
}
ROWS = {"multiclass": MULTICLASS, "binary": BINARY, "numbers": NUMBERS, "pairs": PAIRS}


def encoder_dir() -> Path:
    """Folder of the small encoder, fetched once where EMISSARY_MODELS does not have it."""
    return model_files.fetch(ENCODER, Settings())


def plain_encoder(folder: Path) -> Path:
    """The small encoder in `folder` without what sentence-transformers says of it."""
    return shutil.copytree(encoder_dir(), folder, ignore=shutil.ignore_patterns("1_Pooling"))


def new_model(model_dir: Path, outputs: int) -> Any:
    """What README says an adapter of `outputs` outputs is for: with a head of transformers, or of ours."""
    if outputs == 0:
        return AutoModel.from_pretrained(model_dir)
    if not (model_dir / "1_Pooling").exists():
        return AutoModelForSequenceClassification.from_pretrained(model_dir, num_labels=outputs)
    model = AutoModel.from_pretrained(model_dir)
    model.score = torch.nn.Linear(model.config.hidden_size, outputs)
    return model


@torch.inference_mode()
def outputs_of(model: Any, texts: list[str], model_dir: Path, head: bool) -> Tensor:
    """Logits (texts, outputs), or without a `head` embeddings (texts, size) of length 1, of PEFT's `model`."""
    batch = AutoTokenizer.from_pretrained(model_dir)(texts, return_tensors="pt", padding=True)
    found = model(**batch)
    if "logits" in found:
        return found.logits
    mask = batch["attention_mask"][..., None]
    mean = (found.last_hidden_state * mask).sum(1) / mask.sum(1)
    return model.score(mean) if head else mean / mean.norm(dim=-1, keepdim=True)


def peft_outputs(model_dir: Path, adapter: Path, texts: list[str], outputs: int) -> Tensor:
    """The same of the adapter in a folder, loaded by PEFT."""
    model = PeftModel.from_pretrained(new_model(model_dir, outputs), adapter).eval()
    return outputs_of(model, texts, model_dir, outputs > 0)


def run(kind: str, work_dir: Path, **changed: Any) -> int:
    """`train_pooled` on 12 or 18 rows; `changed` replaces arguments, `parameters` single ones."""
    arguments: dict[str, Any] = {
        "task": TASKS[kind],
        "model_dir": encoder_dir(),
        "model_name": ENCODER,
        "train_rows": ROWS[kind],
        "test_rows": ROWS[kind][:4],
        "work_dir": work_dir,
    }
    parameters = PARAMETERS | changed.pop("parameters", {})
    caller = caller_of(changed)
    return train_pooled(**(arguments | changed), caller=caller, parameters=parameters)


def _kill_at(step: int, share: float) -> None:
    if share >= step / 12:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    # As in the tests: how sums are split over threads shows in the last bits.
    torch.set_num_threads(1)
    start = Path(sys.argv[3]) if len(sys.argv) > 3 else None
    run("multiclass", Path(sys.argv[1]), adapter_dir=start, on_progress=lambda share: _kill_at(int(sys.argv[2]), share))
