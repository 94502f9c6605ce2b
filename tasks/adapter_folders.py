"""What training leaves on disk: adapters to download, and trainer states to go on from."""

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel
from safetensors import SafetensorError, safe_open

from emissary.errors import InvalidInput


def save_adapter(model: Any, tokenizer: Any, model_name: str, folder: Path) -> None:
    """Write the adapter with its tokenizer to `folder`, in place of what is left there from before a kill."""
    shutil.rmtree(folder, ignore_errors=True)
    # Only what is trained: GRPO that starts from an adapter keeps a copy of that as its reference.
    model.save_pretrained(folder, selected_adapters=["default"], save_embedding_layers=False)
    tokenizer.save_pretrained(folder)
    # PEFT's model card and configuration name the base model by the folder it was loaded from.
    (folder / "README.md").unlink(missing_ok=True)
    config_file = folder / "adapter_config.json"
    config = json.loads(config_file.read_text())
    config["base_model_name_or_path"] = model_name
    # A set, whose order differs from process to process.
    config["target_modules"] = sorted(config["target_modules"])
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True))


def load_adapter(model: Any, folder: Path, dropout: float) -> Any:
    """`model` with the LoRA adapter in `folder`, to train that on, in float32, with `dropout` on the matrices' input.

    Raises InvalidInput where it does not fit the model.
    """
    try:
        config = LoraConfig.from_pretrained(str(folder))
        config.lora_dropout = dropout
        # The name there is not a folder, and PEFT would ask the hub for it at every save.
        config.base_model_name_or_path = model.name_or_path
        return PeftModel.from_pretrained(model, str(folder), is_trainable=True, config=config)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise InvalidInput(f"The adapter to start from, {folder}, does not fit the base model: {error}") from error


def last_state(folder: Path) -> str | None:
    """The newest complete trainer state in `folder`; removes the incomplete ones that a kill left."""
    for state in sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name[11:]), reverse=True):
        if _is_complete(state):
            return str(state)
        shutil.rmtree(state)
    return None


def _is_complete(state: Path) -> bool:
    try:
        json.loads((state / "trainer_state.json").read_text())
        with safe_open(state / "adapter_model.safetensors", "pt"):
            pass
    except (OSError, ValueError, SafetensorError):
        return False
    return all(zipfile.is_zipfile(state / name) for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"))
