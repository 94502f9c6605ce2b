"""Answers of engines as rows of datasets have them, and what people may give instead."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from emissary.data.rows import TaskType, problem
from emissary.errors import InvalidInput
from emissary.schemas.predictions import ClassificationAnswer, Comparison, RegressionAnswer
from emissary.serving.decoding import GenerationResult
from emissary.serving.openai_answers import Answer
from emissary.store.traffic import example
from emissary.traffic_answers import MOST_BYTES, Answered, Classes, checked, fits, read

MULTICLASS = Classes("multiclass", ["food", "sport"])
MULTILABEL = Classes("multilabel", ["food", "sport"])
BINARY = Classes("binary", ["food"])
CHAT = {"messages": [{"role": "user", "content": "Say red."}]}
SAID = 'rouge, en français: \u2028 "red"\n\ndata: [DONE]'
USAGE = {"prompt_tokens": 1, "total_tokens": 1, "prompt_token_details": ""}


def result(text: str) -> GenerationResult:
    return GenerationResult(text, prompt_tokens=1, completion_tokens=1, finish_reason="stop")


async def streamed(frame: Answer, include_usage: bool) -> bytes:
    async def items() -> AsyncGenerator[str | GenerationResult]:
        for piece in (SAID[:4], SAID[4:]):
            yield piece
        yield result(SAID)

    return "".join([event async for event in frame.events(items(), include_usage)]).encode()


@pytest.mark.parametrize("kind", ["chat", "text"])
def test_whole_and_streamed_text_is_read_alike(kind: Any) -> None:
    frame = Answer(kind, "m", "fp")
    request: dict[str, Any] = CHAT if kind == "chat" else {"prompt": "Red is"}
    whole = json.dumps(frame.whole(result(SAID))).encode()
    for content in (whole, *(asyncio.run(streamed(frame, usage)) for usage in (True, False))):
        (found,) = read(request | {"model": "dp-1", "temperature": 0}, content, "text-generation", None)
        assert found == Answered(frame.id, 0, request, SAID)


def classified(**scores: Any) -> bytes:
    answer = {"id": "classify-1", "model": "m", "data": [{"index": 0} | scores], "usage": USAGE}
    return ClassificationAnswer.model_validate(answer).model_dump_json().encode()


@pytest.mark.parametrize(
    ("classes", "scores", "marked"),
    [
        (MULTICLASS, {"logits": {"food": -3.0, "sport": -2.0}}, {"food": 0, "sport": 1}),
        (MULTICLASS, {"probs": {"food": 0.45, "sport": 0.4}}, {"food": 1, "sport": 0}),
        (MULTILABEL, {"logits": {"food": 0.1, "sport": 2.0}}, {"food": 1, "sport": 1}),
        (MULTILABEL, {"probs": {"food": 0.45, "sport": 0.4}}, {"food": 0, "sport": 0}),
        (BINARY, {"logits": {"food": 0.1}}, {"food": 1}),
        (BINARY, {"probs": {"food": 0.1}}, {"food": 0}),
    ],
)
def test_labels_that_the_scores_speak_for_are_marked(classes: Classes, scores: Any, marked: dict[str, int]) -> None:
    (found,) = read({"input": "a"}, classified(**scores), "classification", classes)
    assert found == Answered("classify-1", 0, {"prompt": "a"}, marked)


def test_every_input_of_a_request_has_its_answer() -> None:
    data = [{"index": index, "logits": number} for index, number in enumerate((1.5, -2.0))]
    answer = RegressionAnswer.model_validate({"id": "regress-1", "model": "m", "data": data, "usage": USAGE})
    found = list(read({"input": ["a", "b"]}, answer.model_dump_json().encode(), "regression", None))
    assert [(one.position, one.input, one.output) for one in found] == [
        (0, {"prompt": "a"}, 1.5),
        (1, {"prompt": "b"}, -2.0),
    ]
    by_label = classified(logits={"value": 2.5})
    assert [one.output for one in read({"input": "a"}, by_label, "regression", None)] == [2.5]


@pytest.mark.parametrize("cosine", [None, 1.0000001])
def test_similarity_is_a_cosine_that_a_dataset_takes(cosine: float | None) -> None:
    response = {"input_embedding": [3.0, 4.0], "target_embedding": [6.0, 8.0], "cosine_score": cosine}
    answer = Comparison.model_validate({"id": "rq-1", "response": response, "model": "m", "usage": USAGE})
    (found,) = read({"input": "a", "target": "b"}, answer.model_dump_json().encode(), "embedding", None)
    assert found.output == pytest.approx(1.0)
    assert problem(example(found.input, found.output), "embedding") is None


def test_stream_that_an_error_ends_is_no_answer() -> None:
    error = b'data: {"status": 503, "error": "It ended.", "code": "unavailable"}\n\n'
    with pytest.raises(json.JSONDecodeError):
        list(read(CHAT, error, "text-generation", None))


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("x" * (MOST_BYTES - 100), True),
        ("x" * MOST_BYTES, False),
        ("é" * (MOST_BYTES // 2), False),
        ("a\0b", False),
        ("a\\u0000b", True),  # the letters, not the character
        ("\ud800", False),
        (float("nan"), False),
    ],
    ids=["fits", "too large", "too many bytes", "NUL", "escape in letters", "half of a character", "not a number"],
)
def test_only_what_the_catalogue_can_keep_is_kept(said: Any, kept: bool) -> None:
    assert fits(Answered("a", 0, {"prompt": "b"}, said)) is kept


@pytest.mark.parametrize(
    ("task_type", "classes", "given", "kept"),
    [
        ("text-generation", None, "red", "red"),
        ("regression", None, 3, 3.0),
        ("embedding", None, -1, -1.0),
        ("classification", MULTICLASS, "sport", {"food": 0, "sport": 1}),
        ("classification", MULTICLASS, {"food": 1}, {"food": 1, "sport": 0}),
        ("classification", MULTILABEL, ["sport", "food"], {"food": 1, "sport": 1}),
        ("classification", MULTILABEL, [], {"food": 0, "sport": 0}),
        ("classification", BINARY, "food", {"food": 1}),
        ("classification", BINARY, "negative", {"food": 0}),
        ("classification", BINARY, {"food": 0}, {"food": 0}),
    ],
)
def test_right_answer_is_kept_as_a_dataset_has_it(
    task_type: TaskType, classes: Classes | None, given: Any, kept: Any
) -> None:
    right = checked(given, task_type, classes)
    assert right == kept
    assert type(right) is type(kept)


@pytest.mark.parametrize(
    ("task_type", "classes", "given", "words"),
    [
        ("text-generation", None, " \n", "not empty"),
        ("text-generation", None, 3, "must be text"),
        ("text-generation", None, None, "must be text"),
        ("text-generation", None, "a\0", "NUL"),
        ("text-generation", None, "\udc00", "half of a character"),
        ("text-generation", None, "x" * (MOST_BYTES + 1), "larger than 64 KiB"),
        ("regression", None, "3", "must be a number"),
        ("regression", None, True, "must be a number"),
        ("regression", None, float("inf"), "must be a number"),
        ("regression", None, 10**400, "must be a number"),
        ("regression", None, -1e31, "from -1e30 to 1e30"),
        ("embedding", None, 1.01, "from -1 to 1"),
        ("classification", MULTICLASS, "music", "no label 'music'; the deployment has 'food', 'sport'"),
        ("classification", MULTICLASS, ["food", "sport"], "exactly one"),
        ("classification", MULTICLASS, {"food": 0, "sport": 0}, "exactly one"),
        ("classification", MULTICLASS, "positive", "no label"),
        ("classification", MULTILABEL, {"food": 2}, "0 or 1"),
        ("classification", MULTILABEL, {"food": True}, "0 or 1"),
        ("classification", MULTILABEL, {"food": None}, "0 or 1"),
        ("classification", MULTILABEL, [1], "a list of labels"),
        ("classification", BINARY, 1, "a list of labels"),
    ],
)
def test_what_is_no_answer_of_the_task_type_is_refused(
    task_type: TaskType, classes: Classes | None, given: Any, words: str
) -> None:
    with pytest.raises(InvalidInput, match=f"^output: .*{words}"):
        checked(given, task_type, classes)
