"""The files of a test's results, and what is read from them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.errors import NotFound
from emissary.schemas.training_jobs import FunctionSummary
from emissary.store import testing_functions
from emissary.store.artifacts import CorruptArtifact, artifact_store, sealed_notes
from emissary.store.tables import TrainingJob
from tasks.patience import patiently
from tasks.pooled_testing import Predictions

_MEANS = "means.json"
REPORT, SUMMARY = "report.json", "test_summary.json"


def write_results(
    folder: Path,
    tested: Sequence[tuple[str, str, str]],
    scores: Mapping[str, Sequence[float | None]],
    predictions: Predictions | None = None,
    errors: Mapping[str, Sequence[str | None]] | None = None,
) -> None:
    """Write results.csv and results.parquet to `folder`, a line per row of `tested` (input, expected output, output).

    Beside them, `means.json` has the scores' means.

    Columns: input, expected_output, output, of `predictions` of a classification the probability of each label as a
    JSON object, and each testing function's score, empty where it gave none; where there are any `errors` (of each
    function, per row), these as a JSON object by function. Texts are exactly as they were, also those that a
    spreadsheet takes for formulas.
    """
    inputs, expected, outputs = zip(*tested, strict=True)
    table = pa.table(
        {
            "input": pa.array(inputs, pa.string()),
            "expected_output": pa.array(expected, pa.string()),
            "output": pa.array(outputs, pa.string()),
            **_probabilities(predictions),
            **_errors(errors or {}),
            **{function: pa.array(values, pa.float64()) for function, values in scores.items()},
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    pyarrow.csv.write_csv(table, folder / "results.csv")
    pyarrow.parquet.write_table(table, folder / "results.parquet", compression="zstd")
    (folder / _MEANS).write_text(json.dumps(aggregate(scores)))


def write_summary(folder: Path, summary: Mapping[str, FunctionSummary]) -> None:
    """Write test_summary.json, what the scores of each testing function say."""
    (folder / SUMMARY).write_text(json.dumps({name: found.model_dump() for name, found in summary.items()}))


def _probabilities(predictions: Predictions | None) -> dict[str, pa.Array]:
    if predictions is None or predictions.task.task_type != "classification":
        return {}
    labels = predictions.task.labels
    rows = ({label: float(f"{p:.6g}") for label, p in zip(labels, row, strict=True)} for row in predictions.predicted)
    return {"probabilities": pa.array([json.dumps(row, ensure_ascii=False) for row in rows], pa.string())}


def _errors(errors: Mapping[str, Sequence[str | None]]) -> dict[str, pa.Array]:
    rows = [
        {name: error for name, error in zip(errors, row, strict=True) if error is not None}
        for row in zip(*errors.values(), strict=True)
    ]
    if not any(rows):
        return {}
    return {"errors": pa.array([json.dumps(row, ensure_ascii=False) if row else "" for row in rows], pa.string())}


@dataclass(frozen=True)
class Results:
    """What came of a test: each testing function's mean; metrics and names of plots, as `checkpoint_report.Report`
    writes them, with `score_summary.summary` as `test_summary`, None or without it where an earlier version tested; and
    the plots: name → PNG.
    """

    means: dict[str, float]
    report: dict[str, Any] | None
    plots: dict[str, bytes]


def read_results(folder: Path) -> Results:
    """What `write_results`, `write_summary` and `Report.write` wrote into `folder`."""
    means = json.loads((folder / _MEANS).read_text())
    if not (folder / REPORT).exists():
        return Results(means, None, {})
    report = json.loads((folder / REPORT).read_text())
    if (folder / SUMMARY).exists():
        report[SUMMARY.removesuffix(".json")] = json.loads((folder / SUMMARY).read_text())
    return Results(means, report, {name: (folder / f"{name}.png").read_bytes() for name in report["plots"]})


def read_scores(folder: Path, functions: Sequence[str]) -> dict[str, list[float | None]]:
    """The scores per row that `write_results` wrote into `folder`, of those of `functions` that are there."""
    table = pyarrow.parquet.read_table(folder / "results.parquet")
    return {name: table[name].to_pylist() for name in functions if name in table.column_names}


async def results_of(session: AsyncSession, job: TrainingJob) -> str:
    """The key below which the results of the job are published: of its checkpoints by their numbers, and of `base`. It
    is another one where a testing function was changed between two runs of the job, for scores of one are not
    comparable with those of the other. Raises InvalidInput as `testing_functions.of_job`.
    """
    functions = [function.model_dump(mode="json") for function in await testing_functions.of_job(session, job)]
    return f"training-jobs/{job.id}/results/{sealed_notes(functions)}"


def published_results(key: str) -> Results | None:
    """The results published under `key`; None where there are none whole."""
    store = artifact_store()
    try:
        return read_results(patiently(store.folder, key))
    except NotFound:
        return None
    except CorruptArtifact:
        patiently(store.delete, key)
        return None


def aggregate(scores: Mapping[str, Sequence[float | None]]) -> dict[str, float]:
    """Each testing function's mean over the rows that it scored; a function that scored none is left out."""
    scored = {name: [value for value in values if value is not None] for name, values in scores.items()}
    return {name: sum(values) / len(values) for name, values in scored.items() if values}
