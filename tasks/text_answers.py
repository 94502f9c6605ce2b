"""Answers to the test rows of text generation: of all checkpoints of a job, in one continuous batch."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from emissary.serving.decoding import Row
from emissary.serving.generation import GenerationRequest, Generator
from tasks.sft_rows import Conversation

_ADAPTER = "under-test"


def answer_rows(
    generator: Generator,
    rows: Sequence[Conversation],
    adapters: Iterable[Path | None],
    max_new_tokens: int,
    on_progress: Callable[[int], None],
    on_cut: Callable[[int], None],
) -> Iterator[list[str]]:
    """Greedy answers to all but the last message of each row, in the rows' order: a list per adapter, in their order,
    as soon as its last row is answered.

    `adapters` are folders that PEFT saved, None is the base model; each is asked for when the rows of the one before
    have all entered the batch, so the batch stays full while the last of them decode. A prompt that leaves no room for
    `max_new_tokens` in the model's context loses its beginning; `on_cut` gets the number of such rows where there are
    any. `on_progress` gets the number of answers so far, of all adapters, after every step; what it raises ends the
    work. Raises InvalidInput as `Generator.load_adapter`,
    `Generator.row` and `Generator.chat_prompt`.
    """
    room = max(1, generator.context - max_new_tokens)
    prompts = [_prompt(generator, row) for row in rows]
    if cut := sum(len(prompt) > room for prompt in prompts):
        on_cut(cut)
    prompts = [prompt[-room:] for prompt in prompts]
    # Prompts of like length decode together with little padding; the longest first, so that what does not fit into
    # memory shows at once. Every second adapter goes back from the shortest, next to which it enters.
    order = sorted(range(len(rows)), key=lambda index: len(prompts[index]), reverse=True)
    coming, waiting, batch = iter(adapters), deque[Row](), generator.new_batch()
    under_way: deque[dict[int, str]] = deque()
    places: dict[Row, tuple[dict[int, str], int]] = {}
    answered = 0
    while True:
        if not waiting:
            for adapter in islice(coming, 1):
                under_way.append({})
                made = _rows(generator, [prompts[index] for index in order], adapter, max_new_tokens)
                places |= {row: (under_way[-1], index) for row, index in zip(made, order, strict=True)}
                waiting.extend(made)
                order.reverse()
        if not under_way:
            return
        batch.admit(waiting)
        for event in batch.step():
            if event.result is not None:
                answers, index = places.pop(event.row)
                answers[index] = event.result.text
                answered += 1
        on_progress(answered)
        while under_way and len(under_way[0]) == len(rows):
            answers = under_way.popleft()
            yield [answers[index] for index in range(len(rows))]


def _rows(generator: Generator, prompts: Sequence[list[int]], adapter: Path | None, max_new_tokens: int) -> list[Row]:
    if adapter is None:
        return [generator.row(GenerationRequest(prompt, max_new_tokens=max_new_tokens)) for prompt in prompts]
    generator.load_adapter(_ADAPTER, adapter)
    try:
        return [
            generator.row(GenerationRequest(prompt, adapter=_ADAPTER, max_new_tokens=max_new_tokens))
            for prompt in prompts
        ]
    finally:
        # The rows hold what they use: it goes with the last of them.
        generator.unload_adapter(_ADAPTER)


def _prompt(generator: Generator, row: Conversation) -> list[int]:
    """The prompt's token ids, as in training."""
    if row["kind"] == "prompt" and not generator.tokenizer.chat_template:
        return generator.text_prompt(row["messages"][0]["content"])
    return generator.chat_prompt(row["messages"][:-1])


def last_question(row: Conversation) -> str:
    """The last user message before the answer, or what else comes last before it."""
    before = row["messages"][:-1]
    asked = [message["content"] for message in before if message["role"] == "user"]
    return asked[-1] if asked else before[-1]["content"]
