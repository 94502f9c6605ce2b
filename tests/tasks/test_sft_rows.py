from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from emissary.errors import InvalidInput
from tasks.sft_rows import Conversation, tokenised
from tests.tasks.sft_run import row

CHAT: Conversation = {
    "kind": "chat",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Two?"},
        {"role": "assistant", "content": "TWO"},
        {"role": "user", "content": "Three?"},
        {"role": "assistant", "content": "THREE"},
    ],
}


@pytest.fixture
def tokenizer(base_model_dir: Path) -> Any:
    return AutoTokenizer.from_pretrained(base_model_dir)


def test_only_the_last_assistant_turn_is_learnt(tokenizer: Any) -> None:
    rows, cut = tokenised([CHAT, row("Hi", "Hello there, how are you?")], tokenizer, 64)
    batch = DataCollatorForLanguageModeling(tokenizer.pad_token_id)(list(rows))
    learnt = [tokenizer.decode(labels[labels != -100]) for labels in batch["labels"]]
    assert learnt == ["THREE<|im_end|>\n", "Hello there, how are you?<|im_end|>\n"]
    prompt = tokenizer.decode(
        [id for id, label in zip(rows[0]["input_ids"], rows[0]["labels"], strict=True) if label < 0]
    )
    assert prompt.endswith("TWO<|im_end|>\n<|im_start|>user\nThree?<|im_end|>\n<|im_start|>assistant\n")
    assert cut == 0


def test_long_rows_lose_the_beginning_of_the_prompt(tokenizer: Any) -> None:
    rows, cut = tokenised([row("word " * 100 + "end", "the target"), row("Hi", "Hello")], tokenizer, 40)
    assert cut == 1
    assert len(rows[0]["input_ids"]) == 40
    assert tokenizer.decode(rows[0]["input_ids"]).endswith(
        " word end<|im_end|>\n<|im_start|>assistant\nthe target<|im_end|>\n"
    )


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 30)), min_size=1, max_size=6), st.integers(8, 60))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_that_are_too_long_are_counted_and_keep_of_the_answer_what_fits(
    tokenizer: Any, words: list[tuple[int, int]], most: int
) -> None:
    rows = [row("ask " * asked + ".", "say " * answered + ".") for asked, answered in words]
    whole, none = tokenised(rows, tokenizer, 10_000)
    kept, cut = tokenised(rows, tokenizer, most)
    assert (none, cut) == (0, sum(len(ids) > most for ids in whole["input_ids"]))
    for ids, labels, all_labels in zip(kept["input_ids"], kept["labels"], whole["labels"], strict=True):
        assert len(ids) == min(most, len(all_labels))
        learnt = [label for label in all_labels if label >= 0]
        assert [label for label in labels if label >= 0] == learnt[:most]


def test_target_beyond_max_length_keeps_its_beginning(tokenizer: Any) -> None:
    rows, cut = tokenised([row("Hi", "one " * 100)], tokenizer, 16)
    assert cut == 1
    assert rows[0]["labels"] == rows[0]["input_ids"]
    assert tokenizer.decode(rows[0]["labels"]).startswith("one one")


def test_model_without_chat_template_learns_plain_text(tokenizer: Any) -> None:
    tokenizer.chat_template = None
    rows, _ = tokenised([row("Colour:", " red")], tokenizer, 64)
    assert tokenizer.decode(rows[0]["input_ids"]) == "Colour: red<|im_end|>"
    assert tokenizer.decode([label for label in rows[0]["labels"] if label >= 0]) == " red<|im_end|>"
    with pytest.raises(InvalidInput, match="Row 2 is a conversation, but the base model has no chat template"):
        tokenised([row("Colour:", " red"), CHAT], tokenizer, 64)


def test_messages_that_the_template_refuses_are_named(tokenizer: Any) -> None:
    tokenizer.chat_template = "{{ raise_exception('only users may speak') }}"
    with pytest.raises(InvalidInput, match="refuses the messages of row 1: only users may speak"):
        tokenised([CHAT], tokenizer, 64)
