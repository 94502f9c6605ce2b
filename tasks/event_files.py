"""A job's curves and scores as an event file for TensorBoard, kept in the artifact store beside its checkpoints.

It is written anew from the catalogue, which has every step once: the file of a job that was killed and resumed, also on
another machine, has no gap and no step twice.
"""

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio.to_thread
from sqlalchemy.ext.asyncio import AsyncSession
from tensorboardX import SummaryWriter

from emissary.store import training_jobs
from emissary.store.artifacts import artifact_store
from emissary.store.tables import Checkpoint, TrainingJob
from tasks.catalogue import in_catalogue
from tasks.publishing import publish


async def keep_event_file(job_id: str) -> None:
    """Publish the event file with what is known by now, in place of the one before."""
    job, checkpoints = await in_catalogue(_known, job_id)
    await anyio.to_thread.run_sync(_publish, job, checkpoints)


async def _known(session: AsyncSession, job_id: str) -> tuple[TrainingJob, Sequence[Checkpoint]]:
    return await training_jobs.get(session, job_id), await training_jobs.checkpoints(session, job_id)


def _publish(job: TrainingJob, checkpoints: Sequence[Checkpoint]) -> None:
    # What is known only grows, and the names sort by it.
    version = len(job.training_loss) + len(checkpoints) + sum(len(row.scores or {}) for row in checkpoints)
    prefix = f"training-jobs/{job.id}/tensorboard"
    with tempfile.TemporaryDirectory(prefix="emissary-events-") as folder:
        write(Path(folder), job, checkpoints)
        publish(f"{prefix}/{version:09d}", Path(folder), move=True)
    for old in sorted(artifact_store().keys(prefix))[:-1]:
        artifact_store().delete(old)


def write(folder: Path, job: TrainingJob, checkpoints: Sequence[Checkpoint]) -> None:
    """Write the event file: the curves of training by step, losses and mean scores by checkpoint, the parameters."""
    with SummaryWriter(logdir=str(folder), max_queue=1000) as writer:
        writer.add_text("parameters", f"```\n{json.dumps(job.hyper_parameters, indent=2)}\n```")
        for point in sorted(job.training_loss, key=lambda point: point["step"]):
            for name, value in curves(point):
                writer.add_scalar(f"train/{name}", value, point["step"], walltime=point["timestamp"])
        for row in checkpoints:
            losses = {"loss/train": row.train_loss, "loss/test": row.test_loss}
            scores = {f"score/{name}": score for name, score in (row.scores or {}).items()}
            for name, value in (losses | scores).items():
                if value is not None:
                    writer.add_scalar(f"checkpoint/{name}", value, row.number, walltime=row.created_at.timestamp())
    (written,) = folder.iterdir()
    written.rename(folder / f"events.out.tfevents.{int(job.created_at.timestamp())}.{job.id}")


def curves(point: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The names and values of a point of the loss curve, but for where it is."""
    for name, value in point.items():
        if isinstance(value, dict):
            yield from curves(value, f"{prefix}{name}/")
        elif value is not None and name not in ("timestamp", "step"):
            yield f"{prefix}{name}", float(value)
