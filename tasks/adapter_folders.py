"""What training leaves on disk: adapters to download, and trainer states to go on from."""

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open


def save_adapter(model: Any, tokenizer: Any, model_name: str, folder: Path) -> None:
    """Write the adapter with its tokenizer to `folder`, in place of what is left there from before a kill."""
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, save_embedding_layers=False)
    tokenizer.save_pretrained(folder)
    # PEFT's model card and configuration name the base model by the folder it was loaded from.
    (folder / "README.md").unlink(missing_ok=True)
    config_file = folder / "adapter_config.json"
    config = json.loads(config_file.read_text())
    config["base_model_name_or_path"] = model_name
    # A set, whose order differs from process to process.
    config["target_modules"] = sorted(config["target_modules"])
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True))


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
