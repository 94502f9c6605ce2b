"""Base models that generate text: loading them."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from emissary.errors import InvalidInput
from emissary.serving import architecture, loading


def load_causal_model(model_dir: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    """The model in `model_dir` in `dtype`, and its tokenizer; nothing but safetensors, no code, no network.

    Raises InvalidInput when the folder holds no causal language model of that kind, or an unsupported one.
    """
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    with loading.refused(model_dir, "causal language model as safetensors"):
        tokenizer: Any = AutoTokenizer.from_pretrained(model_dir, **local)
        model: Any = AutoModelForCausalLM.from_pretrained(model_dir, dtype=dtype, use_safetensors=True, **local)
    architecture.check(model, generates=True)
    if tokenizer.eos_token is None:
        named = loading.model_name(model_dir)
        raise InvalidInput(f"The tokenizer of {named} has no end token (eos_token); use another base model.")
    return model, tokenizer
