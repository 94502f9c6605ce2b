"""One base model with adapters for classification, regression or embedding side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from emissary.errors import InvalidInput
from emissary.hardware import device
from emissary.serving import adapter_task
from emissary.serving.adapter_task import AdapterTask, PooledTask
from emissary.serving.lora import Adapter, Adapters
from emissary.serving.pooled_models import (
    context_of,
    dtype_for,
    embed,
    head_name,
    load_model,
    named_pooling,
    padded,
    pool,
)

_EMBEDDING = AdapterTask(task_type="embedding")


@dataclass(frozen=True, eq=False)
class _Head:
    """An adapter's linear head in float32: weight (outputs, hidden), bias (outputs,); None for embedding."""

    task: AdapterTask
    weight: Tensor | None = None
    bias: Tensor | None = None


@dataclass(frozen=True, eq=False)
class PooledRow:
    """A text made ready: its token ids, and the adapter and head as they were then."""

    ids: list[int]
    adapter: Adapter | None
    head: _Head

    @property
    def task(self) -> AdapterTask:
        """What the outputs for this row mean."""
        return self.head.task


class PooledModel:
    """A base model loaded once from `model_dir`, for one task type, on the GPU where there is one.

    The head of a classification or regression adapter comes with it, so the base model has none: it answers nothing
    itself but embeddings. Adapters may be loaded and unloaded from any thread at any time; only one thread at a time
    may `run`. Raises InvalidInput when the folder holds no such model.
    """

    def __init__(self, model_dir: Path, task_type: PooledTask, dtype: torch.dtype | None = None) -> None:
        target = device()
        model, self._tokenizer = load_model(model_dir, task_type, 1, dtype or dtype_for(task_type, target))
        # Turns off what tokenizer.json says of truncation and padding: the calls of several threads must not.
        self._tokenizer("")
        self.task_type = task_type
        self._head_name = None
        if task_type != "embedding":
            self._head_name = head_name(model)
            # What the head would get comes out instead, and each row's own head is applied to it.
            setattr(model, self._head_name, nn.Identity())
        self.model: Any = model.to(target).eval()
        self.context = context_of(model_dir, self.model, self._tokenizer)
        self._pooling = named_pooling(model_dir)
        self._adapters = Adapters(self.model, head=self._head_name)
        self._heads: dict[str, _Head] = {}

    @property
    def adapters(self) -> list[str]:
        """Names of the loaded adapters, sorted."""
        return self._adapters.names

    def load_adapter(self, name: str, folder: Path) -> None:
        """Load the LoRA adapter in `folder` with its head as `name`, in place of an earlier one of that name.

        Raises InvalidInput, leaving everything as before, when files are missing or do not fit the base model.
        """
        head = self._read_head(folder)
        self._adapters.load(name, folder)
        self._heads[name] = head

    def unload_adapter(self, name: str) -> None:
        """Forget the adapter `name`; rows that already use it finish with it. Raises NotFound."""
        self._adapters.unload(name)
        del self._heads[name]

    def task(self, adapter: str | None) -> AdapterTask:
        """The task of a loaded adapter; None is the base model. Raises NotFound and, for a base model, InvalidInput."""
        return self._head(adapter).task

    def row(self, text: str, adapter: str | None, *, cut: bool = False, name: str = "input") -> PooledRow:
        """`text` made ready. Raises InvalidInput when it is empty, has more tokens than the model's context (with
        `cut`, it loses its end instead), which it calls `name`, or the base model has no head; NotFound when the
        adapter is not loaded.
        """
        head = self._head(adapter)
        ids = self._tokenizer(text, truncation=cut, max_length=self.context if cut else None)["input_ids"]
        if not ids:
            raise InvalidInput(f"{name}: a text is empty; give at least one token.")
        if len(ids) > self.context:
            raise InvalidInput(
                f"{name}: a text has {len(ids)} tokens, but the model takes {self.context}; shorten or split it."
            )
        return PooledRow(list(ids), None if adapter is None else self._adapters.get(adapter), head)

    @torch.inference_mode()
    def run(self, rows: Sequence[PooledRow]) -> list[Tensor]:
        """Each row's embedding (size,) or logits (outputs,), float32 on the CPU, adapters mixed in one forward pass.

        A regression's one output is in the units of its targets.
        """
        ids, mask = padded([row.ids for row in rows], self._tokenizer.pad_token_id)
        ids, mask = ids.to(self.model.device), mask.to(self.model.device)
        self._adapters.select([row.adapter for row in rows])
        if self._head_name is None:
            return list(embed(self.model, ids, mask, self._pooling).cpu())
        if self._pooling is None:
            vectors = self.model(input_ids=ids, attention_mask=mask).logits.float()
        else:
            vectors = pool(self.model, ids, mask, self._pooling)
        return [_apply(row.head, vector).cpu() for row, vector in zip(rows, vectors, strict=True)]

    def _head(self, adapter: str | None) -> _Head:
        if adapter is not None:
            self._adapters.get(adapter)
            return self._heads[adapter]
        if self._head_name is not None:
            raise InvalidInput(f"model: the base model itself has not learnt any {self.task_type}; call a deployment.")
        return _Head(_EMBEDDING)

    def _read_head(self, folder: Path) -> _Head:
        task = adapter_task.read(folder)
        if task.task_type != self.task_type:
            raise InvalidInput(f"The adapter in {folder} is for {task.task_type}; this engine is for {self.task_type}.")
        if self._head_name is None:
            return _Head(task)
        state = load_file(folder / "adapter_model.safetensors")
        prefix = f"base_model.model.{self._head_name}."
        weight, bias = state.get(f"{prefix}weight"), state.get(f"{prefix}bias")
        expected = (task.outputs, self.model.config.get_text_config().hidden_size)
        if weight is None or tuple(weight.shape) != expected or (bias is not None and len(bias) != task.outputs):
            found = "none" if weight is None else str(tuple(weight.shape))
            raise InvalidInput(f"The adapter in {folder} does not fit: its head must be {expected}, and is {found}.")
        target = self.model.device
        weight = weight.float().to(target)
        bias = None if bias is None else bias.float().to(target)
        if not all(bool(torch.isfinite(part).all()) for part in (weight, bias) if part is not None):
            raise InvalidInput(f"The adapter in {folder} does not fit: its head holds values that are not finite.")
        return _Head(task, weight, bias)


def _apply(head: _Head, vector: Tensor) -> Tensor:
    assert head.weight is not None
    outputs = nn.functional.linear(vector, head.weight, head.bias)
    return outputs * head.task.target_std + head.task.target_mean
