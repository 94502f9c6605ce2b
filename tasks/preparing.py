"""From an uploaded dataset to rows that can be trained and tested on."""

import json
from pathlib import Path
from typing import Any

import anyio
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from emissary.data.inputs import leaked
from emissary.data.normalise import normalise, read_normalised
from emissary.data.rebalancing import rebalance, row_counts
from emissary.data.splitting import downsample, split
from emissary.store import job_events, prepared
from emissary.store.artifacts import artifact_store
from emissary.store.tables import TrainingJob
from tasks.catalogue import in_catalogue
from tasks.patience import patiently
from tasks.publishing import made_once
from tasks.running_out import FEWER_ROWS, told_what_ran_out

_COLUMNS = {
    "text-generation": ("kind", "messages"),
    "classification": ("prompt", "labels"),
    "regression": ("prompt", "target"),
    "embedding": ("text_a", "text_b", "similarity"),
}
"""What of a normalised row each task type reads."""


@task(task_run_name="prepare-{dataset_id}", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=2)
async def prepare(dataset_id: str) -> str:
    """Normalise a dataset to Parquet once for its content; returns the artifact's key. Does nothing when it is there,
    and whole.
    """
    dataset = await in_catalogue(prepared.not_being_removed, dataset_id)
    key = prepared.rows_key(dataset)

    def write(folder: Path) -> None:
        uploaded = patiently(artifact_store().folder, dataset.artifact)
        (source,) = (path for path in uploaded.iterdir() if path.stem == "original")
        only = dataset.report["compatible_task_types"] if dataset.report.get("on_invalid") == "skip" else None
        normalise(source, dataset.file_name, folder / "rows.parquet", only)

    with told_what_ran_out(f"the rows of {dataset_id}", FEWER_ROWS):
        await anyio.to_thread.run_sync(made_once, key, write)
    return key


@task(task_run_name="split", cache_policy=NO_CACHE)
async def training_and_test_rows(job: TrainingJob, train_key: str, test_key: str | None) -> tuple[list[Any], list[Any]]:
    """The rows to train on and those to test on, see `divided`, with the columns of the job's task type."""
    with told_what_ran_out(f"the rows of {job.id}", FEWER_ROWS):
        rows = await anyio.to_thread.run_sync(_rows, train_key, job.task_type)
        given = None if test_key is None else await anyio.to_thread.run_sync(_rows, test_key, job.task_type)
        return divided(job, rows, given)


def divided(
    job: TrainingJob, rows: list[dict[str, Any]], given: list[dict[str, Any]] | None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Of `rows` those to train on, downsampled and then rebalanced as the job says; and those to test on: the `given`
    ones, or held out, for classification the same share of every class.

    Of rows that are exactly the same either all are held out or none, so one that is tested is never trained on.
    """
    seed, percent = job.hyper_parameters["seed"], job.hyper_parameters["downsample_size"]
    training, test = list(range(len(rows))), given or []
    if given is None and job.train_test_split_ratio is not None:
        groups = [hash(json.dumps(row, sort_keys=True)) for row in rows]
        training, held_out = split(len(rows), job.train_test_split_ratio, seed, _strata(job, rows), groups)
        test = [rows[index] for index in held_out]
    candidates = [rows[index] for index in training]
    chosen = [rows[index] for index in downsample(training, percent, seed, _strata(job, candidates))]
    if job.rebalance_data:
        report = job.train_dataset.report
        classes = [_class(row, report["label_kind"]) for row in chosen]
        counts = row_counts(job.rebalance_data, report["class_counts"], len(chosen))
        chosen = [chosen[index] for index in rebalance(classes, counts, seed)]
    return chosen, test


@task(task_run_name="look-for-leakage", cache_policy=NO_CACHE)
async def warn_of_leakage(job: TrainingJob, training: list[Any], test: list[Any]) -> None:
    """Say in the job's log and events when the input of a test row is trained on too."""
    found = await anyio.to_thread.run_sync(leaked, training, test)
    if found:
        message = (
            f"{len(found)} of {len(test)} test rows have an input that is trained on too (the first is test row "
            f"{found[0] + 1}), so test results are better than on unseen inputs; remove them from either side."
        )
        get_run_logger().warning(message)
        await in_catalogue(job_events.record, job.id, "warning", {"leaked_rows": len(found)}, message=message)


def _rows(key: str, task_type: str) -> list[dict[str, Any]]:
    path = patiently(artifact_store().folder, key) / "rows.parquet"
    return [{column: row[column] for column in _COLUMNS[task_type]} for row in read_normalised(path)]


def _strata(job: TrainingJob, rows: list[dict[str, Any]]) -> list[tuple[str, ...]] | None:
    return [_marked(row) for row in rows] if job.task_type == "classification" else None


def _marked(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(sorted(label for label, value in row["labels"].items() if value))


def _class(row: dict[str, Any], label_kind: str) -> str:
    """The class of a binary or multiclass row, as in the dataset's `class_counts`."""
    marked = _marked(row)
    if label_kind == "binary":
        return "positive" if marked else "negative"
    return marked[0]
