"""Test rows among those to train on, told before a pipeline is made: of datasets that it names, and no large ones."""

from collections.abc import Iterable
from contextlib import suppress

import anyio
import anyio.to_thread

from emissary.data.inputs import COLUMNS, fingerprint, input_text, require_apart
from emissary.data.normalise import records
from emissary.errors import NotFound
from emissary.schemas.pipelines import PipelineCreate
from emissary.schemas.sources import DatasetsSource, TrafficSource
from emissary.store import pipelines, prepared
from emissary.store.artifacts import CorruptArtifact, artifact_store
from emissary.store.database import transaction
from emissary.store.tables import Dataset

MOST_BYTES = 16 * 1024 * 1024
"""More is left to the runs: who makes a pipeline does not wait for it."""
_THREADS = anyio.CapacityLimiter(2)


class _TooLarge(Exception):
    """They are more than `MOST_BYTES`."""


async def check(project_id: str, wanted: PipelineCreate) -> None:
    """Raises InvalidInput, listing them, where test rows are among those of the datasets that the pipeline names by id,
    and as `pipelines.named`. Says nothing where either side is larger than `MOST_BYTES`, or its files are not there.
    """
    source = wanted.gather
    chosen = source.datasets if isinstance(source, DatasetsSource | TrafficSource) else None
    if wanted.test_dataset_id is None or not isinstance(chosen, list):
        return
    async with transaction() as session:
        training = await pipelines.named(session, project_id, wanted, chosen, "gather.datasets")
        test = await session.get(Dataset, wanted.test_dataset_id)
    if test is None or test.project_id != project_id:
        return
    with suppress(_TooLarge, NotFound, CorruptArtifact):
        known = set(await anyio.to_thread.run_sync(_fingerprints, training, limiter=_THREADS))
        asked = await anyio.to_thread.run_sync(_fingerprints, [test], limiter=_THREADS)
        leaked = [index for index, each in enumerate(asked) if each in known]
        require_apart(leaked, len(asked), test.id)


def _fingerprints(datasets: Iterable[Dataset]) -> list[int]:
    """Of the inputs of all rows, in order. Raises _TooLarge, NotFound, CorruptArtifact."""
    datasets = list(datasets)
    if sum(row.bytes for row in datasets) > MOST_BYTES:
        raise _TooLarge
    found: list[int] = []
    size = 0
    for row in datasets:
        (path,) = (each for each in artifact_store().folder(row.artifact).iterdir() if each.stem == "original")
        for portion in records(path, row.file_name, prepared.only(row)):
            size += portion.nbytes
            if size > MOST_BYTES:  # unpacked it is more than the file
                raise _TooLarge
            found += (fingerprint(input_text(each)) for each in portion.select(COLUMNS).to_pylist())
    return found
