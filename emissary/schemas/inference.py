"""Requests of /v1/chat/completions and /v1/completions, as OpenAI's clients send them; unknown fields are
ignored.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from emissary.schemas.fields import Reference

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Integer = Annotated[int, Field(strict=True)]
StopString = Annotated[str, Field(strict=True, min_length=1, max_length=200)]


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


class ChatMessage(BaseModel):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"] = Field(description="Who speaks.")
    content: str = Field(strict=True, description="What is said.")


class ChatCompletionRequest(Sampling):
    """POST /v1/chat/completions."""

    messages: list[ChatMessage] = Field(min_length=1, description="The chat so far.")


class CompletionRequest(Sampling):
    """POST /v1/completions."""

    prompt: str = Field(strict=True, min_length=1, description="The text to continue.")
