"""The training step: runs the trainer in a thread and tells catalogue and store what comes of it."""

import shutil
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from emissary.settings import settings
from emissary.store import job_events, training_jobs
from emissary.store.artifacts import artifact_store
from emissary.store.database import transaction
from emissary.store.tables import TrainingJob
from tasks import job_artifacts
from tasks.pooled_rows import task_of
from tasks.pooled_training import train_pooled
from tasks.sft_training import train_sft
from tasks.training_steps import FinishedCheckpoint, LossPoint

PREPARED, TRAINED = 5, 75
"""Percent of the whole job that is done after preparing and after training; testing takes the rest."""


@task(task_run_name="train", cache_policy=NO_CACHE)
async def train(job: TrainingJob, model_dir: Path, train_rows: list[Any], test_rows: list[Any]) -> None:
    """Train the job's adapter, listing each epoch's checkpoint when it is published; goes on where it was killed."""
    trainer = _trainer(job, train_rows)
    await run_trainer(job, partial(trainer, model_dir=model_dir, train_rows=train_rows, test_rows=test_rows))


async def run_trainer(job: TrainingJob, trainer: Callable[..., int]) -> None:
    """Run `trainer`, which takes what `train_sft` takes beyond model folder and rows, and record what it reports."""
    log = get_run_logger()
    store = artifact_store()
    work_dir = settings().home / "work" / job.id
    work_dir.mkdir(parents=True, exist_ok=True)
    progress = await job_artifacts.Progress.start(job.id)

    async def record_log(point: LossPoint) -> None:
        values = asdict(point)
        log.info("step %d, epoch %.2f: %s", point.step, point.epoch, described(values))
        async with transaction() as session:
            await training_jobs.record_loss(session, job.id, values)

    async def record_progress(share: float) -> None:
        await progress.update(PREPARED + share * (TRAINED - PREPARED))

    async def record_checkpoint(checkpoint: FinishedCheckpoint) -> None:
        losses = {"train_loss": checkpoint.train_loss, "test_loss": checkpoint.test_loss}
        if job.training_technique == "SFT":  # the others' checkpoints are no epochs
            async with transaction() as session:
                await job_events.record(session, job.id, "epoch", {"epoch": checkpoint.number}, **losses)
        key = f"training-jobs/{job.id}/checkpoints/{checkpoint.number}"
        await anyio.to_thread.run_sync(partial(store.publish, key, checkpoint.folder))
        async with transaction() as session:
            await training_jobs.record_checkpoint(
                session,
                job.id,
                checkpoint.number,
                artifact=key,
                **losses,
            )
            await job_events.record(session, job.id, "checkpoint", {"checkpoint": checkpoint.number})
        await job_artifacts.publish_loss_curve(job.id)

    from_thread = anyio.from_thread.run
    cut = await anyio.to_thread.run_sync(
        partial(
            trainer,
            model_name=job.base_model,
            parameters=dict(job.hyper_parameters),
            work_dir=work_dir,
            on_log=partial(_call, from_thread, record_log),
            on_progress=partial(_call, from_thread, record_progress),
            on_checkpoint=partial(_call, from_thread, record_checkpoint),
            should_stop=lambda: False,
        )
    )
    if cut:
        log.warning("%d rows were longer than max_length and were cut to it", cut)


def _trainer(job: TrainingJob, train_rows: list[Any]) -> Callable[..., int]:
    if job.task_type == "text-generation":
        return train_sft
    return partial(train_pooled, task=task_of(job.task_type, job.train_dataset.report, train_rows))


def described(values: dict[str, Any]) -> str:
    """A point of the loss curve but for where it is, in one line: "loss 0.1234, rewards/accuracy 0.5"."""
    flat: dict[str, float | None] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= {f"{name}/{key}": number for key, number in value.items()}
        elif name not in ("timestamp", "step", "epoch", "learning_rate"):
            flat[name] = value
    return ", ".join(f"{name} {value:.4f}" for name, value in flat.items() if value is not None)


def _call(from_thread: Any, record: Any, value: Any) -> None:
    from_thread(record, value)


def forget_trainer_state(job_id: str) -> None:
    """Remove what only a resumption would need, once the job is done."""
    shutil.rmtree(settings().home / "work" / job_id, ignore_errors=True)
