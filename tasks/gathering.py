"""The rows that a pipeline's run trains on: one dataset as it is, or one made of several."""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import anyio.to_thread
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from emissary.data.inputs import leaked, require_apart
from emissary.data.normalise import read_normalised
from emissary.data.row_files import write_once
from emissary.schemas.pipelines import PipelineCreate
from emissary.schemas.sources import DatasetsSource
from emissary.store import pipeline_runs, pipelines
from emissary.store.artifacts import artifact_store
from emissary.store.dataset_files import store_file
from emissary.store.pipeline_tables import Pipeline, PipelineRun
from emissary.store.tables import Dataset
from tasks.attempt import require_lease
from tasks.catalogue import in_catalogue
from tasks.fetching import fetch
from tasks.patience import patiently
from tasks.preparing import prepare

_NOTHING_NEW = "No new data."


@task(task_run_name="gather", cache_policy=NO_CACHE)
async def gather(run: PipelineRun) -> str | None:
    """Have the run know the dataset that it trains on; where there is nothing new, this says so instead.

    Raises InvalidInput where a dataset or a source is gone, or rows of the test dataset are among those to train on.
    """
    if run.training_job_id is not None:
        return None  # its job has them
    pipeline = await in_catalogue(pipelines.get, run.pipeline_id)
    wanted = pipelines.config(pipeline)
    source = wanted.gather
    if run.requested_objects is not None:
        pipelines.object_keys(wanted, run.requested_objects)  # the source may have been changed since
    outside = None if run.requested is not None or isinstance(source, DatasetsSource) else source
    if outside is not None and not await fetch(run, pipeline, wanted, outside):
        return _NOTHING_NEW
    found = await in_catalogue(pipeline_runs.gather, run.id)
    if not found:
        return _NOTHING_NEW
    keys = [await prepare(row.id) for row in found]
    get_run_logger().info("Gathered %s", ", ".join(f"{row.name} ({row.id})" for row in found))
    if wanted.test_dataset_id is not None:
        test_key = await prepare(wanted.test_dataset_id)
        await anyio.to_thread.run_sync(_require_apart, keys, test_key, wanted.test_dataset_id)
    dataset = found[0]
    if len(found) > 1:
        dataset = await anyio.to_thread.run_sync(partial(_merge, run, pipeline, wanted, found, keys))
    require_lease()
    await in_catalogue(pipeline_runs.use, run.id, dataset, len(found) > 1)
    return None


def _rows(keys: Iterable[str]) -> Iterator[dict[str, Any]]:
    for key in keys:
        yield from read_normalised(patiently(artifact_store().folder, key) / "rows.parquet")


def _require_apart(keys: Sequence[str], test_key: str, test_dataset_id: str) -> None:
    test = list(_rows([test_key]))
    require_apart(leaked(_rows(keys), test), len(test), test_dataset_id)


def _merge(
    run: PipelineRun, pipeline: Pipeline, wanted: PipelineCreate, found: Sequence[Dataset], keys: Sequence[str]
) -> Dataset:
    """The dataset of all their rows, each once, stored under the run's own id; made again it is the same."""
    name = f"{pipeline.name[:90]}-{run.id[3:9]}"
    with tempfile.TemporaryDirectory(prefix="emissary-merged-") as folder:
        merged = Path(folder) / "merged"
        count = write_once(_rows(keys), wanted.train.task_type, merged)
        with merged.open("rb") as source:
            dataset_id = f"ds-{run.id.removeprefix('pr-')}"
            dataset = patiently(store_file, source, f"{name}.jsonl", dataset_id=dataset_id)
    dataset.project_id, dataset.name, dataset.upload_by = run.project_id, name, run.created_by
    get_run_logger().info("Merged %d datasets to %d different rows", len(found), count)
    return dataset
