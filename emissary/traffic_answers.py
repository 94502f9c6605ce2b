"""Answers of a deployment as datasets have them: read from what an engine sent, checked where people correct them."""

import json
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emissary.data.rows import Row, TaskType, number, target
from emissary.data.validation import LabelKind
from emissary.errors import InvalidInput

MOST_BYTES = 64 * 1024
"""Of an input with its answer, and of a correction."""
DONE = b"data: [DONE]\n\n"
"""What ends a stream that was not broken off."""
_SIDES = {"positive": 1, "negative": 0}


@dataclass(frozen=True)
class Classes:
    """The labels of a deployment for classification."""

    kind: LabelKind
    labels: Sequence[str]

    def marked(self, names: Sequence[str]) -> dict[str, int]:
        """Every label, with 1 where it is among the names."""
        return {label: int(label in names) for label in self.labels}


@dataclass(frozen=True)
class Answered:
    """One input and its answer."""

    answer_id: str
    position: int
    input: Row
    output: Any


def read(
    request: Mapping[str, Any], content: bytes, task_type: TaskType, classes: Classes | None
) -> Iterator[Answered]:
    """What a whole answer, or the events of a stream, say to each input of the request. Raises ValueError, LookupError,
    TypeError or AttributeError where it is no such answer.
    """
    if task_type == "text-generation":
        answer_id, said = _streamed(content) if content.endswith(DONE) else _whole(json.loads(content))
        asked = {"messages": request["messages"]} if "messages" in request else {"prompt": request["prompt"]}
        yield Answered(answer_id, 0, asked, said)
        return
    answer = json.loads(content)
    if task_type == "embedding":
        pair = {"itemA": {"text": request["input"]}, "itemB": {"text": request["target"]}}
        yield Answered(answer["id"], 0, pair, _similarity(answer["response"]))
        return
    texts = [request["input"]] if isinstance(request["input"], str) else request["input"]
    for text, found in zip(texts, answer["data"], strict=True):
        output = _number(found) if classes is None else _labels(found, classes)
        yield Answered(answer["id"], found["index"], {"prompt": text}, output)


def fits(found: Answered) -> bool:
    """Whether it is of a size to keep, and text that PostgreSQL keeps."""
    try:
        text = json.dumps([found.input, found.output], ensure_ascii=False, allow_nan=False)
        return len(text.encode()) <= MOST_BYTES and "\\u0000" not in text.replace("\\\\", "")
    except ValueError:  # half of a character, or a number that is none
        return False


def _whole(answer: Mapping[str, Any]) -> tuple[str, str]:
    (choice,) = answer["choices"]
    return answer["id"], choice["message"]["content"] if "message" in choice else choice["text"]


def _streamed(content: bytes) -> tuple[str, str]:
    events = [
        json.loads(line.removeprefix("data: "))
        for line in content.decode().split("\n")
        if line.startswith("data: ") and line != "data: [DONE]"
    ]
    choices = [choice for event in events for choice in event["choices"]]
    parts = (choice["delta"].get("content", "") if "delta" in choice else choice["text"] for choice in choices)
    return events[0]["id"], "".join(parts)


def _similarity(response: Mapping[str, Any]) -> float:
    """The cosine, which may be a little more than 1 by rounding, and which not every request asks for."""
    cosine = response.get("cosine_score")
    if cosine is None:
        first, second = response["input_embedding"], response["target_embedding"]
        cosine = sum(map(operator.mul, first, second)) / (math.hypot(*first) * math.hypot(*second))
    return max(-1.0, min(1.0, float(cosine)))


def _number(found: Mapping[str, Any]) -> float:
    value = found["logits"]
    return float(value["value"] if isinstance(value, dict) else value)


def _labels(found: Mapping[str, Any], classes: Classes) -> dict[str, int]:
    """The labels that the scores speak for, as testing takes them."""
    scores, least = (found["probs"], 0.5) if "probs" in found else (found["logits"], 0.0)
    if classes.kind == "multiclass":
        best = max(scores, key=scores.get)
        return {label: int(label == best) for label in scores}
    return {label: int(score > least) for label, score in scores.items()}


def checked(output: Any, task_type: TaskType, classes: Classes | None) -> Any:
    """What a person gave as the right answer, as a dataset has it. Raises InvalidInput where it is none."""
    if classes is not None:
        return classes.marked(_names(output, classes))
    if task_type == "text-generation":
        return _text(output)
    value = None if isinstance(output, str) else number(output)
    if value is None:
        raise InvalidInput("output: it must be a number.")
    if task_type == "embedding" and not -1 <= value <= 1:
        raise InvalidInput(f"output: a similarity is from -1 to 1, and this is {value:g}.")
    if task_type == "regression" and target(value) is None:
        raise InvalidInput(f"output: it must be from -1e30 to 1e30, and is {value:g}.")
    return value


def _text(output: Any) -> str:
    if not isinstance(output, str) or not output.strip():
        raise InvalidInput("output: it must be text that is not empty.")
    try:
        size = len(output.encode())
    except UnicodeEncodeError as error:
        raise InvalidInput("output: it has half of a character; send it as UTF-8.") from error
    if size > MOST_BYTES:
        raise InvalidInput(f"output: it is larger than {MOST_BYTES // 1024} KiB; shorten it.")
    if "\0" in output:
        raise InvalidInput("output: must not contain NUL characters.")
    return output


def _names(output: Any, classes: Classes) -> list[str]:
    """The labels that are meant. Raises InvalidInput for unknown ones, and as many as the classification never has."""
    if classes.kind == "binary" and isinstance(output, str) and output in _SIDES and output not in classes.labels:
        return list(classes.labels) if _SIDES[output] else []
    if isinstance(output, dict):
        if not all(value in (0, 1) and not isinstance(value, bool) for value in output.values()):
            raise InvalidInput("output: it must map labels to 0 or 1.")
        given, meant = list(output), [name for name, value in output.items() if value]
    elif isinstance(output, str):
        given = meant = [output]
    elif isinstance(output, list) and all(isinstance(name, str) for name in output):
        given = meant = output
    else:
        raise InvalidInput("output: it must be a label, a list of labels, or labels mapped to 0 or 1.")
    for name in given:
        if name not in classes.labels:
            known = ", ".join(map(repr, classes.labels))[:500]
            raise InvalidInput(f"output: there is no label {name[:100]!r}; the deployment has {known}.")
    if classes.kind == "multiclass" and len(set(meant)) != 1:
        raise InvalidInput(f"output: an input has exactly one of the labels, and these are {len(set(meant))}.")
    return meant
