"""One pass over an uploaded dataset: is every row usable, for what, and what should its owner know?"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from heapq import merge
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel

from emissary.data.duplicates import Hashes, hashes, repeated
from emissary.data.reading import Chunk, NumberMeans, read
from emissary.data.records import fitting
from emissary.data.rows import FIELDS, MAX_LABELS, TASK_TYPES, OnInvalid, Row, TaskType, meant_for
from emissary.errors import InvalidInput

SHOWN_PROBLEMS = 100
FEW_ROWS = 10
FEW_ROWS_IN_A_CLASS = 20
FEW_CLASSES = 5
"""So many are named in warnings of one kind."""

HOW_TO_CORRECT = "Correct or remove such rows and upload again, or have them left out (on_invalid: skip)."
"""Ends what is said of an upload with rows that cannot be used."""

LabelKind = Literal["binary", "multiclass", "multilabel"]


class Problem(BaseModel):
    """Why a row cannot be used."""

    line: int
    """The line of the file on which the row begins; in a JSON array and in Parquet the row's number. From 1."""
    reason: str


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
    label_lines: dict[str, int] = {}
    """Where each label is first 1 or, of one that never is, first named, as `Problem.line` counts."""
    number_means: NumberMeans = "Line"
    """What these numbers count."""
    duplicates: int
    """Rows that repeat an earlier row exactly, in what is read of them."""
    warnings: list[str]
    on_invalid: OnInvalid = "refuse"
    """Whether rows that do not fit were to be left out; none of them is counted above."""
    skipped: int = 0
    """How many were left out."""
    problems: list[Problem] = []
    """The first hundred of them."""


def validate(
    path: Path,
    filename: str,
    on_invalid: OnInvalid = "refuse",
    most_bytes: int | None = None,
    task_type: TaskType | None = None,
) -> DatasetReport:
    """Read the file at `path`, named `filename`, and report on it.

    With `skip`, rows that do not fit `task_type` are left out; None is the one that most rows fit. Raises InvalidInput
    if it cannot be read (see `read`, also for `most_bytes`), if it has no rows, if `task_type`, or without it each one,
    does not fit all rows or, with `skip`, any row; then its `details` have the first rows that cannot be used. Raises
    it, too, for more labels than can be trained where `task_type` says classification, or nothing else fits.
    """
    groups: dict[frozenset[TaskType], _Group] = {}
    names: set[str] = set()
    number_means: NumberMeans = "Line"
    for chunk in read(path, filename, most_bytes):
        number_means = chunk.number_means
        names |= chunk.names
        for fits, indices in _by_fit(chunk.records):
            groups.setdefault(fits, _Group(fits)).take_in(chunk, indices)
        if chunk.unusable:
            groups.setdefault(frozenset(), _Group(frozenset())).leave_out(chunk)
    if not groups:
        raise InvalidInput("The file has no rows. Upload a file with at least one row.")

    misfits = {task_type: _Misfits(task_type, list(groups.values())) for task_type in TASK_TYPES}
    meant = sum((group.meant for group in groups.values()), Counter[TaskType]())
    fitted = min(TASK_TYPES, key=lambda each: (misfits[each].count, -meant[each]))
    nearest = task_type or fitted
    left_out = misfits[nearest]
    kept = [group for fits, group in groups.items() if nearest in fits]
    rows = sum(group.count for group in kept)
    if left_out.count and on_invalid == "refuse":
        raise InvalidInput(
            f"{left_out.sentence(number_means)} {HOW_TO_CORRECT}",
            details=left_out.details(),
        )
    if not rows:
        raise InvalidInput(
            f"There is no row that can be used. {left_out.sentence(number_means)} Correct them and upload again.",
            details=left_out.details(),
        )
    misfits = {task_type: _Misfits(task_type, kept) for task_type in TASK_TYPES}
    compatible = [task_type for task_type in TASK_TYPES if not misfits[task_type].count]
    classes = _Classes.of([group.classes for group in kept])
    if compatible == ["classification"] or (task_type == "classification" and compatible):
        classes.require_trainable(number_means)
    label_kind = classes.kind() if "classification" in compatible else None
    class_counts = classes.counts() if label_kind else {}
    labels = sorted(classes.marked) if label_kind else []
    return DatasetReport(
        rows=rows,
        compatible_task_types=compatible,
        misfits={task: found.sentence(number_means) for task, found in misfits.items() if found.count},
        label_kind=label_kind,
        labels=labels,
        class_counts=class_counts,
        label_lines=classes.lines() if label_kind else {},
        number_means=number_means,
        duplicates=repeated(np.concatenate([found for group in kept for found in group.hashes])),
        warnings=_warnings(rows, class_counts, labels, names - FIELDS),
        on_invalid=on_invalid,
        skipped=left_out.count,
        problems=left_out.problems(),
    )


