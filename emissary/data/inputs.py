"""What a normalised row asks, apart from its answer: the same in training and test rows is leakage."""

import json
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from emissary.errors import InvalidInput

COLUMNS = ["prompt", "messages", "text_a", "text_b"]
"""What `input_text` reads of a normalised row."""
_SHOWN_ROWS = 20


def input_text(row: Mapping[str, Any]) -> str:
    """The text that a model gets of a normalised row, which may have the columns of one task type only: the prompt, a
    conversation without its last turn, or both texts of a pair.
    """
    if row.get("prompt") is not None:
        return str(row["prompt"])
    if row.get("messages") is not None:
        *before, _ = row["messages"]
        alone = len(before) == 1 and before[0]["role"] == "user"
        return str(before[0]["content"]) if alone else json.dumps(before, ensure_ascii=False, sort_keys=True)
    return json.dumps([row["text_a"], row["text_b"]], ensure_ascii=False)


def fingerprint(text: str) -> int:
    """64 bits that are the same for texts that differ in white space only."""
    return int.from_bytes(blake2b(" ".join(text.split()).encode(), digest_size=8).digest(), "little")


def leaked(training: Iterable[Mapping[str, Any]], test: Sequence[Mapping[str, Any]]) -> list[int]:
    """Indices of the test rows whose input is a training row's too."""
    known = {fingerprint(input_text(row)) for row in training}
    return [index for index, row in enumerate(test) if fingerprint(input_text(row)) in known]


def require_apart(leaked_rows: Sequence[int], test_rows: int, test_dataset_id: str) -> None:
    """Raises InvalidInput, listing them, where there are any of the `test_rows` rows that a pipeline would train on
    too.
    """
    if leaked_rows:
        shown = ", ".join(str(index + 1) for index in leaked_rows[:_SHOWN_ROWS])
        raise InvalidInput(
            f"test_dataset_id: {len(leaked_rows)} of the {test_rows} rows of {test_dataset_id} have an input that is "
            f"among the gathered rows too, so the test would tell nothing: row {shown}"
            f"{', …' if len(leaked_rows) > _SHOWN_ROWS else ''}. Remove them from either side."
        )
