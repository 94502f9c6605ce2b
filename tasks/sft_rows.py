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


def _token_ids(row: Conversation, tokenizer: Any, number: int) -> tuple[list[int], list[int]]:
    """Token ids of the prompt and of the answer with its end token, split as TRL splits them."""
    messages = row["messages"]
    if tokenizer.chat_template:
        try:
            prompt = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=True)
            whole = tokenizer.apply_chat_template(messages, return_dict=True)
        except jinja2.TemplateError as error:
            raise InvalidInput(
                f"The base model's chat template refuses the messages of row {number}: {error}. "
                "Correct the row or choose another base model."
            ) from error
    elif row["kind"] == "prompt":
        text = messages[0]["content"]
        prompt, whole = tokenizer(text), tokenizer(text + messages[-1]["content"] + tokenizer.eos_token)
    else:
        raise InvalidInput(
            f"Row {number} is a conversation, but the base model has no chat template; choose a base model "
            "made for chat, or upload rows of prompt and completion."
        )
    split = common_prefix_length(prompt["input_ids"], whole["input_ids"])
    return whole["input_ids"][:split], whole["input_ids"][split:]