def _by_fit(records: pa.RecordBatch) -> Iterator[tuple[frozenset[TaskType], npt.NDArray[np.int64]]]:
    """Which of the rows fit the same task types."""
    fits = fitting(records)
    codes = sum(mask.astype(np.int64) << place for place, mask in enumerate(fits.values()))
    for code in np.unique(codes):
        fit = frozenset(task_type for place, task_type in enumerate(TASK_TYPES) if code >> place & 1)
        yield fit, np.flatnonzero(codes == code)


class _Group:
    """The rows that fit the same task types, perhaps none."""

    def __init__(self, fits: frozenset[TaskType]) -> None:
        self.fits = fits
        self.count = 0
        self.meant: Counter[TaskType] = Counter()
        self.reasons: list[tuple[int, dict[TaskType, str]]] = []
        """The first rows, and why each fits none of the other task types."""
        self.classes = _Classes()
        self.hashes: list[Hashes] = []

    def take_in(self, chunk: Chunk, indices: npt.NDArray[np.int64]) -> None:
        """Add rows that fit a task type."""
        records, numbers = chunk.records, chunk.numbers
        if len(indices) < records.num_rows:
            records, numbers = records.take(pa.array(indices)), numbers[indices]
        self._explain(chunk, ((int(chunk.numbers[index]), chunk.row(int(index))) for index in indices))
        self.count += len(indices)
        self.meant[next(task for task in _MEANT if task in self.fits)] += len(indices)
        self.hashes.append(hashes(records))
        if "classification" in self.fits:
            self.classes.add(records.column("labels"), numbers)

    def leave_out(self, chunk: Chunk) -> None:
        """Add the rows that fit no task type."""
        self._explain(chunk, iter(chunk.unusable))
        self.count += len(chunk.unusable)
        self.meant.update(meant_for(row) for _, row in chunk.unusable if isinstance(row, dict))

    def _explain(self, chunk: Chunk, rows: Iterator[tuple[int, Row | str]]) -> None:
        for number, row in islice(rows, SHOWN_PROBLEMS - len(self.reasons)):
            reasons = {}
            for task_type in TASK_TYPES:
                if reason := chunk.problem(row, task_type):
                    reasons[task_type] = reason
            self.reasons.append((number, reasons))


_MEANT: tuple[TaskType, ...] = ("embedding", "text-generation", "classification", "regression")
"""A row that fits several task types is meant for the first of these, as `meant_for` guesses."""


class _Misfits:
    """The rows of some groups that do not fit a task type."""

    def __init__(self, task_type: TaskType, groups: Sequence[_Group]) -> None:
        self._task_type = task_type
        others = [group for group in groups if task_type not in group.fits]
        self.count = sum(group.count for group in others)
        first = merge(*(group.reasons for group in others), key=lambda entry: entry[0])
        self._first = [(number, reasons[task_type]) for number, reasons in islice(first, SHOWN_PROBLEMS)]

    def problems(self) -> list[Problem]:
        """The first of them."""
        return [Problem(line=number, reason=reason) for number, reason in self._first]

    def details(self) -> dict[str, Any]:
        """What a refusal for them says beside its sentence."""
        return {"problems": [found.model_dump() for found in self.problems()], "problem_count": self.count}

    def sentence(self, number_means: NumberMeans) -> str:
        """What is wrong with the first one, and which the others are."""
        (first, reason), *others = self._first[:6]
        said = f"{number_means} {first}: {reason}."
        if not others:
            return said
        which = ", ".join(str(number) for number, _ in others) + (", …" if self.count > 6 else "")
        more = f"{self.count - 1} more rows do" if self.count > 2 else "1 more row does"
        unit = number_means.lower() + ("s" if len(others) > 1 else "")
        return f"{said} {more} not fit {self._task_type} ({unit} {which})."


