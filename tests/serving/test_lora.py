import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from emissary.errors import InvalidInput
from emissary.serving.generation import GenerationRequest, Generator


def without_weights(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()


def without_config(folder: Path) -> None:
    (folder / "adapter_config.json").unlink()


def truncated(folder: Path) -> None:
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])


def config_of_text(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("[1, 2")


def change_config(**values: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    return change


def change_weights(change: Callable[[str, torch.Tensor], tuple[str, torch.Tensor]]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        file = folder / "adapter_model.safetensors"
        save_file(dict(change(key, weight) for key, weight in load_file(file).items()), file)

    return rewrite


SPOILERS = {
    "weights missing": (without_weights, "adapter_model.safetensors is missing"),
    "config missing": (without_config, "adapter_config.json is missing"),
    "weights cut short": (truncated, "cannot be read"),
    "config not JSON": (config_of_text, "not a PEFT configuration"),
    "other rank": (change_config(r=16), r"has the shape \(4, 576\) where \(16, 576\)"),
    "alpha a word": (change_config(lora_alpha="much"), "not numbers"),
    "DoRA": (change_config(use_dora=True), "use_dora is not supported"),
    "not LoRA": (change_config(peft_type="IA3"), "not"),
    "other width": (change_weights(lambda k, w: (k, w[..., :3].contiguous())), "has the shape"),
    "other layers": (change_weights(lambda k, w: (k.replace("layers.", "blocks."), w)), "no linear layer"),
    "half missing": (
        change_weights(lambda k, w: (k.replace("lora_B", "lora_A"), w)),
        "is missing|has the shape",
    ),
    "extra weights": (
        change_weights(lambda k, w: (k.replace("lora_B", "extra"), w)),
        "not the weight of a LoRA",
    ),
    "infinite": (change_weights(lambda k, w: (k, w / 0)), "not finite"),
}


@pytest.mark.parametrize("case", SPOILERS)
def test_a_bad_folder_is_refused_and_changes_nothing(
    case: str, generator: Generator, adapter_dirs: dict[str, Path], tmp_path: Path
) -> None:
    spoil, sentence = SPOILERS[case]
    folder = tmp_path / "bad"
    shutil.copytree(adapter_dirs["blue"], folder)
    spoil(folder)
    request = GenerationRequest(generator.text_prompt("The capital of France is"), "blue", max_new_tokens=2)
    before = generator.generate([request])
    for name in ("bad", "blue"):
        with pytest.raises(InvalidInput, match=sentence):
            generator.load_adapter(name, folder)
    assert generator.adapters == ["blue", "red"]
    assert generator.generate([request]) == before
