"""What the rows of a normalised dataset are like, found in one pass, a row group at a time.

Lengths, numbers and fields are those of all rows. What takes longer, tokens and near duplicates, is looked at in evenly
spaced rows where there are very many; the profile says how many.
"""

from array import array
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel

from emissary.data import near_duplicates
from emissary.data.inputs import COLUMNS, fingerprint, input_text
from emissary.data.normalise import group_rows

VERSION = 3
"""Of what a profile holds; another version makes profiles anew."""
Numbers = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
CountTokens = Callable[[list[dict[str, Any]]], list[int]]
"""Tokens of each normalised row, as training would give them to the model."""

_TEXTS = {"prompt": "prompt", "completion": "prompt", "text_a": "pair", "text_b": "pair"}
"""Column → the kind of rows that it is of."""
_NUMBERS = {"target": "prompt", "similarity": "pair"}
_TOKEN_ROWS, _TOKEN_BYTES = 10_000, 8 * 1024 * 1024
_NEAR_ROWS, _NEAR_BYTES = 50_000, 32 * 1024 * 1024
_QUANTILES = {"min": 0.0, "p5": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95, "p99": 0.99, "max": 1.0}
_BINS = 30
_EXAMPLES = 5
_OUTSIDE, _FAR_OUT = 1.5, 3.0


class Outliers(BaseModel):
    """Values far from the others, by Tukey's fences ("Exploratory Data Analysis", 1977)."""

    count: int
    low: float
    high: float
    rows: list[int]
    """The first few, counted from 1."""


class Distribution(BaseModel):
    """How numbers are spread."""

    quantiles: dict[str, float]
    mean: float
    histogram: dict[str, list[float]] | None
    """`edges` of the bins, one more than there are `counts`; not of characters."""
    outliers: Outliers | None
    """None where the middle half of the values is one value."""


class Field(BaseModel):
    """A field that rows have."""

    empty: int
    """Rows that should have it and do not, or nothing but white space."""
    constant: bool
    """Whether all rows have the same, of two and more."""
    characters: Distribution | None
    """Of a text."""


class Tokens(BaseModel):
    """Lengths in tokens, of whole rows as training gives them to the model."""

    base_model: str
    """Whose tokenizer counted."""
    context: int
    rows: int
    """How many were counted."""
    over_context: int
    """How many of these are longer than the context, and would be cut."""
    lengths: Distribution


class NearDuplicates(BaseModel):
    """Rows whose input is nearly an earlier row's, though not exactly."""

    rows: int
    """How many rows were looked at."""
    count: int
    pairs: list[tuple[int, int]]
    """The first few: a row, and the earlier one, both counted from 1."""


class Contradictions(BaseModel):
    """Rows to classify or to predict a number of whose input is exactly an earlier row's, and whose answer is not."""

    rows: int
    """How many rows were looked at."""
    count: int
    pairs: list[tuple[int, int]]
    """The first few: a row, and the first of its input, both counted from 1."""


class Leakage(BaseModel):
    """Rows of a test dataset whose input is in this dataset too."""

    test_dataset_id: str
    rows: int
    test_rows: list[int]
    """The first few, counted from 1."""


class DatasetProfile(BaseModel):
    """What rows are like, beyond what their validation found."""

    fields: dict[str, Field]
    constant_answer: bool = False
    """Whether all conversations, of two and more, end in the same answer."""
    target: Distribution | None = None
    """Of regression's numbers, or embedding's similarities."""
    imbalance: float | None = None
    """Classification: rows of the largest class for one of the smallest; None where a class has no row."""
    tokens: Tokens | None = None
    near_duplicates: NearDuplicates
    contradictions: Contradictions
    leakage: Leakage | None = None
    warnings: list[str] = []
    """What its owner should know, beside the report's warnings."""
    plots: list[str] = []
    """Names of the pictures that were made of it."""


