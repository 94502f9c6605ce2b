"""Models that make one vector of a text: loading them, and how the vector is made."""

import json
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from emissary.errors import InvalidInput
from emissary.hardware import default_dtype
from emissary.serving import architecture, loading
from emissary.serving.adapter_task import PooledTask

HEADS = ("score", "classifier")
"""What transformers calls the linear head of its sequence-classification models."""

Pooling = Literal["mean", "cls"]
"""How one vector is made of a text's tokens: their mean, or the first token's."""


def dtype_for(task_type: PooledTask, device: torch.device) -> torch.dtype:
    """What the model computes in on `device`: embeddings, which are compared to each other, in full precision."""
    return torch.float32 if task_type == "embedding" else default_dtype(device)


def load_model(model_dir: Path, task_type: PooledTask, outputs: int, dtype: torch.dtype) -> tuple[Any, Any]:
    """The model in `model_dir` and its tokenizer: without a head for embedding, else with a new one of `outputs` rows.

    The head of a model with sentence-transformers files is a linear layer `score` for the vector that it was trained to
    make (see `pool`); of any other, transformers' own, whose input an encoder was often never trained to make.

    Raises InvalidInput when the folder holds no such model as safetensors, or one that is not supported.
    """
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    with loading.refused(model_dir, f"model for {task_type} as safetensors"):
        tokenizer: Any = AutoTokenizer.from_pretrained(model_dir, **local)
        if task_type == "embedding" or named_pooling(model_dir) is not None:
            model: Any = AutoModel.from_pretrained(model_dir, dtype=dtype, use_safetensors=True, **local)
            if task_type != "embedding":
                model.score = nn.Linear(model.config.get_text_config().hidden_size, outputs, dtype=dtype)
        else:
            model = AutoModelForSequenceClassification.from_pretrained(
                model_dir, dtype=dtype, use_safetensors=True, num_labels=outputs, **local
            )
    architecture.check(model, generates=False)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    if task_type != "embedding":
        head_name(model)
    return model, tokenizer


def head_name(model: nn.Module) -> str:
    """Name of the linear head of a sequence-classification model. Raises InvalidInput where it has another head."""
    for name in HEADS:
        if isinstance(getattr(model, name, None), nn.Linear):
            return name
    raise InvalidInput(f"{type(model).__name__} has no linear head; use another base model.")


def context_of(model_dir: Path, model: Any, tokenizer: Any) -> int:
    """The longest text in tokens: that of the model, or less where its tokenizer (of models that do not use their first
    positions) or its sentence-transformers files say so.
    """
    context = min(architecture.context_of(model), int(tokenizer.model_max_length))
    file = model_dir / "sentence_bert_config.json"
    said = json.loads(file.read_text(encoding="utf-8")).get("max_seq_length") if file.is_file() else None
    return min(context, int(said)) if said else context


def named_pooling(model_dir: Path) -> Pooling | None:
    """The pooling that the sentence-transformers files in `model_dir` say the model was trained with; None without any.

    Raises InvalidInput where they ask for another pooling.
    """
    file = model_dir / "1_Pooling" / "config.json"
    if not file.is_file():
        return None
    config = json.loads(file.read_text(encoding="utf-8"))
    modes = {name for name, on in config.items() if name.startswith("pooling_mode") and on is True}
    if modes == {"pooling_mode_mean_tokens"}:
        return "mean"
    if modes == {"pooling_mode_cls_token"}:
        return "cls"
    asked = ", ".join(sorted(modes)) or "no pooling"
    raise InvalidInput(
        f"1_Pooling/config.json of {loading.model_name(model_dir)} asks for {asked}, and only mean and cls are known; "
        "use another base model."
    )


def pool(model: Any, input_ids: Tensor, attention_mask: Tensor, pooling: Pooling) -> Tensor:
    """Vectors (rows, size) in float32 of token ids (rows, tokens), padded on the right (Reimers and Gurevych, 2019,
    arXiv:1908.10084).
    """
    hidden: Tensor = model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state.float()
    weights = attention_mask[..., None].float()
    return hidden[:, 0] if pooling == "cls" else (hidden * weights).sum(1) / weights.sum(1)


def embed(model: Any, input_ids: Tensor, attention_mask: Tensor, pooling: Pooling | None) -> Tensor:
    """Embeddings (rows, size): the vectors of `pool`, by the mean unless the model says otherwise, of length 1."""
    return functional.normalize(pool(model, input_ids, attention_mask, pooling or "mean"), dim=-1)


def padded(rows: list[list[int]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    """Token ids (rows, longest) padded on the right, and the mask that is 1 on tokens and 0 on padding."""
    longest = max(map(len, rows))
    ids = torch.tensor([row + [pad_token_id] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return ids, mask
