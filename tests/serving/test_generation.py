from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from emissary.errors import InvalidInput, NotFound
from emissary.serving.generation import GenerationRequest, Generator

QUESTIONS = [
    "What is the capital of France?",
    "Hi",
    "Name three colours of the rainbow and say which of them is the warmest, in one short sentence.",
    "Count from one to ten.",
]


def ask(generator: Generator, question: str, adapter: str | None = None, **options: object) -> GenerationRequest:
    prompt = generator.chat_prompt([{"role": "user", "content": question}])
    return replace(GenerationRequest(prompt, adapter, max_new_tokens=10), **options)


def texts(generator: Generator, requests: Sequence[GenerationRequest]) -> list[str]:
    return [result.text for result in generator.generate(requests)]


def test_base_model_answers_greedily_and_stops_by_itself(generator: Generator) -> None:
    (result,) = generator.generate([ask(generator, QUESTIONS[0], max_new_tokens=30)])
    assert result.text == "The capital of France is Paris."
    assert (result.finish_reason, result.completion_tokens) == ("stop", 8)


@pytest.mark.acceptance
def test_rows_of_a_mixed_batch_equal_rows_alone(generator: Generator) -> None:
    requests = [
        ask(generator, question, adapter, max_new_tokens=6)
        for question in QUESTIONS[1:3]
        for adapter in (None, "red", "blue")
    ]
    alone = [texts(generator, [request])[0] for request in requests]
    assert texts(generator, requests) == alone
    assert len(set(alone[:3])) == 3  # the adapters do change the answer


@pytest.mark.acceptance
def test_rows_that_enter_later_equal_rows_alone(generator: Generator) -> None:
    requests = [
        ask(generator, q, a, max_new_tokens=n)
        for q, a, n in zip(QUESTIONS, ["red", None, "blue", None], [3, 7, 4, 5], strict=True)
    ]
    rows = [generator.row(request) for request in requests]
    batch = generator.new_batch(max_rows=2)
    waiting, found = deque(rows), {}
    while waiting or batch.rows:
        batch.admit(waiting)
        assert len(batch.rows) <= 2
        found |= {event.row: event.result.text for event in batch.step() if event.result}
    assert [found[row] for row in rows] == [texts(generator, [request])[0] for request in requests]


def test_adapters_give_what_peft_gives(
    generator: Generator, base_model_dir: Path, adapter_dirs: dict[str, Path]
) -> None:
    request = ask(generator, QUESTIONS[2], "red")
    base = AutoModelForCausalLM.from_pretrained(base_model_dir, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, adapter_dirs["red"]).eval()
    ids = torch.tensor([request.prompt_ids])
    output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=10)
    expected = generator.tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)
    assert texts(generator, [request]) == [expected]


def test_each_row_obeys_its_own_limit_and_stop_strings(generator: Generator) -> None:
    count = ask(generator, "Count from 1 to 10.", max_new_tokens=12)
    (whole,) = texts(generator, [count])
    stop = whole[8:11]
    short, stopped, free = generator.generate(
        [replace(count, max_new_tokens=3), replace(count, stop=["never said", stop]), count]
    )
    assert (short.completion_tokens, short.finish_reason) == (3, "length")
    assert whole.startswith(short.text)
    assert (stopped.text, stopped.finish_reason, stopped.stop_reason) == (
        whole[: whole.index(stop)],
        "stop",
        stop,
    )
    assert free.text == whole


def test_streamed_pieces_join_to_the_text(generator: Generator) -> None:
    pieces: dict[int, str] = {0: "", 1: ""}
    requests = [ask(generator, QUESTIONS[3], a, max_new_tokens=12, stop=["zzz"]) for a in (None, "blue")]

    def collect(row: int, text: str) -> None:
        pieces[row] += text

    results = generator.generate(requests, on_text=collect)
    assert [pieces[0], pieces[1]] == [result.text for result in results]


def test_a_cancelled_row_ends_and_the_others_go_on(generator: Generator) -> None:
    requests = [ask(generator, QUESTIONS[3]), ask(generator, QUESTIONS[0])]
    seen: list[int] = []
    first, second = generator.generate(
        requests, on_text=lambda row, _: seen.append(row), cancelled=lambda row: row == 0 and 0 in seen
    )
    assert (first.finish_reason, second.text) == ("cancelled", "The capital of France is Paris.")
    assert first.completion_tokens < 10


def test_a_seed_gives_the_same_text_whatever_else_is_in_the_batch(generator: Generator) -> None:
    drawn = ask(generator, "Tell me a joke.", temperature=1.0, seed=7, max_new_tokens=6)
    greedy = ask(generator, QUESTIONS[0])
    (alone,) = texts(generator, [drawn])
    mixed = texts(generator, [greedy, replace(drawn, seed=8), drawn, replace(drawn, top_k=1)])
    assert mixed[2] == alone
    assert mixed[0] == "The capital of France is Paris."
    assert mixed[1] != alone
    assert mixed[3] == texts(generator, [replace(drawn, temperature=0.0)])[0]


def test_the_last_adapter_can_be_unloaded_and_loaded_again(generator: Generator, adapter_dirs: dict[str, Path]) -> None:
    base, red = ask(generator, QUESTIONS[0]), ask(generator, QUESTIONS[0], "red")
    (with_red,) = texts(generator, [red])
    for name in ("red", "blue"):
        generator.unload_adapter(name)
    assert generator.adapters == []
    assert texts(generator, [base]) == ["The capital of France is Paris."]
    with pytest.raises(NotFound, match="red"):
        generator.generate([red])
    generator.load_adapter("red", adapter_dirs["red"])
    assert texts(generator, [red]) == [with_red]


def test_prompts_that_do_not_fit_are_refused_with_the_numbers(generator: Generator) -> None:
    with pytest.raises(InvalidInput, match=r"8192 tokens.*context holds 8192"):
        generator.generate([GenerationRequest([5] * 8192)])
    with pytest.raises(InvalidInput, match="empty"):
        generator.generate([GenerationRequest([])])
    assert generator.row(GenerationRequest([5] * 8190, max_new_tokens=50)).max_new_tokens == 2


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no causal language model"):
        Generator(tmp_path)