def profile(path: Path, count_tokens: CountTokens | None = None) -> tuple[DatasetProfile, Numbers]:
    """The profile of the normalised rows at `path`, without what concerns other things than these rows, and the tokens
    (rows looked at,) that `count_tokens` found.
    """
    texts = {name: _TextField() for name in (*_TEXTS, "messages")}
    numbers: dict[str, list[Numbers]] = {name: [] for name in _NUMBERS}
    kinds = {"prompt": 0, "chat": 0, "pair": 0}
    sample, to_count = _sampled(path, _NEAR_ROWS, _NEAR_BYTES), _sampled(path, _TOKEN_ROWS, _TOKEN_BYTES)
    signatures: list[near_duplicates.Signatures] = []
    inputs: list[int] = []
    labelled: list[int | None] = []
    tokens: list[int] = []
    answers = _TextField()
    begin = 0
    for group in _groups(path):
        rows = range(begin, begin := begin + group.num_rows)
        for kind in kinds:
            where = pc.equal(group["kind"], kind).to_numpy()
            of_kind, numbered = group.filter(where), np.flatnonzero(where) + rows.start + 1
            kinds[kind] += of_kind.num_rows
            for name in (name for name, its in _TEXTS.items() if its == kind):
                texts[name].add(of_kind[name].combine_chunks(), numbered)
            for name in (name for name, its in _NUMBERS.items() if its == kind):
                numbers[name].append(of_kind[name].to_numpy().astype(np.float64))
            if kind == "chat":
                messages = of_kind["messages"].combine_chunks()
                texts["messages"].add(_conversations(messages), numbered)
                answers.add(_answers(messages), numbered)
        taken = _taken(group, rows, sample)
        looked_at = [input_text(row) for row in taken]
        signatures.append(near_duplicates.signatures(looked_at))
        inputs += map(fingerprint, looked_at)
        labelled += map(_label, taken)
        if count_tokens is not None:
            tokens += count_tokens(_taken(group, rows, to_count))
    fields = {name: found.field(kinds[_TEXTS.get(name, "chat")]) for name, found in texts.items() if found.given}
    target = None
    for name, parts in numbers.items():
        values = np.concatenate(parts) if parts else np.empty(0)
        if len(values) and not np.isnan(values).any():
            fields[name] = Field(empty=0, constant=_is_constant(values), characters=None)
            target = distribution(values)
    near = _near_duplicates(np.concatenate(signatures), inputs, sample)
    counted = np.array(tokens, np.float64)
    constant_answer = answers.given > 0 and answers.field(kinds["chat"]).constant
    found = DatasetProfile(
        fields=fields,
        constant_answer=constant_answer,
        target=target,
        near_duplicates=near,
        contradictions=_contradictions(inputs, labelled, sample),
    )
    return found, counted


def distribution(values: Numbers) -> Distribution:
    """How `values`, one for each row and at least one, are spread; their range must be finite."""
    return _spread(values, np.arange(1, len(values) + 1), _OUTSIDE, _histogram(values))


def _spread(values: Numbers, rows: Indices, fence: float, histogram: dict[str, list[float]] | None) -> Distribution:
    """How `values` of the `rows` are spread; an outlier is `fence` times the middle half's width outside of it."""
    found = np.quantile(values, list(_QUANTILES.values()))
    quantiles = dict(zip(_QUANTILES, map(float, found), strict=True))
    low, high = quantiles["p25"], quantiles["p75"]
    outliers = None
    if high > low:
        low, high = low - fence * (high - low), high + fence * (high - low)
        outside = np.flatnonzero((values < low) | (values > high))
        examples = [int(row) for row in rows[outside[:_EXAMPLES]]]
        outliers = Outliers(count=len(outside), low=low, high=high, rows=examples)
    return Distribution(quantiles=quantiles, mean=float(np.mean(values)), histogram=histogram, outliers=outliers)


def _histogram(values: Numbers) -> dict[str, list[float]]:
    low, high = float(values.min()), float(values.max())
    whole = 0 < high - low < _BINS and bool(np.all(values == np.floor(values)))
    if whole:  # and few, so a bin for each
        edges = np.arange(low - 0.5, high + 1)
    else:
        edges = np.linspace(low, high, _BINS + 1) if high > low else np.linspace(low - 0.5, high + 0.5, _BINS + 1)
    # Between two numbers that are nearly the same, or very large ones, there are no others for so many edges.
    if not (np.diff(edges) > 0).all() or edges[-1] < high:
        edges = np.array([np.nextafter(low, -np.inf), np.nextafter(high, np.inf)])
    counts, edges = np.histogram(values, edges)
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def leakage(path: Path, test_path: Path, test_dataset_id: str) -> Leakage:
    """Which rows of the normalised dataset at `test_path` have an input that a row at `path` has."""
    here, there = _fingerprints(path), _fingerprints(test_path)
    leaked = np.flatnonzero(np.isin(there, here))
    rows = [int(index) + 1 for index in leaked[:_EXAMPLES]]
    return Leakage(test_dataset_id=test_dataset_id, rows=len(leaked), test_rows=rows)


def imbalance(class_counts: Mapping[str, int]) -> float | None:
    """Rows of the largest class for one of the smallest; None without classes, and where one has no row."""
    counts = class_counts.values()
    return max(counts) / min(counts) if counts and min(counts) else None


