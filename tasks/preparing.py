"""From an uploaded dataset to rows that can be trained and tested on."""

import logging
import tempfile
from pathlib import Path
from typing import Any

import anyio
from prefect import task
from prefect.cache_policies import NO_CACHE
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.data.normalise import normalise, read_normalised
from emissary.data.rebalancing import rebalance, row_counts
from emissary.data.splitting import downsample, split
from emissary.errors import NotFound
from emissary.store.artifacts import ArtifactStore, CorruptArtifact, artifact_store
from emissary.store.tables import Dataset, TrainingJob
from tasks.catalogue import in_catalogue
from tasks.publishing import publish

logger = logging.getLogger(__name__)

_COLUMNS = {
    "text-generation": ("kind", "messages"),
    "classification": ("prompt", "labels"),
    "regression": ("prompt", "target"),
    "embedding": ("text_a", "text_b", "similarity"),
}
"""What of a normalised row each task type reads."""


@task(task_run_name="prepare-{dataset_id}", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=2)
async def prepare(dataset_id: str) -> str:
    """Normalise a dataset to Parquet once; returns the artifact's key. Does nothing when it is there, and whole."""
    key = f"prepared/{dataset_id}"
    store = artifact_store()
    dataset = await in_catalogue(AsyncSession.get_one, Dataset, dataset_id)

    def write() -> None:
        try:
            store.folder(key)
            return
        except NotFound:
            pass
        except CorruptArtifact as error:
            logger.warning("%s It is prepared again.", error)
            store.delete(key)
        uploaded = store.folder(dataset.artifact)
        (source,) = (path for path in uploaded.iterdir() if path.stem == "original")
        with tempfile.TemporaryDirectory(prefix="emissary-prepare-") as scratch:
            only = dataset.report["compatible_task_types"] if dataset.report.get("on_invalid") == "skip" else None
            normalise(source, dataset.file_name, Path(scratch) / "rows.parquet", only)
            publish(key, Path(scratch), move=True)

    await anyio.to_thread.run_sync(write)
    return key


@task(task_run_name="split", cache_policy=NO_CACHE)
async def training_and_test_rows(job: TrainingJob, train_key: str, test_key: str | None) -> tuple[list[Any], list[Any]]:
    """The rows to train on, downsampled and then rebalanced as the job says, and those to test on: its test dataset's,
    or held out (for classification the same share of every class). They have the columns of the job's task type.
    """
    store = artifact_store()
    rows = await anyio.to_thread.run_sync(_rows, store, train_key, job.task_type)
    seed, percent = job.hyper_parameters["seed"], job.hyper_parameters["downsample_size"]
    if test_key is not None:
        training = list(range(len(rows)))
        test = await anyio.to_thread.run_sync(_rows, store, test_key, job.task_type)
    elif job.train_test_split_ratio is not None:
        strata = [_marked(row) for row in rows] if job.task_type == "classification" else None
        training, held_out = split(len(rows), job.train_test_split_ratio, seed, strata)
        test = [rows[index] for index in held_out]
    else:
        training, test = list(range(len(rows))), []
    chosen = [rows[index] for index in downsample(training, percent, seed)]
    if job.rebalance_data:
        report = job.train_dataset.report
        classes = [_class(row, report["label_kind"]) for row in chosen]
        counts = row_counts(job.rebalance_data, report["class_counts"], len(chosen))
        chosen = [chosen[index] for index in rebalance(classes, counts, seed)]
    return chosen, test


def _rows(store: ArtifactStore, key: str, task_type: str) -> list[dict[str, Any]]:
    path = store.folder(key) / "rows.parquet"
    return [{column: row[column] for column in _COLUMNS[task_type]} for row in read_normalised(path)]


def _marked(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(sorted(label for label, value in row["labels"].items() if value))


def _class(row: dict[str, Any], label_kind: str) -> str:
    """The class of a binary or multiclass row, as in the dataset's `class_counts`."""
    marked = _marked(row)
    if label_kind == "binary":
        return "positive" if marked else "negative"
    return marked[0]
