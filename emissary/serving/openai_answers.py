"""Generation results as OpenAI's completion objects and server-sent events."""

import json
import time
import uuid
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, Literal

from emissary.errors import EmissaryError
from emissary.serving.decoding import GenerationResult
from emissary.serving.measuring import failed


@dataclass(frozen=True)
class Answer:
    """The frame of one answer: what all its objects and chunks have in common."""

    kind: Literal["chat", "text"]
    model: str
    fingerprint: str
    id: str = ""
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", f"{'chatcmpl' if self.kind == 'chat' else 'cmpl'}-{uuid.uuid4().hex}")

    def whole(self, result: GenerationResult) -> dict[str, Any]:
        """The ChatCompletionObject or CompletionObject of `result`."""
        choice: dict[str, Any] = {"index": 0}
        if self.kind == "chat":
            choice["message"] = {"role": "assistant", "content": result.text, "refusal": None}
            choice |= {"refusal": None, "logprobs": None}
        else:
            choice |= {"text": result.text, "logprobs": None, "prompt_logprobs": None}
        choice |= {"finish_reason": result.finish_reason, "stop_reason": result.stop_reason}
        name = "chat.completion" if self.kind == "chat" else "text_completion"
        return self._frame(name) | {"choices": [choice], "usage": self._usage(result)}

    async def events(self, items: AsyncGenerator[str | GenerationResult], include_usage: bool) -> AsyncGenerator[str]:
        """The answer as server-sent events, ended by `data: [DONE]`; an error on the way is the last event
        instead.
        """
        try:
            if self.kind == "chat":
                yield self._chunk({"role": "assistant", "content": ""})
            async for item in items:
                if isinstance(item, str):
                    yield self._chunk({"content": item})
                    continue
                yield self._chunk({}, item)
                if include_usage:
                    yield _event(self._frame(self._chunk_name) | {"choices": [], "usage": self._usage(item)})
            yield "data: [DONE]\n\n"
        except EmissaryError as error:
            if error.status >= 500:
                failed()
            yield _event(envelope(error))
        finally:
            await items.aclose()

    @property
    def _chunk_name(self) -> str:
        return "chat.completion.chunk" if self.kind == "chat" else "text_completion"

    def _chunk(self, delta: dict[str, str], result: GenerationResult | None = None) -> str:
        content = {"delta": delta} if self.kind == "chat" else {"text": delta.get("content", "")}
        end = {"finish_reason": result and result.finish_reason, "stop_reason": result and result.stop_reason}
        choice = {"index": 0, "logprobs": None} | content | end
        return _event(self._frame(self._chunk_name) | {"choices": [choice]})

    def _frame(self, name: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": name,
            "created": self.created,
            "model": self.model,
            "service_tier": "default",
            "system_fingerprint": self.fingerprint,
        }

    def _usage(self, result: GenerationResult) -> dict[str, Any]:
        usage: dict[str, Any] = {
            "prompt_tokens": result.prompt_tokens,
            "completion_tokens": result.completion_tokens,
            "total_tokens": result.prompt_tokens + result.completion_tokens,
            "prompt_tokens_details": None,
        }
        if self.kind == "chat":
            usage["prompt_tokens_details"] = {"cached_tokens": 0, "audio_tokens": 0}
            usage["completion_tokens_details"] = {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            }
        return usage


def envelope(error: EmissaryError) -> dict[str, Any]:
    """The body that every error is answered with."""
    return {"status": error.status, "error": str(error), "code": error.code}


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"
