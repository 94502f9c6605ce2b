"""A job's checkpoints: published with their losses, then listed; and which of them a run that goes on need not make."""

import logging
from collections.abc import Collection

import anyio.to_thread
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.store import job_events, training_jobs
from emissary.store.artifacts import CorruptArtifact, Notes, artifact_store
from emissary.store.tables import TrainingJob
from tasks.catalogue import in_catalogue
from tasks.checkpoint_testing import results_of
from tasks.patience import patiently
from tasks.publishing import publish
from tasks.training_steps import FinishedCheckpoint

logger = logging.getLogger(__name__)


async def keep(job: TrainingJob, made: FinishedCheckpoint) -> None:
    """Publish a checkpoint, and list it."""
    losses: Notes = {"train_loss": made.train_loss, "test_loss": made.test_loss}
    # With its losses, so that a run which is killed before it is listed need not measure them again.
    await anyio.to_thread.run_sync(publish, _key(job.id, made.number), made.folder, losses)
    await in_catalogue(_list, job, made.number, losses)


async def known(job: TrainingJob) -> tuple[set[int], set[int]]:
    """Numbers of the checkpoints that need not be made again, all of which are listed from now on; and of listed ones
    that must be, since they are not tested yet and are missing in the store, or damaged. Those that were tested by
    other functions than the job's as they are now count as not tested.
    """
    await in_catalogue(training_jobs.forget_results, job.id, await in_catalogue(results_of, job))
    rows = await in_catalogue(training_jobs.checkpoints, job.id)
    listed = {row.number for row in rows}
    tested = {row.number for row in rows if row.results_artifact is not None}
    whole = await anyio.to_thread.run_sync(_whole, job.id, tested)
    # Without losses it is of a version that did not note them; listed it has them in the catalogue.
    unlisted = {number for number in whole.keys() - listed if "train_loss" in whole[number]}
    for number in sorted(unlisted):
        await in_catalogue(_list, job, number, whole[number])
    return tested | unlisted | (listed & whole.keys()), listed - tested - whole.keys()


def _whole(job_id: str, tested: Collection[int]) -> dict[int, Notes]:
    """Number and notes of each checkpoint in the store, but for those that are `tested`, which are not looked at;
    damaged ones are removed.
    """
    store = artifact_store()
    found: dict[int, Notes] = {}
    for key in patiently(store.keys, _key(job_id)):
        number = int(key.rpartition("/")[2])
        if number in tested:
            continue
        try:
            patiently(store.folder, key)
            manifest = patiently(store.manifest, key)
        except CorruptArtifact as error:
            logger.warning("%s", error)
            patiently(store.delete, key)
            continue
        if manifest is not None:
            found[number] = manifest.notes
    return found


def _key(job_id: str, *number: int) -> str:
    return "/".join(["training-jobs", job_id, "checkpoints", *map(str, number)])


async def _list(session: AsyncSession, job: TrainingJob, number: int, losses: Notes) -> None:
    if job.training_technique == "SFT":  # the others' checkpoints are no epochs
        await job_events.record(session, job.id, "epoch", {"epoch": number}, **losses)
    await training_jobs.record_checkpoint(session, job.id, number, artifact=_key(job.id, number), **losses)
    await job_events.record(session, job.id, "checkpoint", {"checkpoint": number})
