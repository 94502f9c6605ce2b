"""LoRA adapters side by side on one base model, mixed row by row in a batch.

The A and the B matrices of all adapters that a batch uses are concatenated along the rank, so every linear
layer does two extra products whatever the number of adapters; between the two, each row's hidden values of
the other adapters are zeroed. The base weights are never touched, so a row without an adapter is the base
model.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig
from peft.utils.other import get_pattern_key
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from emissary.errors import InvalidInput, NotFound

_KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<part>[AB])\.weight")


@dataclass(frozen=True, eq=False)
class Adapter:
    """One LoRA adapter: per linear layer A (rank, in) and B (out, rank), the scaling multiplied into B."""

    name: str
    weights: dict[str, tuple[Tensor, Tensor]]


class Adapters:
    """The adapters loaded beside `model`; `select` sets which of them each row of the next forward pass uses.

    Loading and unloading may happen in another thread than the forward passes: rows keep the adapter they
    started with. An adapter may bring a head for the module named `head`, which is left to the caller.
    """

    def __init__(self, model: nn.Module, head: str | None = None) -> None:
        self._head = head
        self._loaded: dict[str, Adapter] = {}
        self._active: dict[str, tuple[Tensor, Tensor, Tensor | None]] = {}
        # Rows come and go while the set of adapters in use stays, and a prefill alternates with decoding
        # steps.
        self._stacked = lru_cache(maxsize=4)(_stack)
        self._linears: dict[str, nn.Linear] = {}
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear):
                self._linears[name] = module
                module.register_forward_hook(partial(self._add, name))

    @property
    def names(self) -> list[str]:
        """Names of the loaded adapters, sorted."""
        return sorted(self._loaded)

    def load(self, name: str, folder: Path) -> None:
        """Load the PEFT adapter in `folder` as `name`, in place of an earlier one of that name.

        Raises InvalidInput, and changes nothing, when the folder holds no LoRA adapter that fits the base
        model.
        """
        self._loaded[name] = Adapter(name, _read(folder, self._linears, self._head))
        self._stacked.cache_clear()

    def unload(self, name: str) -> None:
        """Forget the adapter `name`; rows that use it finish with it. Raises NotFound."""
        if self._loaded.pop(name, None) is None:
            raise self._unknown(name)
        self._stacked.cache_clear()

    def get(self, name: str) -> Adapter:
        """The loaded adapter `name`. Raises NotFound."""
        try:
            return self._loaded[name]
        except KeyError:
            raise self._unknown(name) from None

    def _unknown(self, name: str) -> NotFound:
        return NotFound(f"No adapter named {name!r} is loaded; loaded are: {', '.join(self.names) or 'none'}.")

    def select(self, rows: Sequence[Adapter | None]) -> None:
        """Let row i of the following forward passes use `rows[i]`; None is the base model."""
        used = tuple(sorted({row for row in rows if row is not None}, key=lambda adapter: adapter.name))
        if not used:
            self._active = {}
            return
        alone = len(used) == 1 and None not in rows
        chosen = [-1 if row is None else used.index(row) for row in rows]
        masks: dict[int, Tensor] = {}
        active = {}
        for name, (a, b, owner) in self._stacked(used).items():
            if not alone and id(owner) not in masks:
                masks[id(owner)] = torch.tensor(chosen, device=owner.device)[:, None, None] != owner
            active[name] = (a, b, masks.get(id(owner)))
        self._active = active

    def _add(self, name: str, _module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        part = self._active.get(name)
        if part is None:
            return None
        a, b, others = part
        hidden = functional.linear(args[0], a)
        if others is not None:
            # Filled, not multiplied by zero: an overflow in one adapter stays in its own rows. A layer that works
            # on a row's one vector has no dimension of tokens.
            hidden = hidden.masked_fill_(others if hidden.dim() > 2 else others[:, 0], 0)
        return output + functional.linear(hidden, b)


def _stack(adapters: tuple[Adapter, ...]) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Per layer: A (ranks, in) and B (out, ranks) of all adapters, and each rank's adapter (ranks,)."""
    owners: dict[tuple[int, ...], Tensor] = {}
    stack = {}
    for name in {name for adapter in adapters for name in adapter.weights}:
        parts = [(i, *adapter.weights[name]) for i, adapter in enumerate(adapters) if name in adapter.weights]
        layout = tuple(i for i, a, _ in parts for _ in range(len(a)))
        if layout not in owners:
            owners[layout] = torch.tensor(layout, device=parts[0][1].device)
        a = torch.cat([a for _, a, _ in parts])
        b = torch.cat([b for _, _, b in parts], dim=1)
        stack[name] = (a, b, owners[layout])
    return stack


