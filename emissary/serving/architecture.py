"""What a base model must be for its adapters to be trained and served here."""

from typing import Any

from transformers.pytorch_utils import Conv1D

from emissary.errors import InvalidInput

_GENERATES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")


def check(model: Any, *, generates: bool) -> None:
    """Raise InvalidInput where adapters of `model` cannot be trained and served; `generates`: it is to write text."""
    named = getattr(model.config, "architectures", None) or [type(model).__name__]
    if getattr(model.config, "is_encoder_decoder", False):
        raise _unsupported(model, "it has an encoder and a decoder")
    if generates and not any(name.endswith(_GENERATES) for name in named):
        raise _unsupported(model, f"its files are a {named[0]}, which does not write text")
    if getattr(model, "_is_stateful", False):
        raise _unsupported(model, "it keeps a state from token to token in place of a key-value cache")
    if any(isinstance(module, Conv1D) for module in model.modules()):
        raise _unsupported(model, "its layers are Conv1D, not Linear, on which adapters are not served")


def context_of(model: Any) -> int:
    """The longest input of `model` in tokens, as its config.json says. Raises InvalidInput where it does not say."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(positions, int) or positions < 1:
        raise _unsupported(model, "its config.json has no max_position_embeddings, the longest input in tokens")
    return positions


def _unsupported(model: Any, why: str) -> InvalidInput:
    return InvalidInput(f"The architecture {type(model).__name__} is not supported: {why}; use another base model.")
