"""Requests of /v1/chat/completions and /v1/completions, as OpenAI's clients send them.

A field of OpenAI's that would change the answer and is not supported is refused, unless its value asks for nothing;
fields that do not change the answer (`user`, `metadata`, …) and unknown ones are ignored.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, ValidationInfo, field_validator

from emissary.schemas.fields import Reference

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Integer = Annotated[int, Field(strict=True)]
StopString = Annotated[str, Field(strict=True, min_length=1, max_length=200)]


def _only(*values: Any) -> Any:
    """A field that is not supported: it may have one of `values`, which ask for nothing, or be null."""
    description = f"Only {' or '.join(json.dumps(value) for value in values)}." if values else "Not supported."
    return Field(default=None, description=description, exclude=True, json_schema_extra={"enum": [*values, None]})


class StreamOptions(BaseModel):
    """What a streamed answer carries besides the text."""

    include_usage: bool | None = Field(default=None, strict=True, description="Send token counts in a last chunk.")


class Sampling(BaseModel):
    """The fields that both kinds of request share; null is the same as leaving a field out."""

    model: Reference = Field(description="Name of a deployment or of a base model.")
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = Field(
        default=None, description="Sampling temperature; 0 is greedy, left out 1."
    )
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = Field(
        default=None,
        description="Keep the most probable tokens that together reach this probability; left out 1.",
    )
    top_k: Annotated[Integer, Field(ge=0)] | None = Field(
        default=None, description="Keep this many of the most probable tokens; 0 or left out: all."
    )
    max_tokens: Annotated[Integer, Field(ge=1)] | None = Field(
        default=None, description="Longest answer in tokens; left out 256."
    )
    max_completion_tokens: Annotated[Integer, Field(ge=1)] | None = Field(
        default=None, description="Newer name of max_tokens; wins where both are given."
    )
    stop: StopString | Annotated[list[StopString], Field(max_length=16)] | None = Field(
        default=None, description="The answer ends before the first of these strings."
    )
    seed: Annotated[Integer, Field(ge=-(2**63), lt=2**63)] | None = Field(
        default=None, description="The same seed and request give the same answer."
    )
    stream: bool | None = Field(default=None, strict=True, description="Answer as server-sent events.")
    stream_options: StreamOptions | None = Field(default=None)
    n: Any = _only(1)
    frequency_penalty: Any = _only(0)
    presence_penalty: Any = _only(0)
    logit_bias: Any = _only({})

    @field_validator("*")
    @classmethod
    def _asks_for_nothing(cls, given: Any, info: ValidationInfo) -> Any:
        extra = cls.model_fields[info.field_name or ""].json_schema_extra
        allowed = extra.get("enum") if isinstance(extra, dict) else None
        if not isinstance(allowed, list):
            return given
        # In Python, not in JSON, true equals 1.
        if not any(given == value and isinstance(given, bool) == isinstance(value, bool) for value in allowed):
            shown = " or ".join(json.dumps(value) for value in allowed if value is not None)
            but = f", only {shown} is" if shown else ""
            raise ValueError(f"what it says is not supported by this version{but}; leave it out")
        return given

    @property
    def token_limit(self) -> int | None:
        """The longest answer in tokens, where the request sets one."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def stop_strings(self) -> list[str]:
        """`stop` as a list."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or [])

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a chunk of token counts."""
        return bool(self.stream_options and self.stream_options.include_usage)


def _joined(content: Any) -> Any:
    if not isinstance(content, list):
        return content
    if not all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        raise ValueError("only parts of the type text are supported")
    if not all(isinstance(part.get("text"), str) for part in content):
        raise ValueError("a part has no text")
    return "".join(part["text"] for part in content)


_PARTS: dict[str, Any] = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["type", "text"],
                "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
            },
        },
    ]
}


class ChatMessage(BaseModel):
    """One turn of a chat."""

    role: Annotated[
        Literal["system", "user", "assistant"],
        BeforeValidator(lambda role: "system" if role == "developer" else role),
        Field(description="Who speaks; OpenAI's newer `developer` is the system."),
    ]
    content: Annotated[str, BeforeValidator(_joined)] = Field(
        strict=True, description="What is said: text, or parts of text.", json_schema_extra=_PARTS
    )


class ChatCompletionRequest(Sampling):
    """POST /v1/chat/completions."""

    messages: list[ChatMessage] = Field(min_length=1, description="The chat so far.")
    logprobs: Any = _only(False)
    top_logprobs: Any = _only(0)
    response_format: Any = _only({"type": "text"})
    modalities: Any = _only(["text"])
    tools: Any = _only([])
    tool_choice: Any = _only("none", "auto")
    functions: Any = _only([])
    function_call: Any = _only("none", "auto")
    audio: Any = _only()
    reasoning_effort: Any = _only("none")
    verbosity: Any = _only("medium")
    web_search_options: Any = _only()


class CompletionRequest(Sampling):
    """POST /v1/completions."""

    prompt: str = Field(strict=True, min_length=1, description="The text to continue.")
    best_of: Any = _only(1)
    echo: Any = _only(False)
    logprobs: Any = _only()
    suffix: Any = _only("")