def _read(folder: Path, linears: dict[str, nn.Linear], head: str | None) -> dict[str, tuple[Tensor, Tensor]]:
    config = _read_config(folder, with_head=head is not None)
    try:
        state = load_file(folder / "adapter_model.safetensors")
    except (SafetensorError, OSError, ValueError) as error:
        raise InvalidInput(f"{folder}/adapter_model.safetensors cannot be read: {error}.") from error
    _refuse_unless(bool(state), folder, "adapter_model.safetensors is empty")
    if head is not None:
        state = {key: weight for key, weight in state.items() if not key.startswith(f"base_model.model.{head}.")}
    for key in state:
        _refuse_unless(_KEY.fullmatch(key) is not None, folder, f"{key} is not the weight of a LoRA layer")
    weights = {}
    for module in _modules(state):
        linear = linears.get(module)
        if linear is None:
            raise _misfit(folder, f"the base model has no linear layer {module}")
        rank = config.rank_pattern.get(get_pattern_key(config.rank_pattern, module), config.r)
        pair = []
        for part, shape in (("A", (rank, linear.in_features)), ("B", (linear.out_features, rank))):
            key = f"base_model.model.{module}.lora_{part}.weight"
            _refuse_unless(key in state, folder, f"{key} is missing")
            found = tuple(state[key].shape)
            _refuse_unless(found == shape, folder, f"{key} has the shape {found} where {shape} is needed")
            pair.append(state[key].to(linear.weight.device))
        alpha = config.alpha_pattern.get(get_pattern_key(config.alpha_pattern, module), config.lora_alpha)
        sane = isinstance(rank, int) and rank > 0 and isinstance(alpha, int | float)
        _refuse_unless(sane, folder, f"rank {rank!r} and lora_alpha {alpha!r} of {module} are not numbers above 0")
        scaling = alpha / (rank**0.5 if config.use_rslora else rank)
        dtype = linear.weight.dtype
        a, b = pair[0].to(dtype), (pair[1].float() * scaling).to(dtype)
        # One value that is not finite would reach the other rows of a batch.
        finite = bool(torch.isfinite(a).all() and torch.isfinite(b).all())
        _refuse_unless(finite, folder, f"{module} holds values that are not finite in {dtype}")
        weights[module] = (a, b)
    return weights


def _read_config(folder: Path, with_head: bool) -> Any:
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        if not (folder / file).is_file():
            raise InvalidInput(f"{folder} holds no adapter: {file} is missing; give a folder that PEFT saved.")
    try:
        config = PeftConfig.from_pretrained(str(folder))
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        raise InvalidInput(f"{folder}/adapter_config.json is not a PEFT configuration: {error}.") from error
    _refuse_unless(isinstance(config, LoraConfig), folder, "it is not a LoRA adapter")
    for option in (
        "use_dora",
        "use_qalora",
        "use_bdlora",
        "arrow_config",
        "kasa_config",
        "monteclora_config",
        "layer_replication",
        "lora_bias",
        "modules_to_save",
        "alora_invocation_tokens",
        "target_parameters",
    ):
        if option == "modules_to_save" and with_head:
            continue
        _refuse_unless(not getattr(config, option, None), folder, f"its {option} is not supported by this engine")
    _refuse_unless(config.bias == "none", folder, "trained biases are not supported by this engine")
    return config


def _modules(keys: Iterable[str]) -> list[str]:
    return sorted({match["module"] for key in keys if (match := _KEY.fullmatch(key))})


def _refuse_unless(fine: bool, folder: Path, what: str) -> None:
    if not fine:
        raise _misfit(folder, what)


def _misfit(folder: Path, what: str) -> InvalidInput:
    return InvalidInput(f"The adapter in {folder} does not fit: {what}; use one trained on this model.")
