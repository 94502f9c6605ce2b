"""The adapter that a training job starts from."""

from pathlib import Path

import anyio.to_thread

from emissary.store import starts
from emissary.store.artifacts import artifact_store
from emissary.store.tables import TrainingJob
from tasks.catalogue import in_catalogue
from tasks.patience import patiently


async def starting_adapter(job: TrainingJob) -> Path | None:
    """Folder of the checkpoint that the job goes on from; None where it starts from the base model alone."""
    key = await in_catalogue(starts.adapter, job)
    return None if key is None else await anyio.to_thread.run_sync(patiently, artifact_store().folder, key)
