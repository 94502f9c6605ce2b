"""One pass over an uploaded dataset: is every row usable, for what, and what should its owner know?"""

import json
from array import array
from collections import Counter
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel

from emissary.data.reading import number_means, read_rows
from emissary.data.rows import FIELDS, TASK_TYPES, Row, TaskType, labels, meant_for, problem
from emissary.errors import InvalidInput

FEW_ROWS = 10
FEW_ROWS_IN_A_CLASS = 20

LabelKind = Literal["binary", "multiclass", "multilabel"]


class DatasetReport(BaseModel):
    """What a dataset is."""

    rows: int
    compatible_task_types: list[TaskType]
    """The task types that every row fits, in the order of `TASK_TYPES`."""
    misfits: dict[TaskType, str]
    """For each other task type, a sentence that says which row does not fit and why."""
    label_kind: LabelKind | None
    """Only for a dataset that fits classification."""
    labels: list[str]
    """For classification: every label that a row names, in alphabetical order; an adapter has an output for each."""
    class_counts: dict[str, int]
    """Rows per class; `positive` and `negative` if binary. A label that a row does not name is 0 there."""
    duplicates: int
    """Rows that repeat an earlier row exactly, in the fields that a task type reads."""
    warnings: list[str]


def validate(path: Path, filename: str) -> DatasetReport:
    """Read the file at `path`, named `filename`, and report on it.

    Raises InvalidInput if it cannot be read (see `read_rows`), has no rows, or no task type fits all rows;
    the sentence then names the rows that do not fit the task type that most rows fit.
    """
    rows = 0
    misfits: dict[TaskType, _Misfits] = {task_type: _Misfits(task_type) for task_type in TASK_TYPES}
    meant: Counter[TaskType] = Counter()
    classes = _Classes()
    fingerprints = array("Q")  # eight bytes a row: there may be tens of millions
    unused: set[str] = set()
    for number, row in read_rows(path, filename):
        rows += 1
        meant[meant_for(row)] += 1
        for task_type, found in misfits.items():
            if reason := problem(row, task_type):
                found.add(number, reason)
        if (marked := labels(row.get("completion"))) is not None:
            classes.add(marked)
        fingerprints.append(_fingerprint(row))
        unused.update(row.keys() - FIELDS)
    if not rows:
        raise InvalidInput("The file has no rows. Upload a file with at least one row.")

    means = number_means(filename)
    compatible = [task_type for task_type in TASK_TYPES if not misfits[task_type].count]
    if not compatible:
        nearest = min(TASK_TYPES, key=lambda task_type: (misfits[task_type].count, -meant[task_type]))
        raise InvalidInput(f"{misfits[nearest].sentence(means)} Correct or remove such rows and upload again.")
    label_kind = classes.kind() if "classification" in compatible else None
    class_counts = classes.counts() if label_kind else {}
    return DatasetReport(
        rows=rows,
        compatible_task_types=compatible,
        misfits={task: found.sentence(means) for task, found in misfits.items() if found.count},
        label_kind=label_kind,
        labels=sorted(classes.marked) if label_kind else [],
        class_counts=class_counts,
        duplicates=_repeated(fingerprints),
        warnings=_warnings(rows, class_counts, unused),
    )


class _Misfits:
    """The rows that do not fit a task type: how many, the first one's reason, the first few's numbers."""

    def __init__(self, task_type: TaskType) -> None:
        self.task_type = task_type
        self.count = 0
        self.reason = ""
        self.numbers: list[int] = []

    def add(self, number: int, reason: str) -> None:
        self.count += 1
        self.reason = self.reason or reason
        if len(self.numbers) < 6:
            self.numbers.append(number)

    def sentence(self, means: Literal["Line", "Row"]) -> str:
        first, *others = self.numbers
        said = f"{means} {first}: {self.reason}."
        if not others:
            return said
        which = ", ".join(map(str, others)) + (", …" if self.count > len(self.numbers) else "")
        more = f"{self.count - 1} more rows do" if self.count > 2 else "1 more row does"
        unit = means.lower() + ("s" if len(others) > 1 else "")
        return f"{said} {more} not fit {self.task_type} ({unit} {which})."


class _Classes:
    """Which labels there are, and in how many rows each is 1."""

    def __init__(self) -> None:
        self.rows = 0
        self.marked: Counter[str] = Counter()
        self.always_one = True

    def add(self, marked: dict[str, int]) -> None:
        self.rows += 1
        self.marked.update(marked)
        self.always_one = self.always_one and sum(marked.values()) == 1

    def kind(self) -> LabelKind:
        if len(self.marked) == 1:
            return "binary"
        return "multiclass" if self.always_one else "multilabel"

    def counts(self) -> dict[str, int]:
        if self.kind() == "binary":
            (positive,) = self.marked.values()
            return {"positive": positive, "negative": self.rows - positive}
        return dict(self.marked)


def _fingerprint(row: Row) -> int:
    used = {name: row[name] for name in FIELDS & row.keys() if row[name] is not None}
    text = json.dumps(used, sort_keys=True, default=repr)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def _repeated(fingerprints: "array[int]") -> int:
    """How many are the same as an earlier one; sorts them."""
    found = np.frombuffer(fingerprints, dtype=np.uint64)
    found.sort()
    return int(np.count_nonzero(found[1:] == found[:-1]))


def _warnings(rows: int, class_counts: dict[str, int], unused: set[str]) -> list[str]:
    warnings = []
    if rows < FEW_ROWS:
        warnings.append(f"The dataset has fewer than {FEW_ROWS} rows ({rows}), too few to learn much from.")
    warnings += [
        f"The class {name!r} has fewer than {FEW_ROWS_IN_A_CLASS} rows ({count})."
        for name, count in class_counts.items()
        if count < FEW_ROWS_IN_A_CLASS
    ]
    if unused:
        names = ", ".join(repr(name[:60]) for name in sorted(unused)[:6]) + (", …" if len(unused) > 6 else "")
        warnings.append(f"Fields that no task type reads are left out: {names}.")
    return warnings
