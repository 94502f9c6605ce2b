"""Some test rows with the answers before and after training, side by side."""

from pathlib import Path
from typing import Any

import pyarrow.parquet

from emissary.errors import NotFound
from emissary.store.artifacts import artifact_store
from emissary.store.tables import TrainingJob
from tasks.patience import patiently

_ROWS, _LETTERS = 10, 200


def answer_samples(job: TrainingJob, results: str, best: int) -> list[dict[str, Any]]:
    """The first ten test rows, cut to 200 letters each: input, expected output, the base model's answer where it was
    tested, that of the checkpoint `best`, and the scores of both by the job's testing functions; from the job's results
    below the key `results`.
    """
    after = _rows(f"{results}/{best}")
    try:
        before: list[dict[str, Any]] | None = _rows(f"{results}/base")
    except NotFound:
        before = None
    return [_sample(job, best, before[number] if before else None, row) for number, row in enumerate(after)]


def _rows(key: str) -> list[dict[str, Any]]:
    folder: Path = patiently(artifact_store().folder, key)
    with pyarrow.parquet.ParquetFile(folder / "results.parquet") as file:
        batch = next(file.iter_batches(batch_size=_ROWS), None)
    return batch.to_pylist() if batch is not None else []


def _sample(job: TrainingJob, best: int, before: dict[str, Any] | None, after: dict[str, Any]) -> dict[str, Any]:
    answered = {} if before is None else {"base model": before}
    answered[f"checkpoint {best}"] = after
    # The inputs come last, for they are wide, and the table scrolls.
    sample: dict[str, Any] = {"expected": _cut(after["expected_output"])}
    sample |= {name: _cut(row["output"]) for name, row in answered.items()}
    for function in job.test_functions:
        sample |= {f"{function}, {name}": row.get(function) for name, row in answered.items()}
    return sample | {"input": _cut(after["input"])}


def _cut(text: str) -> str:
    return text if len(text) <= _LETTERS else f"{text[: _LETTERS - 1]}…"