class _TextField:
    """What is known of a field's texts so far."""

    def __init__(self) -> None:
        self.lengths: list[Indices] = []
        self.rows: list[Indices] = []
        self.given, self.blank = 0, 0
        self.first: str | None = None
        self.constant = True

    def add(self, values: pa.Array, rows: Indices) -> None:
        self.rows.append(rows[values.is_valid().to_numpy(zero_copy_only=False)])
        values = values.drop_null()
        if not len(values):
            return
        self.first = values[0].as_py() if self.first is None else self.first
        self.given += len(values)
        self.blank += len(values) - pc.sum(pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(values)), 0)).as_py()
        self.constant = self.constant and pc.all(pc.equal(values, self.first)).as_py()
        self.lengths.append(pc.utf8_length(values).to_numpy(zero_copy_only=False).astype(np.int64))

    def field(self, rows: int) -> Field:
        lengths = np.concatenate(self.lengths).astype(np.float64)
        return Field(
            empty=rows - self.given + self.blank,
            constant=self.constant and self.given == rows > 1,
            characters=_spread(lengths, np.concatenate(self.rows), _FAR_OUT, None),
        )


def _is_constant(values: Numbers) -> bool:
    return len(values) > 1 and bool(np.all(values == values[0]))


def _conversations(messages: pa.Array) -> pa.Array:
    """Each conversation as one text."""
    turns = pa.ListArray.from_arrays(_offsets(messages), pc.struct_field(messages.flatten(), "content"))
    return pc.binary_join(turns, "\n")


def _answers(messages: pa.Array) -> pa.Array:
    """The last turn of each conversation."""
    ends = pa.array(_offsets(messages).to_numpy()[1:] - 1)
    return pc.struct_field(messages.flatten(), "content").take(ends)


def _offsets(lists: pa.Array) -> pa.Array:
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    return pa.array(np.concatenate(([0], np.cumsum(lengths))), pa.int32())


def _groups(path: Path) -> Iterator[pa.Table]:
    with pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            yield file.read_row_group(number)


def _sampled(path: Path, most_rows: int, most_bytes: int) -> Indices:
    """Evenly spaced rows, all where they are no more than this."""
    metadata = pq.read_metadata(path)
    size = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
    rows = int(metadata.num_rows)
    count = max(1, min(rows, most_rows, rows * most_bytes // max(size, 1)))
    return np.unique(np.linspace(0, rows - 1, count).astype(np.int64))


def _taken(group: pa.Table, rows: range, wanted: Indices) -> list[dict[str, Any]]:
    """Those of the group's rows that are wanted, as dicts; `rows` are the group's."""
    mine = wanted[np.searchsorted(wanted, rows.start) : np.searchsorted(wanted, rows.stop)] - rows.start
    return group_rows(group if len(mine) == group.num_rows else group.take(mine))


def _near_duplicates(found: near_duplicates.Signatures, inputs: list[int], sample: Indices) -> NearDuplicates:
    # An exact copy is none that is nearly the same: only the first of the copies is compared.
    _, firsts = np.unique(np.array(inputs, np.uint64), return_index=True)
    firsts = np.sort(firsts)
    earlier = near_duplicates.repeated(found[firsts])
    later = np.flatnonzero(earlier >= 0)
    rows = sample[firsts] + 1
    pairs = [(int(rows[index]), int(rows[earlier[index]])) for index in later[:_EXAMPLES]]
    return NearDuplicates(rows=len(sample), count=len(later), pairs=pairs)


def _label(row: dict[str, Any]) -> int | None:
    """What the row is to be classified as, or the number to predict, as one that others are compared with."""
    if row.get("labels") is not None:
        return hash(frozenset(label for label, marked in row["labels"].items() if marked))
    number = row["target"] if row.get("target") is not None else row.get("similarity")
    return None if number is None else hash(float(number))


def _contradictions(inputs: list[int], labelled: list[int | None], sample: Indices) -> Contradictions:
    first: dict[int, int] = {}
    pairs: list[tuple[int, int]] = []
    for at, (text, label) in enumerate(zip(inputs, labelled, strict=True)):
        if label is not None and labelled[earlier := first.setdefault(text, at)] != label:
            pairs.append((int(sample[at]) + 1, int(sample[earlier]) + 1))
    return Contradictions(rows=len(sample), count=len(pairs), pairs=pairs[:_EXAMPLES])


def _fingerprints(path: Path) -> npt.NDArray[np.uint64]:
    found = array("Q")  # eight bytes a row: there may be tens of millions
    for group in _groups(path):
        columns = group.select(COLUMNS)
        found.extend(fingerprint(input_text(row)) for row in columns.to_pylist())
    return np.frombuffer(found, np.uint64)
