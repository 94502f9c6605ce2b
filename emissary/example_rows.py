"""The examples' rows, as a client reads them: what is asked, and the answer that is right."""

import csv
import json
from typing import Any

from emissary.data.rows import TaskType
from emissary.walkthrough import EXAMPLES

Rows = tuple[list[Any], list[Any]]
"""Inputs, and the expected answer to each."""


def read(file_name: str, task_type: TaskType) -> Rows:
    """Inputs and expected answers of a file in `examples/`.

    Text generation: the turns before the last, and that one's text. Classification: a text, and its labels with 0 or 1.
    Regression: a text, and a number. Embedding: two texts, and their similarity.
    """
    with (EXAMPLES / file_name).open(encoding="utf-8", newline="") as file:
        if task_type == "regression":
            table = list(csv.DictReader(file))
            return [row["input"] for row in table], [float(row["expected_output"]) for row in table]
        rows = [json.loads(line) for line in file]
    if task_type == "text-generation":
        return [row["messages"][:-1] for row in rows], [row["messages"][-1]["content"] for row in rows]
    if task_type == "embedding":
        return [(row["itemA"]["text"], row["itemB"]["text"]) for row in rows], [row["similarity"] for row in rows]
    return [row["prompt"] for row in rows], [row["completion"] for row in rows]
