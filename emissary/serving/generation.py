"""One causal language model with LoRA adapters side by side, and batched text generation on it."""

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jinja2
import torch

from emissary.errors import InvalidInput
from emissary.hardware import default_dtype, device
from emissary.serving.architecture import context_of
from emissary.serving.causal_models import load_causal_model
from emissary.serving.decoding import Batch, GenerationRequest, GenerationResult, Row
from emissary.serving.lora import Adapters
from emissary.serving.text_stream import TextStream

__all__ = ["GenerationRequest", "GenerationResult", "Generator"]

MAX_ROWS = 32


class Generator:
    """A base model loaded once from `model_dir` (safetensors, tokenizer), on the GPU where there is one.

    `dtype` None is what the hardware does well. Adapters may be loaded and unloaded from any thread at any
    time; only one thread at a time may run batches (`generate`, or `Batch.admit` and `Batch.step`). Raises
    InvalidInput when the folder holds no causal language model, or an unsupported one.
    """

    def __init__(self, model_dir: Path, dtype: torch.dtype | None = None) -> None:
        target = device()
        model, self.tokenizer = load_causal_model(model_dir, dtype or default_dtype(target))
        self.model: Any = model.to(target).eval()
        self.context: int = context_of(self.model)
        self._adapters = Adapters(self.model)
        ends = self.model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        self._end_tokens = frozenset(id for id in [*ends, self.tokenizer.eos_token_id] if id is not None)

    @property
    def adapters(self) -> list[str]:
        """Names of the loaded adapters, sorted."""
        return self._adapters.names

    def load_adapter(self, name: str, folder: Path) -> None:
        """Load the LoRA adapter that PEFT saved in `folder` as `name`, in place of an earlier one of that
        name.

        Raises InvalidInput, leaving everything as before, when files are missing or do not fit the base
        model.
        """
        self._adapters.load(name, folder)

    def unload_adapter(self, name: str) -> None:
        """Forget the adapter `name`; rows that already use it finish with it. Raises NotFound."""
        self._adapters.unload(name)

    def chat_prompt(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Token ids of `messages` ({"role", "content"}) in the model's chat template, ready for the answer.

        Raises InvalidInput when the model has no chat template or its template refuses the messages.
        """
        if not self.tokenizer.chat_template:
            raise InvalidInput("This base model has no chat template and takes no messages; use /v1/completions.")
        try:
            encoded = self.tokenizer.apply_chat_template(
                list(messages), add_generation_prompt=True, tokenize=True, return_dict=True
            )
        except jinja2.TemplateError as error:
            raise InvalidInput(f"The model's chat template refuses these messages: {error}.") from error
        return list(encoded["input_ids"])

    def text_prompt(self, text: str) -> list[int]:
        """Token ids of a plain text to continue, with the start token where the model has one."""
        return list(self.tokenizer(text)["input_ids"])

    def row(self, request: GenerationRequest) -> Row:
        """`request` made ready for a batch.

        Raises InvalidInput when the prompt is empty or leaves no room in the model's context, or
        `max_new_tokens` is below 1, and NotFound when the adapter is not loaded. An answer is cut at the end
        of the context.
        """
        prompt_tokens = len(request.prompt_ids)
        if prompt_tokens == 0:
            raise InvalidInput("The prompt is empty; give at least one token to continue.")
        if prompt_tokens >= self.context:
            raise InvalidInput(
                f"The prompt has {prompt_tokens} tokens, but the model's context holds {self.context}, "
                "the answer included; shorten the prompt."
            )
        if request.max_new_tokens < 1:
            raise InvalidInput(f"max_new_tokens is {request.max_new_tokens}; it must be at least 1.")
        adapter = None if request.adapter is None else self._adapters.get(request.adapter)
        random = torch.Generator(self.model.device)
        if request.seed is None:
            random.seed()
        else:
            random.manual_seed(request.seed)
        limit = min(request.max_new_tokens, self.context - prompt_tokens)
        return Row(request, adapter, limit, TextStream(self.tokenizer, request.stop), random)

    def new_batch(self, max_rows: int = MAX_ROWS) -> Batch:
        """An empty batch on this model that decodes up to `max_rows` rows at once."""
        return Batch(self.model, self._adapters, self._end_tokens, max_rows)

    def generate(
        self,
        requests: Sequence[GenerationRequest],
        on_text: Callable[[int, str], None] | None = None,
        cancelled: Callable[[int], bool] | None = None,
    ) -> list[GenerationResult]:
        """Generate for all `requests`, base model and adapters mixed; a result per request, in their order.

        Any number of requests: up to 32 decode at once, and the next enters when one ends. `on_text(i, text)`
        is called with each piece of request i's text; before every step, requests for which `cancelled(i)` is
        true end with the reason "cancelled". Raises what `row` raises, before anything is generated.
        """
        rows = [self.row(request) for request in requests]
        index = {row: i for i, row in enumerate(rows)}
        results: dict[Row, GenerationResult] = {}
        batch, waiting = self.new_batch(), deque(rows)
        while waiting or batch.rows:
            if cancelled is not None:
                for row in [*waiting, *batch.rows]:
                    row.cancelled = cancelled(index[row])
            while waiting and waiting[0].cancelled:
                row = waiting.popleft()
                results[row] = row.result("cancelled")
            batch.admit(waiting)
            for event in batch.step():
                if event.text and on_text is not None:
                    on_text(index[event.row], event.text)
                if event.result is not None:
                    results[event.row] = event.result
        return [results[row] for row in rows]
