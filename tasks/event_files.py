"""A job's curves and scores as an event file for TensorBoard, kept in the artifact store beside its checkpoints.

It is written anew from the catalogue, which has every step once: the file of a job that was killed and resumed, also on
another machine, has no gap and no step twice.
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import anyio.to_thread
from sqlalchemy.ext.asyncio import AsyncSession
from tensorboardX import SummaryWriter

from emissary.store import training_jobs
from emissary.store.artifacts import artifact_store
from emissary.store.tables import Checkpoint, TrainingJob
from emissary.tracking.facts import Point, checkpoint_points, training_points
from tasks.catalogue import in_catalogue
from tasks.patience import patiently
from tasks.publishing import publish


async def keep_event_file(job_id: str) -> None:
    """Publish the event file with what is known by now, in place of the one before."""
    job, checkpoints = await in_catalogue(_known, job_id)
    await anyio.to_thread.run_sync(_publish, job, checkpoints)


async def _known(session: AsyncSession, job_id: str) -> tuple[TrainingJob, Sequence[Checkpoint]]:
    return await training_jobs.get(session, job_id), await training_jobs.checkpoints(session, job_id)


def _publish(job: TrainingJob, checkpoints: Sequence[Checkpoint]) -> None:
    # What is known only grows, and the names sort by it.
    version = len(_points(job, checkpoints))
    prefix = f"training-jobs/{job.id}/tensorboard"
    with tempfile.TemporaryDirectory(prefix="emissary-events-") as folder:
        write(Path(folder), job, checkpoints)
        publish(f"{prefix}/{version:09d}", Path(folder), move=True)
    for old in sorted(patiently(artifact_store().keys, prefix))[:-1]:
        patiently(artifact_store().delete, old)


def write(folder: Path, job: TrainingJob, checkpoints: Sequence[Checkpoint]) -> None:
    """Write the event file: the curves of training by step, what is known of each checkpoint, the parameters."""
    with SummaryWriter(logdir=str(folder), max_queue=1000) as writer:
        writer.add_text("parameters", f"```\n{json.dumps(job.hyper_parameters, indent=2)}\n```")
        for point in _points(job, checkpoints):
            writer.add_scalar(point.name, point.value, point.step, walltime=point.at)
    (written,) = folder.iterdir()
    written.rename(folder / f"events.out.tfevents.{int(job.created_at.timestamp())}.{job.id}")


def _points(job: TrainingJob, checkpoints: Sequence[Checkpoint]) -> list[Point]:
    return [*training_points(job), *(point for row in checkpoints for point in checkpoint_points(row))]
