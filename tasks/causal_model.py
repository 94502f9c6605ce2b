"""A base model that generates text, ready to be trained."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def load_causal_model(model_dir: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    """The model in `model_dir` in `dtype`, and its tokenizer; nothing but safetensors, no code, no network."""
    tokenizer = AutoTokenizer.from_pretrained(model_dir, local_files_only=True, trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(
        model_dir, dtype=dtype, use_safetensors=True, local_files_only=True, trust_remote_code=False
    )
    return model, tokenizer
