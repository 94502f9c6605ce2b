"""The small base model with few of its layers: real weights, tokenizer and chat template, and much less to compute.

For tests of how training, resuming and answering go, which do not ask what the model knows.
"""

from pathlib import Path

import torch
from filelock import FileLock
from transformers import AutoModelForCausalLM, AutoTokenizer

from emissary import model_files
from emissary.settings import PROJECT_ROOT, Settings

LAYERS = (0, 1, 27, 28, 29)
"""Of those tried, the five after which the model is least at a loss."""
_FOLDER = PROJECT_ROOT / "build" / "SmolLM2-of-five-layers"


def short_model_dir() -> Path:
    """Its folder, made where it is not there yet; `make clean` deletes it."""
    _FOLDER.parent.mkdir(exist_ok=True)
    with FileLock(_FOLDER.with_suffix(".lock")):
        if not (_FOLDER / "tokenizer.json").exists():
            whole = model_files.fetch("SmolLM2-135M-Instruct", Settings())
            model = AutoModelForCausalLM.from_pretrained(whole)
            model.model.layers = torch.nn.ModuleList(model.model.layers[number] for number in LAYERS)
            model.config.num_hidden_layers = len(LAYERS)
            model.save_pretrained(_FOLDER)
            AutoTokenizer.from_pretrained(whole).save_pretrained(_FOLDER)
    return _FOLDER
