"""Templates over what a webhook was sent: text in which `{{ payload.… }}` and `{{ headers['…'] }}` stand for values.

Jinja's syntax, of which names, attributes, items and the filters below are all there is: nothing is executed, so no
template takes long, reads an attribute of Python, or grows beyond what it names.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any
from urllib.parse import unquote_plus

from jinja2 import Environment, TemplateSyntaxError, nodes

from emissary.errors import InvalidInput

ROOTS = ("payload", "headers")
_LONGEST = 10_000
_FILTERS: dict[str, Callable[[str], str]] = {"urldecode": unquote_plus}
_ALLOWED = (
    "only names under payload and headers, their items, and the filters urldecode and removeprefix('…') can be used, "
    "such as {{ payload.items[0].id }}"
)
_parser = Environment(keep_trailing_newline=True, autoescape=True)


@dataclass(frozen=True)
class _Expression:
    """What is between the braces: a root, and the steps from there."""

    root: str
    steps: tuple[str | int | Callable[[str], str], ...]


@lru_cache(maxsize=256)
def parse(template: str) -> tuple[str | _Expression, ...]:
    """The template's parts: text as it is, and expressions. Raises ValueError for anything else."""
    try:
        body = _parser.parse(template).body
    except TemplateSyntaxError as error:
        raise ValueError(f"it is no template ({error.message})") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    parts: list[str | _Expression] = []
    for output in body:
        if not isinstance(output, nodes.Output):
            raise ValueError(_ALLOWED)
        for node in output.nodes:
            parts.append(node.data if isinstance(node, nodes.TemplateData) else _expression(node))
    return tuple(parts)


def _expression(node: nodes.Node) -> _Expression:
    steps: list[str | int | Callable[[str], str]] = []
    while not isinstance(node, nodes.Name):
        match node:
            case nodes.Getattr(node=inner, attr=attribute):
                steps.append(attribute)
            case nodes.Getitem(node=inner, arg=nodes.Const(value=str() | int() as key)) if not isinstance(key, bool):
                steps.append(key)
            case nodes.Filter(node=nodes.Expr() as inner, name=name, args=[], kwargs=[]) if (
                name in _FILTERS and node.dyn_args is None and node.dyn_kwargs is None
            ):
                steps.append(_FILTERS[name])
            case nodes.Filter(
                node=nodes.Expr() as inner, name="removeprefix", args=[nodes.Const(value=str() as prefix)], kwargs=[]
            ) if node.dyn_args is None and node.dyn_kwargs is None:
                steps.append(partial(_without_prefix, prefix))
            case _:
                raise ValueError(_ALLOWED)
        node = inner
    if node.name not in ROOTS:
        raise ValueError(_ALLOWED)
    return _Expression(node.name, tuple(reversed(steps)))


def reads(template: str, root: str) -> bool:
    """Whether the template names something under `root`."""
    return any(part.root == root for part in parse(template) if isinstance(part, _Expression))


def _without_prefix(prefix: str, value: str) -> str:
    return value.removeprefix(prefix)


def rendered(template: str, values: Mapping[str, Any]) -> Any:
    """The template with its expressions replaced; one that is a single expression gives that value as it is.

    `values` has JSON by root; names of headers are in lower case there, and found in any. Raises InvalidInput, naming
    what is missing, or is no text where text is needed.
    """
    parts = parse(template)
    if len(parts) == 1 and isinstance(parts[0], _Expression):
        return _value(parts[0], values)
    text = "".join(part if isinstance(part, str) else _text(part, values) for part in parts)
    if len(text) > _LONGEST:
        raise InvalidInput(f"The template {template[:100]!r} gives more than {_LONGEST} characters.")
    return text


def _text(expression: _Expression, values: Mapping[str, Any]) -> str:
    value = _value(expression, values)
    if isinstance(value, str) and len(value) <= _LONGEST:
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise InvalidInput(f"{_written(expression)}: it must be a number, or text of at most {_LONGEST} characters.")


def _value(expression: _Expression, values: Mapping[str, Any]) -> Any:
    value = values[expression.root]
    for number, step in enumerate(expression.steps):
        if callable(step):
            if not isinstance(value, str):
                raise InvalidInput(f"{_written(expression, number)}: it is no text, which the filter needs.")
            value = step(value)
            continue
        key = step.lower() if expression.root == "headers" and isinstance(step, str) else step
        match value, key:
            case dict(), str() if key in value:
                value = value[key]
            case list(), int() if key < len(value):
                value = value[key]
            case _:
                what = "header" if expression.root == "headers" else "field in the payload"
                raise InvalidInput(f"{_written(expression, number + 1)}: there is no such {what}.")
    return value


def _written(expression: _Expression, steps: int | None = None) -> str:
    """The expression, or its first steps, as a person writes it."""
    text = expression.root
    for step in expression.steps[:steps]:
        if isinstance(step, str):
            text += f".{step}" if step.isidentifier() else f"[{step!r}]"
        elif isinstance(step, int):
            text += f"[{step}]"
    return text
