"""How a checkpoint is loaded with PEFT, as a few lines of Python for its model card."""

import json
from typing import Any

from emissary.base_models import BaseModelEntry

_TEXT = """\
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

model = AutoPeftModelForCausalLM.from_pretrained("{repo}").eval()
tokenizer = AutoTokenizer.from_pretrained("{repo}")
messages = [{{"role": "user", "content": "…"}}]
asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
answer = model.generate(**asked, max_new_tokens=256)[0, asked["input_ids"].shape[1] :]
print(tokenizer.decode(answer, skip_special_tokens=True))"""

_HEAD = """\
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

model = AutoModelForSequenceClassification.from_pretrained("{base}", num_labels={outputs})
model = PeftModel.from_pretrained(model, "{repo}").eval()
tokenizer = AutoTokenizer.from_pretrained("{repo}")
logits = model(**tokenizer(["…"], return_tensors="pt")).logits"""

_VECTORS = """\
from peft import PeftModel
from transformers import AutoModel, AutoTokenizer

model = PeftModel.from_pretrained(AutoModel.from_pretrained("{base}"), "{repo}").eval()
tokenizer = AutoTokenizer.from_pretrained("{repo}")
vectors = model(**tokenizer(["…"], return_tensors="pt")).last_hidden_state  # mean, or as 1_Pooling says"""

_POOLED_HEAD = """\
import torch
from peft import PeftModel
from transformers import AutoModel, AutoTokenizer

model = AutoModel.from_pretrained("{base}")
model.score = torch.nn.Linear(model.config.hidden_size, {outputs})
model = PeftModel.from_pretrained(model, "{repo}").eval()
tokenizer = AutoTokenizer.from_pretrained("{repo}")
vectors = model(**tokenizer(["…"], return_tensors="pt")).last_hidden_state
logits = model.score(vectors.mean(1))  # of one text; or of the vector that the base model's 1_Pooling says"""


def usage(task_type: str, repo: str, entry: BaseModelEntry, task: dict[str, Any] | None) -> str:
    """Python that loads the adapter in the hub's `repo` on its base model and calls it; `task` is its task.json."""
    if task_type == "text-generation":
        template = _TEXT
    elif task_type == "embedding":
        template = _VECTORS
    else:
        template = _POOLED_HEAD if entry.type == "embeddings" else _HEAD
    outputs = len(task["labels"]) if task and task_type == "classification" else 1
    return template.format(repo=repo, base=entry.hub_name or entry.name, outputs=outputs)


def outputs(task: dict[str, Any] | None) -> str:
    """What the outputs mean, in a sentence; empty where they are text or vectors."""
    if task is None or task["task_type"] == "embedding":
        return ""
    if task["task_type"] == "regression":
        mean, deviation = task["target_mean"], task["target_std"]
        return f"The number is the output times {deviation:.6g} plus {mean:.6g}."
    function = "softmax" if task["label_kind"] == "multiclass" else "sigmoid of each"
    return f"The outputs are the logits ({function}) of the labels in `task.json`, in this order: `{_labels(task)}`."


def _labels(task: dict[str, Any]) -> str:
    shown = json.dumps(task["labels"][:50], ensure_ascii=False).replace("`", "'")
    return shown if len(task["labels"]) <= 50 else f"{shown[:-1]}, …]"
