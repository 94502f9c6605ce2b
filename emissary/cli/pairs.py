"""Options of the form NAME=VALUE."""

import json
from collections.abc import Sequence
from typing import Any

from emissary.cli.exit_codes import WrongUsage


def values(option: str, pairs: Sequence[str] | None) -> dict[str, Any] | None:
    """Name → value, read as JSON where it is (numbers, true, false), else as text. None where there are no pairs."""
    if not pairs:
        return None
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise WrongUsage(f"{option}: {pair!r} is not of the form NAME=VALUE.")
        try:
            found[name] = json.loads(f"0{value}" if value[:1] == "." else value)  # .5 is no JSON
        except ValueError:
            found[name] = value
    return found


def numbers(option: str, pairs: Sequence[str] | None) -> dict[str, Any] | None:
    """The same where every value must be a number."""
    found = values(option, pairs)
    for name, value in (found or {}).items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise WrongUsage(f"{option}: the value of {name!r} is not a number.")
    return found
