"""New data of a pipeline's source that is no dataset yet, as a dataset of the project."""

import tempfile
from pathlib import Path

import anyio.to_thread
from prefect import get_run_logger

from emissary.data.validation import HOW_TO_CORRECT
from emissary.errors import InvalidInput
from emissary.ids import derived_id
from emissary.schemas.pipelines import PipelineCreate
from emissary.schemas.sources import FetchedSource, TrafficSource
from emissary.sources import traffic as traffic_source
from emissary.sources.fetched import Fetched
from emissary.sources.fetching import fetch as fetch_from
from emissary.store import fetched_data, pipelines, traffic
from emissary.store.artifacts import artifact_store, file_sha256
from emissary.store.dataset_files import artifact_key, store_file
from emissary.store.fetched_data import Before
from emissary.store.pipeline_tables import Pipeline, PipelineRun
from emissary.store.tables import Dataset
from tasks.attempt import require_lease
from tasks.catalogue import in_catalogue

_HOW_TO_CORRECT = "Correct or remove such rows where they are fetched from, and run again."


async def fetch(run: PipelineRun, pipeline: Pipeline, wanted: PipelineCreate, source: FetchedSource) -> bool:
    """Have the run use what is new in the source, or the objects that it names; False where nothing is that no run that
    came to a decision has used.

    What has the content of a dataset of the project is that dataset. Raises EmissaryError, naming the field, where the
    source is gone, or what it has cannot be trained on.
    """
    before = await in_catalogue(fetched_data.before, run.id)
    if before is None:  # it was fetched, and then the run was killed
        return True
    beside = (source.datasets or []) if isinstance(source, TrafficSource) else []
    await in_catalogue(pipelines.named, run.project_id, wanted, beside, "gather.datasets")
    with tempfile.TemporaryDirectory(prefix="emissary-fetched-") as folder:
        found = await _found(run, wanted, source, before, Path(folder))
        if found is None:
            return False
        sha256 = await anyio.to_thread.run_sync(file_sha256, found.path)
        if sha256 in before.contents:
            if found.origin not in before.origins:
                require_lease()
                await in_catalogue(fetched_data.note_known, run.id, sha256, found.origin)
            return False
        require_lease()
        dataset = await in_catalogue(fetched_data.with_content, run.project_id, sha256)
        if dataset is None:
            dataset = await anyio.to_thread.run_sync(_stored, run, pipeline, found)
        await _require_fit(dataset, wanted, is_new=dataset.created_at is None)
    require_lease()
    await in_catalogue(fetched_data.note, run.id, dataset, found.origin, source.merge, beside)
    get_run_logger().info("Fetched %d rows as the dataset %s", dataset.report["rows"], dataset.id)
    return True


async def _found(
    run: PipelineRun, wanted: PipelineCreate, source: FetchedSource, before: Before, folder: Path
) -> Fetched | None:
    task_type = wanted.train.task_type
    if isinstance(source, TrafficSource):
        until = await in_catalogue(traffic.settled, source, run.project_id, task_type)
        return await in_catalogue(traffic_source.fetch, source, until, before.origins, folder)
    return await anyio.to_thread.run_sync(
        fetch_from, source, before.organization, before.origins, task_type, folder, run.requested_objects
    )


def _stored(run: PipelineRun, pipeline: Pipeline, found: Fetched) -> Dataset:
    dataset_id = derived_id("ds", run.id, "fetched")
    # An earlier attempt of the run may have left what the source had then.
    artifact_store().delete(artifact_key(dataset_id))
    try:
        with found.path.open("rb") as file:
            dataset = store_file(file, found.file_name, dataset_id=dataset_id)
    except InvalidInput as error:
        said = str(error).replace(HOW_TO_CORRECT, _HOW_TO_CORRECT)
        raise InvalidInput(f"gather: what was fetched cannot be used. {said}", details=error.details) from error
    dataset.project_id, dataset.name, dataset.upload_by = (
        run.project_id,
        f"{pipeline.name[:80]}-{run.id[3:9]}-new",
        run.created_by,
    )
    return dataset


async def _require_fit(dataset: Dataset, wanted: PipelineCreate, *, is_new: bool) -> None:
    """Raises InvalidInput, and keeps nothing, where the dataset is not for the pipeline's task type."""
    reason = pipelines.misfit(dataset, wanted.train.task_type)
    if reason is None and dataset.id != wanted.test_dataset_id:
        return
    if is_new:
        await anyio.to_thread.run_sync(artifact_store().delete, dataset.artifact)
    raise InvalidInput(
        f"gather: {reason or 'what was fetched is the test dataset; training on it would tell nothing.'}"
    )
