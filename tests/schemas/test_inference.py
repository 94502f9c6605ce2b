"""Which of OpenAI's fields are taken, which are refused."""

from typing import Any

import pytest
from pydantic import ValidationError

from emissary.schemas.inference import ChatCompletionRequest, CompletionRequest

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "a"}]}
TEXT: dict[str, Any] = {"model": "m", "prompt": "a"}
REFUSED_IN_BOTH = {"n": 2, "frequency_penalty": 0.5, "presence_penalty": -1, "logit_bias": {"50256": -100}}
REFUSED_IN_CHAT = {
    "logprobs": True,
    "top_logprobs": 2,
    "response_format": {"type": "json_object"},
    "modalities": ["text", "audio"],
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "tool_choice": "required",
    "functions": [{"name": "f"}],
    "function_call": {"name": "f"},
    "audio": {"voice": "ash"},
    "reasoning_effort": "high",
    "verbosity": "low",
    "web_search_options": {},
}
REFUSED_IN_TEXT = {"best_of": 3, "echo": True, "logprobs": 0, "suffix": "b"}
ASKS_FOR_NOTHING = {"n": 1, "frequency_penalty": 0.0, "presence_penalty": 0, "logit_bias": {}, "stop": None}
NOTHING_IN_CHAT = {"logprobs": False, "response_format": {"type": "text"}, "tools": [], "tool_choice": "auto"}


@pytest.mark.parametrize(("field", "value"), (REFUSED_IN_BOTH | REFUSED_IN_CHAT).items())
def test_field_of_a_chat_that_would_change_the_answer_is_refused_by_its_name(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=f"{field}\n.*not supported"):
        ChatCompletionRequest.model_validate(CHAT | {field: value})


@pytest.mark.parametrize(("field", "value"), (REFUSED_IN_BOTH | REFUSED_IN_TEXT).items())
def test_field_of_a_completion_that_would_change_the_answer_is_refused_by_its_name(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=f"{field}\n.*not supported"):
        CompletionRequest.model_validate(TEXT | {field: value})


def test_true_is_not_one() -> None:
    with pytest.raises(ValidationError, match=r"n\n.*not supported"):
        ChatCompletionRequest.model_validate(CHAT | {"n": True})


def test_values_that_ask_for_nothing_and_unknown_fields_are_taken_and_not_passed_on() -> None:
    extra = {"user": "u", "metadata": {"a": "b"}, "store": False, "service_tier": "auto", "colour": "red"}
    chat = ChatCompletionRequest.model_validate(CHAT | ASKS_FOR_NOTHING | NOTHING_IN_CHAT | extra)
    assert chat.model_dump(exclude_none=True) == CHAT
    text = CompletionRequest.model_validate(TEXT | ASKS_FOR_NOTHING | {"best_of": 1, "echo": False, "suffix": ""})
    assert text.model_dump(exclude_none=True) == TEXT


def test_parts_of_text_are_joined_and_developer_is_system() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    body = {"model": "m", "messages": [{"role": "developer", "content": parts}]}
    assert ChatCompletionRequest.model_validate(body).model_dump(exclude_none=True)["messages"] == [
        {"role": "system", "content": "ab"}
    ]


@pytest.mark.parametrize(
    "content", [None, 5, [{"type": "image_url", "image_url": {"url": "x"}}], [{"type": "text"}], ["a"]]
)
def test_content_that_is_not_text_is_refused(content: object) -> None:
    with pytest.raises(ValidationError, match=r"messages\.0\.content"):
        ChatCompletionRequest.model_validate({"model": "m", "messages": [{"role": "user", "content": content}]})
