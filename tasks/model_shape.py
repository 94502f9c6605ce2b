"""What is known of a base model from its configuration and tokenizer, without reading its weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from emissary.hardware import default_dtype, device
from emissary.serving import architecture, loading, pooled_models

_CLASSES = {"text-generation": AutoModelForCausalLM, "embedding": AutoModel}


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a base model that trains for `task_type` on this machine; `lora_width` is what each rank adds to the
    parameters that are trained, the inputs and outputs of all linear layers.
    """

    task_type: str
    tokenizer: Any
    context: int
    hidden_size: int
    layers: int
    vocabulary: int
    parameters: int
    lora_width: int

    def training_bytes(self, rank: int, rows: int, longest: int) -> int:
        """Memory that training takes on this machine, roughly, with passes over `rows` rows of `longest` tokens.

        Weights in the number type that is computed in; of each LoRA parameter its weight, gradient and AdamW's two
        moments in float32; 34 bytes per token, layer and hidden unit of activations in 16 bits (Korthikanti et al.,
        2022, arXiv:2205.05198, without attention scores, which are not kept), or 2 and one layer's 34 where they are
        recomputed, as for text generation on a GPU; logits, their float32 copy and its gradient.
        """
        target = device()
        dtype = torch.float32 if self.task_type == "embedding" else default_dtype(target)
        size = dtype.itemsize
        text = self.task_type == "text-generation"
        # A pair's two texts are two sequences of a pass.
        tokens = rows * longest * (2 if self.task_type == "embedding" else 1)
        kept = 2 * self.layers + 34 if text and target.type == "cuda" else 34 * self.layers
        activations = tokens * self.hidden_size * kept * size // 2
        logits = tokens * self.vocabulary * (size + 8) if text else 0
        return self.parameters * size + 16 * rank * self.lora_width + activations + logits


def model_shape(model_dir: Path, task_type: str) -> ModelShape:
    """The shape of the base model in `model_dir`. Raises InvalidInput where it cannot be loaded or trained."""
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    with loading.refused(model_dir, f"model for {task_type}"):
        config = AutoConfig.from_pretrained(model_dir, **local)
        tokenizer = AutoTokenizer.from_pretrained(model_dir, **local)
        with torch.device("meta"):  # shapes alone
            model = _CLASSES.get(task_type, AutoModelForSequenceClassification).from_config(config)
    architecture.check(model, generates=task_type == "text-generation")
    text = config.get_text_config()
    linear = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    is_text = task_type == "text-generation"
    return ModelShape(
        task_type=task_type,
        tokenizer=tokenizer,
        context=architecture.context_of(model) if is_text else pooled_models.context_of(model_dir, model, tokenizer),
        hidden_size=text.hidden_size,
        layers=text.num_hidden_layers,
        vocabulary=text.vocab_size,
        parameters=sum(weight.numel() for weight in model.parameters()),
        lora_width=sum(module.in_features + module.out_features for module in linear),
    )
