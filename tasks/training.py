"""The training step: runs the trainer in a thread and tells catalogue and store what comes of it."""

import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread
import torch
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from emissary.serving import adapter_task
from emissary.serving.adapter_task import AdapterTask
from emissary.store import job_events, training_jobs
from emissary.store.tables import TrainingJob
from tasks import auto_parameters, job_artifacts, job_checkpoints
from tasks.attempt import end_if_interrupted, must_save, must_stop
from tasks.catalogue import in_catalogue
from tasks.early_stopping import ends_with
from tasks.event_files import keep_event_file
from tasks.job_artifacts import PREPARED, TRAINED
from tasks.pooled_rows import task_of
from tasks.pooled_training import train_pooled
from tasks.running_out import SMALLER_TRAINING, told_what_ran_out
from tasks.sft_training import train_sft
from tasks.starting import starting_adapter
from tasks.trainer_states import publish_state, restore
from tasks.training_steps import Caller, FinishedCheckpoint, LossPoint

T = TypeVar("T")
R = TypeVar("R")


@task(task_run_name="train", cache_policy=NO_CACHE)
async def train(job: TrainingJob, model_dir: Path, train_rows: list[Any], test_rows: list[Any]) -> None:
    """Train the job's adapter, listing each epoch's checkpoint when it is published; goes on where it was killed."""
    adapter_dir = await starting_adapter(job)
    task = pooled_task(job, train_rows, adapter_dir)
    await auto_parameters.settle(job, model_dir, train_rows, task)
    trainer = partial(trainer_of(task), model_dir=model_dir, adapter_dir=adapter_dir)
    may_end = (
        partial(ends_with, job, model_dir, test_rows) if job.hyper_parameters.get("early_stopping_patience") else None
    )
    await run_trainer(job, partial(trainer, train_rows=train_rows, test_rows=test_rows), may_end)


async def run_trainer(
    job: TrainingJob,
    trainer: Callable[..., int],
    may_end: Callable[[int], Coroutine[Any, Any, bool]] | None = None,
) -> None:
    """Run `trainer`, which takes what `train_sft` takes beyond model folder and rows, and record what it reports;
    nothing where an earlier run of the job came to its end and what it made is whole.

    `may_end` says of a listed checkpoint whether training ends with it; without it, it goes on to its last epoch.

    Raises DiskFull and OutOfMemory with a sentence, and what `end_if_interrupted` raises.
    """
    complete, lost = await job_checkpoints.known(job)
    # The states may be gone by now: a job forgets them a moment before it ends.
    if not lost and await in_catalogue(job_events.happened, job.id, "trained"):
        return
    log = get_run_logger()
    if lost:
        numbers = ", ".join(map(str, sorted(lost)))
        log.warning("Missing in the artifact store or damaged, so trained again: checkpoint %s", numbers)
    progress = job_artifacts.Progress(job.id)

    async def record_log(point: LossPoint) -> None:
        values = asdict(point)
        log.info("step %d, epoch %.2f: %s", point.step, point.epoch, described(values))
        await in_catalogue(training_jobs.record_loss, job.id, values)

    async def record_progress(share: float) -> None:
        await progress.update(PREPARED + share * (TRAINED - PREPARED))

    async def record_state(folder: Path) -> None:
        await anyio.to_thread.run_sync(publish_state, job.id, folder, complete)
        await in_catalogue(training_jobs.record_completion, job.id)

    async def record_checkpoint(checkpoint: FinishedCheckpoint) -> None:
        await job_checkpoints.keep(job, checkpoint)
        complete.add(checkpoint.number)
        await keep_event_file(job.id)
        job_artifacts.show_loss_curve(job.id)

    caller = Caller(
        on_log=_from_thread(record_log),
        on_progress=_from_thread(record_progress),
        on_state=_from_thread(record_state),
        on_checkpoint=_from_thread(record_checkpoint),
        should_stop=must_stop,
        should_save=must_save,
        ends_with=_from_thread(may_end) if may_end is not None else lambda _number: False,
    )
    told = told_what_ran_out(f"what {job.id} trains", SMALLER_TRAINING[job.training_technique])
    with tempfile.TemporaryDirectory(prefix="emissary-train-") as folder, told:
        work_dir = Path(folder)
        restored = await anyio.to_thread.run_sync(restore, job.id, complete, work_dir)
        if restored is not None:
            log.info("Training goes on after step %d", restored.step)
            if restored.threads not in (None, torch.get_num_threads()):
                differs = (
                    "Training goes on in %d threads, before in %s: its bytes may differ from those without a break"
                )
                log.warning(differs, torch.get_num_threads(), restored.threads)
        cut = await anyio.to_thread.run_sync(
            partial(
                trainer,
                model_name=job.base_model,
                parameters=dict(job.hyper_parameters),
                work_dir=work_dir,
                caller=caller,
            )
        )
    end_if_interrupted()
    if cut:
        log.warning("%d rows were longer than max_length and were cut to it", cut)
        max_length = job.hyper_parameters["max_length"]
        await in_catalogue(job_events.record, job.id, "truncated", {"max_length": max_length}, rows=cut)
    await in_catalogue(job_events.record, job.id, "trained")


def _from_thread(record: Callable[[T], Coroutine[Any, Any, R]]) -> Callable[[T], R]:
    return lambda value: anyio.from_thread.run(record, value)


def pooled_task(job: TrainingJob, train_rows: list[Any], adapter_dir: Path | None) -> AdapterTask | None:
    """What the outputs of the adapter that the job trains mean; None for text generation."""
    if job.task_type == "text-generation":
        return None
    if adapter_dir is not None:  # its head keeps the order of its labels, or the unit of its output
        return adapter_task.read(adapter_dir)
    return task_of(job.task_type, job.train_dataset.report, train_rows)


def trainer_of(task: AdapterTask | None) -> Callable[..., int]:
    """The supervised training for `task`, None being text generation."""
    return train_sft if task is None else partial(train_pooled, task=task)


def described(values: dict[str, Any]) -> str:
    """A point of the loss curve but for where it is, in one line: "loss 0.1234, rewards/accuracy 0.5"."""
    flat: dict[str, float | None] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= {f"{name}/{key}": number for key, number in value.items()}
        elif name not in ("timestamp", "step", "epoch", "learning_rate"):
            flat[name] = value
    return ", ".join(f"{name} {value:.4f}" for name, value in flat.items() if value is not None)
