"""A batch of rows that decodes step by step; rows enter and leave it between steps."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache

from emissary.serving.lora import Adapter, Adapters
from emissary.serving.sampling import next_tokens
from emissary.serving.text_stream import TextStream

# Rows times the longest row's prompt and answer, in tokens: bounds the memory of the key-value cache and of a
# prefill.
BATCH_TOKENS = 32_768


@dataclass(frozen=True)
class GenerationRequest:
    """One text to continue. `adapter` None is the base model; `temperature` 0 is greedy; `top_p` 1 and
    `top_k` 0 keep the whole vocabulary; generation ends before the first of the `stop` strings; `seed` None
    draws afresh each time.
    """

    prompt_ids: list[int]
    adapter: str | None = None
    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    stop: list[str] = field(default_factory=list)
    seed: int | None = None


@dataclass(frozen=True)
class GenerationResult:
    """What became of a request. `completion_tokens` counts the end token too; `stop_reason` is the stop
    string met.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: Literal["stop", "length", "cancelled"]
    stop_reason: str | None = None


@dataclass(eq=False)
class Row:
    """A request on its way through a batch. Setting `cancelled` from any thread takes it out before the
    next step.
    """

    request: GenerationRequest
    adapter: Adapter | None
    max_new_tokens: int
    text: TextStream
    random: torch.Generator
    tokens: int = 0
    cancelled: bool = False

    @property
    def length(self) -> int:
        """Tokens of the prompt and the longest possible answer."""
        return len(self.request.prompt_ids) + self.max_new_tokens

    def result(self, reason: Literal["stop", "length", "cancelled"]) -> GenerationResult:
        """The row as it stands, ended for `reason`."""
        return GenerationResult(self.text.text, len(self.request.prompt_ids), self.tokens, reason, self.text.stopped_by)


@dataclass(frozen=True)
class Event:
    """What a step did to a row: text that became final (may be empty), and the result once the row has
    ended.
    """

    row: Row
    text: str
    result: GenerationResult | None


class Batch:
    """Rows decoding together on one model. `admit` and `step` belong to one thread."""

    def __init__(self, model: Any, adapters: Adapters, end_tokens: frozenset[int], max_rows: int) -> None:
        self.rows: list[Row] = []
        self._model = model
        self._adapters = adapters
        self._end_tokens = end_tokens
        self._max_rows = max_rows
        # Left-padded: mask (rows, cached tokens) is 0 on padding, logits (rows, vocabulary) predict the next
        # token.
        self._cache = DynamicCache()
        self._mask = torch.empty(0, 0, dtype=torch.long, device=model.device)
        self._logits = torch.empty(0, 0, device=model.device)

    def admit(self, waiting: deque[Row]) -> list[Row]:
        """Take rows from the front of `waiting` while there is room, and compute their prompts; returns
        them.
        """
        new: list[Row] = []
        while waiting and self._has_room(*new, waiting[0]):
            new.append(waiting.popleft())
        if new:
            self._prefill(new)
        return new

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """Give every row its next token; rows that end leave the batch. Returns an event per row."""
        events = [Event(row, "", row.result("cancelled")) for row in self.rows if row.cancelled]
        self._keep([i for i, row in enumerate(self.rows) if not row.cancelled])
        if not self.rows:
            return events
        tokens = next_tokens(self._logits, [row.request for row in self.rows], [row.random for row in self.rows])
        advanced = [self._advance(row, token) for row, token in zip(self.rows, tokens.tolist(), strict=True)]
        going = [i for i, event in enumerate(advanced) if event.result is None]
        self._keep(going)
        if self.rows:
            self._forward(tokens[going])
        return events + advanced

    def _has_room(self, *new: Row) -> bool:
        rows = [*self.rows, *new]
        return len(rows) <= self._max_rows and (
            len(rows) == 1 or len(rows) * max(row.length for row in rows) <= BATCH_TOKENS
        )

    def _advance(self, row: Row, token: int) -> Event:
        row.tokens += 1
        text = "" if token in self._end_tokens else row.text.push(token)
        if token in self._end_tokens or row.text.stopped_by is not None:
            return Event(row, text + row.text.finish(), row.result("stop"))
        if row.tokens >= row.max_new_tokens:
            return Event(row, text + row.text.finish(), row.result("length"))
        return Event(row, text, None)

    @torch.inference_mode()
    def _prefill(self, new: Sequence[Row]) -> None:
        longest = max(len(row.request.prompt_ids) for row in new)
        ids = torch.zeros(len(new), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(new):
            ids[i, longest - len(row.request.prompt_ids) :] = torch.tensor(row.request.prompt_ids)
            mask[i, longest - len(row.request.prompt_ids) :] = 1
        ids, mask = ids.to(self._mask.device), mask.to(self._mask.device)
        cache = DynamicCache()
        self._adapters.select([row.adapter for row in new])
        logits = self._run(ids, mask, (mask.cumsum(-1) - 1).clamp(min=0), cache)
        if self.rows:
            width = max(self._mask.shape[1], longest)
            for old, fresh in zip(self._cache.layers, cache.layers, strict=True):
                old.keys = torch.cat([_widen(old.keys, width), _widen(fresh.keys, width)])
                old.values = torch.cat([_widen(old.values, width), _widen(fresh.values, width)])
            mask = torch.cat([functional.pad(part, (width - part.shape[1], 0)) for part in (self._mask, mask)])
            logits = torch.cat([self._logits, logits])
        else:
            self._cache = cache
        self._mask, self._logits = mask, logits
        self.rows = [*self.rows, *new]
        self._adapters.select([row.adapter for row in self.rows])

    def _forward(self, tokens: Tensor) -> None:
        self._mask = functional.pad(self._mask, (0, 1), value=1)
        positions = self._mask.sum(-1, keepdim=True) - 1
        self._logits = self._run(tokens[:, None], self._mask, positions, self._cache)

    def _run(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache) -> Tensor:
        """Logits (rows, vocabulary) after the last of `ids`, in float32; `cache` grows by `ids`."""
        output = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = output.logits[:, -1].float()
        return logits

    def _keep(self, kept: list[int]) -> None:
        """Drop the other rows, and the columns that only they filled."""
        if len(kept) == len(self.rows):
            return
        self.rows = [self.rows[i] for i in kept]
        if not kept:
            self._cache = DynamicCache()
            return
        index = torch.tensor(kept, device=self._mask.device)
        self._mask, self._logits = self._mask[index], self._logits[index]
        blank = int(self._mask.any(0).int().argmax())
        self._mask = self._mask[:, blank:]
        for layer in self._cache.layers:
            layer.keys = layer.keys[index, :, blank:]
            layer.values = layer.values[index, :, blank:]
        self._adapters.select([row.adapter for row in self.rows])


def _widen(cached: Tensor, width: int) -> Tensor:
    """Pad keys or values (rows, heads, tokens, size) on the left to `width` tokens."""
    return functional.pad(cached, (0, 0, width - cached.shape[-2], 0))
