"""The answers of several adapters in one batch are those that each row has alone, in order and complete."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from emissary.serving.generation import GenerationRequest, Generator
from tasks.sft_rows import Conversation
from tasks.text_answers import answer_rows, last_question
from tests.tasks.conftest import Trained
from tests.tasks.sft_run import row

CHAT: Conversation = {
    "kind": "chat",
    "messages": [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": "Paris"},
    ],
}
TEST_ROWS = [row("Repeat the word: blue", "blue"), CHAT, row("What is 1+1? Be brief." * 3, "2"), row("Say it. ", "red")]
TOKENS = 8


@pytest.fixture(scope="module")
def generator(model_dir: Path) -> Generator:
    return Generator(model_dir, torch.float32)


@pytest.fixture(scope="module")
def adapters(trained: Trained) -> list[Path | None]:
    """The base model and both checkpoints."""
    return [None, *(checkpoint.folder for checkpoint in trained.checkpoints)]


@pytest.fixture(scope="module")
def plain(generator: Generator, model_dir: Path, adapters: list[Path | None]) -> list[list[str]]:
    """What `generate` of transformers, through PEFT, answers to each row alone, per adapter."""

    base = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    model: Any = PeftModel.from_pretrained(base, adapters[1], "1").eval()
    model.load_adapter(adapters[2], "2")

    @torch.inference_mode()
    def answers() -> list[str]:
        prompts = [torch.tensor([generator.chat_prompt(each["messages"][:-1])]) for each in TEST_ROWS]
        outputs = [model.generate(input_ids=prompt, do_sample=False, max_new_tokens=TOKENS) for prompt in prompts]
        new = [output[0, prompt.shape[1] :] for output, prompt in zip(outputs, prompts, strict=True)]
        return [generator.tokenizer.decode(ids, skip_special_tokens=True) for ids in new]

    with model.disable_adapter():
        found = [answers()]
    for name in ("1", "2"):
        model.set_adapter(name)
        found.append(answers())
    return found


def none_cut(rows: int) -> None:
    pytest.fail(f"{rows} prompts were cut")


@pytest.mark.parametrize("places", [32, 3], ids=["all at once", "three at a time"])
def test_answers_are_those_of_plain_generate(
    generator: Generator,
    adapters: list[Path | None],
    plain: list[list[str]],
    places: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    new_batch = generator.new_batch
    monkeypatch.setattr(generator, "new_batch", lambda: new_batch(places))
    counts: list[int] = []
    assert list(answer_rows(generator, TEST_ROWS, adapters, TOKENS, counts.append, none_cut)) == plain
    assert len({str(answers) for answers in plain}) == 3
    assert all(plain[0])
    assert counts == sorted(counts)
    assert counts[-1] == 12
    assert generator.adapters == []


def test_an_adapter_is_asked_for_when_the_rows_before_have_entered(
    generator: Generator, adapters: list[Path | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    new_batch = generator.new_batch
    monkeypatch.setattr(generator, "new_batch", lambda: new_batch(2))
    asked, answered = [], [0]

    def folders() -> Iterator[Path | None]:
        for folder in adapters:
            asked.append(answered[-1])
            yield folder

    found = answer_rows(generator, TEST_ROWS, folders(), TOKENS, answered.append, none_cut)
    assert asked == []
    next(found)
    # With two places and four rows the second adapter's rows enter while the last of the first one's decode.
    assert len(asked) == 2
    assert 2 <= asked[1] < 4
    assert answered[-1] < 8
    assert len(list(found)) == 2


class Stop(Exception):
    """What a run that is to stop raises."""


def test_what_progress_raises_ends_the_work(generator: Generator) -> None:
    def stop(_: int) -> None:
        raise Stop

    with pytest.raises(Stop):
        next(answer_rows(generator, TEST_ROWS, [None], TOKENS, stop, none_cut))


def test_prompt_beyond_the_context_loses_its_beginning(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator, "context", 64)
    long = row("word " * 60 + "What is the capital of France?", "Paris")
    end = generator.chat_prompt(long["messages"][:-1])[-56:]
    expected = generator.generate([GenerationRequest(end, max_new_tokens=8)])[0].text
    cut: list[int] = []
    found = answer_rows(generator, [long, TEST_ROWS[0], long], [None], 8, lambda _: None, cut.append)
    first, _, last = next(found)
    assert (first, last) == (expected, expected)
    assert cut == [2]


def test_the_last_user_message_is_the_input() -> None:
    assert last_question(CHAT) == "What is the capital of France?"
