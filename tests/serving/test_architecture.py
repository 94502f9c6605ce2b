"""Base models that cannot be trained and served are refused when they are loaded, with the reason."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5Model,
)

from emissary.errors import InvalidInput
from emissary.serving.causal_models import load_causal_model
from emissary.serving.generation import Generator
from emissary.serving.pooled import PooledModel
from emissary.serving.pooled_models import load_model
from tasks.model_shape import model_shape

SMALL = {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
LOADERS = [
    pytest.param(lambda folder: load_causal_model(folder, torch.float32), id="text-generation"),
    pytest.param(lambda folder: load_model(folder, "classification", 2, torch.float32), id="classification"),
    pytest.param(lambda folder: load_model(folder, "embedding", 0, torch.float32), id="embedding"),
    pytest.param(lambda folder: model_shape(folder, "classification"), id="shape"),
]
VOCABULARY = 49152  # of the tokenizer


def saved(folder: Path, model: Any, tokenizer_dir: Path) -> Path:
    """`folder` with the model's files and a tokenizer."""
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer_dir).save_pretrained(folder)
    return folder


def tiny_llama(**config: Any) -> LlamaForCausalLM:
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=48, **SMALL, **config))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (
            lambda: GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=16, n_layer=1, n_head=2)),
            "GPT2LMHeadModel is not supported: its layers are Conv1D",
        ),
        (
            lambda: MambaForCausalLM(MambaConfig(vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=1)),
            "MambaForCausalLM is not supported: it keeps a state",
        ),
        (
            lambda: BertForMaskedLM(BertConfig(vocab_size=VOCABULARY, **SMALL)),
            "its files are a BertForMaskedLM, which does not write text",
        ),
        (
            lambda: T5Model(T5Config(vocab_size=VOCABULARY, d_model=16, d_kv=8, d_ff=16, num_layers=1)),
            "holds no causal language model",
        ),
    ],
    ids=["conv1d", "stateful", "encoder", "encoder and decoder"],
)
def test_unsupported_architecture_is_refused_for_text_generation(
    base_model_dir: Path, tmp_path: Path, model: Any, reason: str
) -> None:
    folder = saved(tmp_path, model(), base_model_dir)
    with pytest.raises(InvalidInput, match=reason):
        load_causal_model(folder, torch.float32)


def test_encoder_with_a_decoder_is_refused_for_embedding(base_model_dir: Path, tmp_path: Path) -> None:
    t5 = T5Model(T5Config(vocab_size=VOCABULARY, d_model=16, d_kv=8, d_ff=16, num_layers=1))
    folder = saved(tmp_path, t5, base_model_dir)
    with pytest.raises(InvalidInput, match="T5Model is not supported: it has an encoder and a decoder"):
        load_model(folder, "embedding", 0, torch.float32)


@pytest.mark.parametrize("load", LOADERS)
def test_models_own_code_is_refused_in_one_sentence_and_not_run(
    base_model_dir: Path, tmp_path: Path, load: Callable[[Path], Any]
) -> None:
    folder = saved(tmp_path / "acme/remote", tiny_llama(), base_model_dir)
    config = json.loads((folder / "config.json").read_text())
    classes = ("AutoModel", "AutoModelForCausalLM", "AutoModelForSequenceClassification")
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"} | dict.fromkeys(classes, "own.OwnModel")}
    (folder / "config.json").write_text(json.dumps(config | own))
    ran = tmp_path / "ran"
    (folder / "own.py").write_text(f"open({str(ran)!r}, 'w')\n")
    with pytest.raises(InvalidInput) as refused:
        load(folder)
    assert str(refused.value) == (
        "The model acme/remote needs code of its own, which is never run here; use another base model."
    )
    assert not ran.exists()


@pytest.mark.parametrize("load", LOADERS)
def test_refusal_names_the_model_and_no_path_of_the_server(tmp_path: Path, load: Callable[[Path], Any]) -> None:
    folder = tmp_path / "acme/broken"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{")
    with pytest.raises(InvalidInput, match="The model acme/broken holds no ") as refused:
        load(folder)
    assert str(tmp_path) not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_pickled_weights_are_refused_and_not_loaded(base_model_dir: Path, tmp_path: Path) -> None:
    folder = saved(tmp_path, tiny_llama(), base_model_dir)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(InvalidInput, match="safetensors"):
        load_causal_model(folder, torch.float32)


def test_unknown_kind_of_model_is_refused(base_model_dir: Path, tmp_path: Path) -> None:
    folder = saved(tmp_path, tiny_llama(), base_model_dir)
    (folder / "config.json").write_text('{"model_type": "of-tomorrow"}')
    with pytest.raises(InvalidInput, match="of-tomorrow"):
        load_causal_model(folder, torch.float32)


def test_context_is_that_of_the_files(base_model_dir: Path, tmp_path: Path) -> None:
    assert Generator(saved(tmp_path, tiny_llama(), base_model_dir)).context == 48
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"max_position_embeddings": None}))
    with pytest.raises(InvalidInput, match=r"max_position_embeddings|holds no causal"):
        Generator(tmp_path)


def test_context_of_an_encoder_is_at_most_its_tokenizers(base_model_dir: Path, tmp_path: Path) -> None:
    # The first two of RoBERTa's positions are not used.
    config = RobertaConfig(vocab_size=VOCABULARY, max_position_embeddings=66, pad_token_id=1, **SMALL)
    folder = saved(tmp_path, RobertaModel(config), base_model_dir)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.model_max_length = 64
    tokenizer.save_pretrained(folder)
    assert PooledModel(folder, "embedding").context == 64
