"""Answers of /v1/chat/completions and /v1/completions, as the API's document describes them."""

from typing import Literal

from pydantic import BaseModel

FinishReason = Literal["stop", "length"]


class PromptTokens(BaseModel):
    """Prompt tokens that are counted apart."""

    cached_tokens: int
    audio_tokens: int


class CompletionTokens(BaseModel):
    """Answer tokens that are counted apart."""

    reasoning_tokens: int
    audio_tokens: int
    accepted_prediction_tokens: int
    rejected_prediction_tokens: int


class _Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatUsage(_Usage):
    """Token counts of a chat."""

    prompt_tokens_details: PromptTokens
    completion_tokens_details: CompletionTokens


class Usage(_Usage):
    """Token counts of a continued text."""

    prompt_tokens_details: None


class AnswerMessage(BaseModel):
    """The model's turn."""

    role: Literal["assistant"]
    content: str
    refusal: None


class _Choice(BaseModel):
    index: int
    logprobs: None
    finish_reason: FinishReason
    stop_reason: str | None


class ChatChoice(_Choice):
    """One answer to a chat."""

    message: AnswerMessage
    refusal: None


class TextChoice(_Choice):
    """One continuation of a text."""

    text: str
    prompt_logprobs: None


class _Completion(BaseModel):
    id: str
    created: int
    model: str
    service_tier: Literal["default"]
    system_fingerprint: str


class ChatCompletionObject(_Completion):
    """The answer to a chat."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]
    usage: ChatUsage


class CompletionObject(_Completion):
    """The continuation of a text."""

    object: Literal["text_completion"]
    choices: list[TextChoice]
    usage: Usage
