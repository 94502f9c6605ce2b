"""One float32 generator for all serving tests, and two adapters that change its answers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from emissary.serving.generation import Generator


@pytest.fixture(scope="session")
def adapter_dirs(base_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of the adapters "red" (rank 8, all linear layers) and "blue" (rank 4, attention only)."""
    folder = tmp_path_factory.mktemp("adapters")
    model = AutoModelForCausalLM.from_pretrained(base_model_dir, dtype=torch.float32)
    configs = {
        "red": LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"),
        "blue": LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
    }
    for seed, (name, config) in enumerate(configs.items()):
        torch.manual_seed(seed)
        peft = get_peft_model(model, config)
        for key, weight in peft.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(weight, std=0.01 if name == "red" else 0.3)
        peft.save_pretrained(folder / name)
        model = peft.unload()
    return {name: folder / name for name in configs}


@pytest.fixture(scope="session")
def shared_generator(base_model_dir: Path) -> Generator:
    return Generator(base_model_dir, torch.float32)


@pytest.fixture
def generator(shared_generator: Generator, adapter_dirs: dict[str, Path]) -> Iterator[Generator]:
    """The generator with "red" and "blue" loaded."""
    for name, folder in adapter_dirs.items():
        shared_generator.load_adapter(name, folder)
    yield shared_generator
    for name in shared_generator.adapters:
        shared_generator.unload_adapter(name)
