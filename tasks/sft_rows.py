"""The rows of supervised fine-tuning as token ids, with labels on the answer alone."""

from collections.abc import Sequence
from typing import Any, Literal, TypedDict

import jinja2
from datasets import Dataset
from trl.data_utils import common_prefix_length

from emissary.errors import InvalidInput


class Conversation(TypedDict):
    """A text-generation row: messages of {"role", "content"}, the last being the assistant's target."""

    messages: list[dict[str, str]]
    kind: Literal["chat", "prompt"]


def tokenised(rows: Sequence[Conversation], tokenizer: Any, max_length: int) -> tuple[Dataset, int]:
    """`rows` as token ids with labels (-100 on the prompt), and how many of them were cut to `max_length`."""
    columns: dict[str, list[list[int]]] = {"input_ids": [], "labels": []}
    cut = 0
    for number, row in enumerate(rows, 1):
        prompt, answer = _token_ids(row, tokenizer, number)
        cut += len(prompt) + len(answer) > max_length
        answer = answer[:max_length]
        prompt = prompt[max(0, len(prompt) + len(answer) - max_length) :]
        columns["input_ids"].append(prompt + answer)
        columns["labels"].append([-100] * len(prompt) + answer)
    return Dataset.from_dict(columns), cut


def prompt_ids(row: Conversation, tokenizer: Any, number: int) -> list[int]:
    """Token ids of row `number` but for its last message, from which the model goes on to answer.

    Raises InvalidInput when the row does not suit the model's chat template.
    """
    if tokenizer.chat_template:
        return _templated(row["messages"][:-1], tokenizer, number, add_generation_prompt=True)
    if row["kind"] != "prompt":
        raise InvalidInput(
            f"Row {number} is a conversation, but the base model has no chat template; choose a base model "
            "made for chat, or upload rows of prompt and completion."
        )
    return list(tokenizer(row["messages"][0]["content"])["input_ids"])


def _token_ids(row: Conversation, tokenizer: Any, number: int) -> tuple[list[int], list[int]]:
    """Token ids of the prompt and of the answer with its end token, split as TRL splits them."""
    prompt, messages = prompt_ids(row, tokenizer, number), row["messages"]
    if tokenizer.chat_template:
        whole = _templated(messages, tokenizer, number)
    else:
        whole = tokenizer(messages[0]["content"] + messages[-1]["content"] + tokenizer.eos_token)["input_ids"]
    split = common_prefix_length(prompt, whole)
    return whole[:split], whole[split:]


def _templated(messages: list[dict[str, str]], tokenizer: Any, number: int, **options: bool) -> list[int]:
    try:
        return list(tokenizer.apply_chat_template(messages, return_dict=True, **options)["input_ids"])
    except jinja2.TemplateError as error:
        raise InvalidInput(
            f"The base model's chat template refuses the messages of row {number}: {error}. "
            "Correct the row or choose another base model."
        ) from error
