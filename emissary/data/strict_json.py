"""JSON as the standard has it: no NaN or Infinity, no string that UTF-8 cannot hold; and no key of an object twice, of
which one value would be lost.
"""

import json
import re
from collections import Counter
from typing import Any, NoReturn

_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        ((repeated, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the key {repeated[:60]!r} is there more than once in an object")
    return found


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_object)
_LOOSE = json.JSONDecoder(parse_int=len, parse_constant=len)  # takes numbers of any length, and what are none


def decode(text: str) -> Any:
    """Return the value of a JSON text; raises ValueError (json.JSONDecodeError where a position is known)."""
    start = len(text) - len(text.lstrip(" \t\r\n"))
    value, end = decode_at(text, start)
    if rest := text[end:].lstrip(" \t\r\n"):
        raise json.JSONDecodeError("Extra data", text, len(text) - len(rest))
    return value


def decode_at(text: str, start: int) -> tuple[Any, int]:
    """Return the JSON value that begins at `text[start]` and the index after it; raises as `decode`."""
    try:
        value, end = _DECODER.raw_decode(text, start)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except json.JSONDecodeError:
        raise
    except ValueError as error:
        if "digits" in str(error):
            raise ValueError("a number has too many digits") from None
        raise
    if _SURROGATE_ESCAPE.search(text, start, end):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("a \\u escape is half of a surrogate pair") from None
    return value, end


def end_at(text: str, start: int) -> int:
    """Return the index after the JSON value that begins at `text[start]`, also of one with NaN, a number of too many
    digits or half of a surrogate pair; raises as `decode` for other ones.
    """
    try:
        return _LOOSE.raw_decode(text, start)[1]
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