class _Classes:
    """Which labels there are, and in how many rows each is 1."""

    def __init__(self) -> None:
        self.rows = 0
        self.marked: Counter[str] = Counter()
        self.first_one: dict[str, int] = {}
        self.first_named: dict[str, int] = {}
        self.always_one = True

    @classmethod
    def of(cls, parts: Sequence["_Classes"]) -> "_Classes":
        """Those of several groups of rows."""
        whole = cls()
        whole.rows = sum(part.rows for part in parts)
        for part in parts:
            for label, count in part.marked.items():
                whole.marked[label] += count  # also 0, which Counter's own + drops
            _keep_first(whole.first_one, part.first_one)
            _keep_first(whole.first_named, part.first_named)
        whole.always_one = all(part.always_one for part in parts)
        return whole

    def add(self, column: pa.Array, numbers: npt.NDArray[np.int64]) -> None:
        """Count rows (rows,) with their `numbers`, none of them null, in the form of the schema's `labels`."""
        pairs = column.flatten()
        names, ones = pairs.field(0), pairs.field(1).to_numpy() == 1
        lengths = column.value_lengths().to_numpy()
        at = np.repeat(numbers, lengths)
        self.rows += len(column)
        self.marked.update(dict.fromkeys(_counted(names, at, self.first_named), 0))
        self.marked.update(_counted(names.filter(pa.array(ones)), at[ones], self.first_one))
        ends = np.cumsum(lengths)
        before = np.concatenate([[0], np.cumsum(ones)])
        self.always_one = self.always_one and bool((before[ends] - before[ends - lengths] == 1).all())

    def kind(self) -> LabelKind:
        if len(self.marked) == 1:
            return "binary"
        return "multiclass" if self.always_one else "multilabel"

    def counts(self) -> dict[str, int]:
        if self.kind() == "binary":
            (positive,) = self.marked.values()
            return {"positive": positive, "negative": self.rows - positive}
        return dict(self.marked)

    def require_trainable(self, number_means: NumberMeans) -> None:
        """Raises InvalidInput for more labels than a classifier can have, with the row of the first one too many."""
        if len(self.first_named) <= MAX_LABELS:
            return
        named = sorted(self.first_named.items(), key=lambda entry: (entry[1], entry[0]))
        label, number = named[MAX_LABELS]
        raise InvalidInput(
            f"{number_means} {number}: {label[:60]!r} is label number {MAX_LABELS + 1:,}, and a classifier has at most "
            f"{MAX_LABELS:,}. Of the file's {len(named):,} labels join rare ones, and upload again."
        )

    def lines(self) -> dict[str, int]:
        return self.first_named | self.first_one


def _counted(names: pa.Array, at: npt.NDArray[np.int64], first: dict[str, int]) -> dict[str, int]:
    """How often each of `names` (n,) occurs; one that `first` does not have yet goes there with its first `at` (n,)."""
    values = pc.value_counts(names)
    counts = dict(zip(values.field(0).to_pylist(), values.field(1).to_pylist(), strict=True))
    if not counts.keys() <= first.keys():
        codes = names.dictionary_encode()
        found, places = np.unique(codes.indices.to_numpy(), return_index=True)
        _keep_first(
            first, dict(zip(codes.dictionary.take(pa.array(found)).to_pylist(), at[places].tolist(), strict=True))
        )
    return counts


def _keep_first(first: dict[str, int], more: Mapping[str, int]) -> None:
    """Add to the least number by label those of further rows."""
    for label, number in more.items():
        first[label] = min(number, first.get(label, number))


def _warnings(rows: int, class_counts: dict[str, int], labels: list[str], unused: set[str]) -> list[str]:
    warnings = []
    if rows < FEW_ROWS:
        warnings.append(f"The dataset has fewer than {FEW_ROWS} rows ({rows}), too few to learn much from.")
    having = [name for name, count in class_counts.items() if count]
    if len(having) == 1:
        warnings.append(
            f"All rows are of one class, {having[0][:60]!r}, so no classifier can be trained on this dataset alone; "
            "add rows of another, or merge it with others."
        )
    small = [(count, name) for name, count in class_counts.items() if count < FEW_ROWS_IN_A_CLASS]
    warnings += [
        f"The class {name[:60]!r} has fewer than {FEW_ROWS_IN_A_CLASS} rows ({count})."
        for count, name in sorted(small)[:FEW_CLASSES]
    ]
    if (more := len(small) - FEW_CLASSES) > 0:
        warnings.append(f"… and {more} more {'class has' if more == 1 else 'classes have'} as few rows.")
    alike: dict[str, list[str]] = {}
    for label in labels:
        alike.setdefault("".join(label.split()), []).append(label)
    same = [group for group in alike.values() if len(group) > 1]
    for group in same[:FEW_CLASSES]:
        named = " and ".join(repr(label[:60]) for label in group[:FEW_CLASSES]) + (", …" * (len(group) > FEW_CLASSES))
        warnings.append(f"The labels {named} differ by white space alone, and are learnt as different ones.")
    if (more := len(same) - FEW_CLASSES) > 0:
        warnings.append(f"… and {more} more {'label is' if more == 1 else 'labels are'} written in such ways.")
    if unused:
        names = ", ".join(repr(name[:60]) for name in sorted(unused)[:6]) + (", …" if len(unused) > 6 else "")
        warnings.append(f"Fields that no task type reads are left out: {names}.")
    return warnings
