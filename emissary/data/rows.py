"""What a row of each task type looks like, and what is wrong with one that does not.

text-generation  {"prompt": text, "completion": text} or {"messages": [{"role", "content"}, …]}, the last turn
                 the assistant's
classification   {"prompt": text, "completion": {label: 0 or 1, …}}
regression       {"prompt": text, "completion": number}, at most 1e30 in size
embedding        {"itemA": {"text": text}, "itemB": {"text": text}, "similarity": number from -1 to 1}

A number or a label object written as text, as in a CSV cell, counts as what it says, so one row may fit
several task types. A field that is null counts as missing.
"""

import math
import re
from collections.abc import Callable
from typing import Any, Literal, get_args

from emissary.data import strict_json

TaskType = Literal["text-generation", "classification", "regression", "embedding"]
Row = dict[str, Any]
OnInvalid = Literal["refuse", "skip"]
"""What is done about rows that cannot be used: the whole file is refused, or they are left out."""

TASK_TYPES: tuple[TaskType, ...] = get_args(TaskType)
FIELDS = frozenset({"prompt", "completion", "messages", "itemA", "itemB", "similarity"})
MAX_LABELS = 1000
"""Labels of a classifier; an answer has a number for each."""
MOST_TARGET = 1e30
"""Models answer in float32, which ends at 3e38."""
ROLES = ("system", "developer", "user", "assistant", "tool")

_SHOWN = 60
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f]")


def fit(row: Row) -> frozenset[TaskType]:
    """Return the task types that the row can train."""
    return frozenset(task_type for task_type in TASK_TYPES if problem(row, task_type) is None)


def problem(row: Row, task_type: TaskType) -> str | None:
    """Say what keeps the row from training the task type, naming the field; None if nothing does."""
    return _mixed(row) or _PROBLEMS[task_type](row)


def meant_for(row: Row) -> TaskType:
    """Guess from the row's fields which task type its author had in mind, whether or not it fits."""
    if any(row.get(field) is not None for field in ("itemA", "itemB", "similarity")):
        return "embedding"
    completion = row.get("completion")
    if isinstance(completion, dict):
        return "classification"
    if isinstance(completion, int | float):
        return "regression"
    return "text-generation"


def number(value: Any) -> float | None:
    """Return the finite number that the value is, or says as text; None if it is none."""
    if isinstance(value, str) and _NUMBER.fullmatch(said := value.strip()):
        value = float(said)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def target(value: Any) -> float | None:
    """Return the number to predict that the value is, or says as text; None if it is none, or beyond 1e30."""
    found = number(value)
    return None if found is None or abs(found) > MOST_TARGET else found


def labels(value: Any) -> dict[str, int] | None:
    """Return the labels, each with 0 or 1, that the value maps, or maps as JSON text, or None."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = strict_json.decode(value)
        except ValueError:
            return None
    if not isinstance(value, dict) or not value or _labels_problem(value):
        return None
    return {label: int(marked) for label, marked in value.items()}


def _text_generation(row: Row) -> str | None:
    if row.get("messages") is not None:
        return _messages_problem(row["messages"])
    if row.get("prompt") is None and row.get("completion") is None:
        return "it has neither 'prompt' and 'completion' nor 'messages'"
    return _text_problem("prompt", row.get("prompt")) or _text_problem("completion", row.get("completion"))


_LABELS_EXAMPLE = '{"food": 1, "sport": 0}'


def _classification(row: Row) -> str | None:
    completion = row.get("completion")
    if found := _text_problem("prompt", row.get("prompt")) or _missing("completion", completion):
        return found
    if labels(completion) is not None:
        return None
    if isinstance(completion, dict):
        return _labels_problem(completion)
    return f"'completion' must map labels to 0 or 1, as in {_LABELS_EXAMPLE}, and is {_name(completion)}"


def _regression(row: Row) -> str | None:
    completion = row.get("completion")
    if found := _text_problem("prompt", row.get("prompt")) or _missing("completion", completion):
        return found
    if (said := number(completion)) is None:
        return _number_problem("completion", completion)
    return f"'completion' must be from -1e30 to 1e30, and is {said!r}" if abs(said) > MOST_TARGET else None


def _embedding(row: Row) -> str | None:
    for field in ("itemA", "itemB"):
        item = row.get(field)
        if item is None:
            return f"'{field}' is missing"
        if not isinstance(item, dict):
            return f"'{field}' must be an object with a 'text', and is {_name(item)}"
        if found := _text_problem(f"{field}.text", item.get("text")):
            return found
    if found := _missing("similarity", row.get("similarity")):
        return found
    similarity = number(row["similarity"])
    if similarity is None:
        return _number_problem("similarity", row["similarity"])
    return None if -1 <= similarity <= 1 else f"'similarity' must be from -1 to 1, and is {similarity!r}"


_PROBLEMS: dict[TaskType, Callable[[Row], str | None]] = {
    "text-generation": _text_generation,
    "classification": _classification,
    "regression": _regression,
    "embedding": _embedding,
}


def _mixed(row: Row) -> str | None:
    shapes = (("messages",), ("prompt", "completion"), ("itemA", "itemB", "similarity"))
    present = [next((name for name in shape if row.get(name) is not None), None) for shape in shapes]
    names = [name for name in present if name]
    return f"it has both '{names[0]}' and '{names[1]}', of which a row has one" if len(names) > 1 else None


def _messages_problem(messages: Any) -> str | None:
    if not isinstance(messages, list):
        return f"'messages' must be a list, and is {_name(messages)}"
    if not messages:
        return "'messages' is empty"
    for index, message in enumerate(messages):
        field = f"messages[{index}]"
        if not isinstance(message, dict):
            return f"'{field}' must be an object with 'role' and 'content', and is {_name(message)}"
        if message.get("role") not in ROLES:
            return f"'{field}.role' must be one of {', '.join(ROLES)}"
        if found := _text_problem(f"{field}.content", message.get("content")):
            return found
    if messages[-1]["role"] != "assistant":
        return "the last of 'messages' must be the assistant's turn, which is what is learnt"
    return "'messages' has no turn before the assistant's last" if len(messages) == 1 else None


def _labels_problem(mapped: Row) -> str | None:
    for label, marked in mapped.items():
        if not isinstance(label, str) or not label.strip() or _CONTROL.search(label):
            return f"'completion' has the label {str(label)[:60]!r}, which is no name"
        if not isinstance(marked, int | float) or marked not in (0, 1):
            return f"'completion' must map the label {label[:60]!r} to 0 or 1"
    return None


def _missing(field: str, value: Any) -> str | None:
    if value is None:
        return f"'{field}' is missing"
    if value == {} or (isinstance(value, str) and not value.strip()):
        return f"'{field}' is empty"
    return None


def _text_problem(field: str, value: Any) -> str | None:
    if isinstance(value, str) and value and not value.isspace():
        return None
    return _missing(field, value) or f"'{field}' must be text, and is {_name(value)}"


def _number_problem(field: str, value: Any) -> str:
    found = "not finite" if isinstance(value, float | int) and not isinstance(value, bool) else _name(value)
    shown = f" {value.strip()[:_SHOWN]!r}" if isinstance(value, str) else ""
    return f"'{field}' must be a number, and is {found}{shown}"


def _name(value: Any) -> str:
    names: dict[type, str] = {str: "text", bool: "true or false", int: "a number", float: "a number"}
    names |= {dict: "an object", list: "a list"}
    return names.get(type(value), f"a value of type {type(value).__name__}")
