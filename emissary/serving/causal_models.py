"""Base models that generate text: loading them."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from emissary.errors import InvalidInput
from emissary.serving import architecture


def load_causal_model(model_dir: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    """The model in `model_dir` in `dtype`, and its tokenizer; nothing but safetensors, no code, no network.

    Raises InvalidInput when the folder holds no causal language model of that kind, or an unsupported one.
    """
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(model_dir, **local)
        model: Any = AutoModelForCausalLM.from_pretrained(model_dir, dtype=dtype, use_safetensors=True, **local)
    except Exception as error:  # of anybody's files, transformers raises anything
        raise InvalidInput(f"{model_dir} holds no causal language model as safetensors: {error}") from error
    architecture.check(model, generates=True)
    if tokenizer.eos_token is None:
        raise InvalidInput(f"The tokenizer in {model_dir} has no end token (eos_token); use another base model.")
    return model, tokenizer
