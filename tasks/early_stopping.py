"""Training that ends before its last epoch, because a metric has not become better for some epochs."""

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio.to_thread

from emissary.schemas.parameters import TEST_LOSS
from emissary.store import job_events, training_jobs
from emissary.store.tables import Checkpoint, TrainingJob
from emissary.testing_function_files import goodness
from tasks.attempt import Interrupted
from tasks.catalogue import in_catalogue
from tasks.serving import load_model
from tasks.testing import test_some


async def ends_with(job: TrainingJob, model_dir: Path, test_rows: list[Any], number: int) -> bool:
    """Whether the training of `job` ends with its checkpoint `number`, which is listed, because the metric of no
    checkpoint of the last `early_stopping_patience` was better than those before; or because the run is to stop.

    It depends on the checkpoints up to `number` alone, so a run that was killed decides the same again. Where the
    metric is a testing function, the checkpoint is tested now, with the base model loaded a second time, unless it is;
    before the first one so is the base model.
    """
    metric = job.hyper_parameters["early_stopping_metric"]
    patience = job.hyper_parameters["early_stopping_patience"]
    if metric != TEST_LOSS and not await _tested(job, model_dir, test_rows, number):
        return True
    rows = [row for row in await in_catalogue(training_jobs.checkpoints, job.id) if row.number <= number]
    values = [_value(row, metric) for row in rows]
    if epochs_since_best(values) < patience:
        return False
    best = rows[-1 - epochs_since_best(values)].number
    details = {"metric": metric, "patience": patience, "best": best}
    await in_catalogue(job_events.record, job.id, "stopped_early", {"epoch": number}, **details)
    return True


def epochs_since_best(values: Sequence[float]) -> int:
    """How many of `values`, of which more is better, follow the best one, the first of equal ones."""
    return len(values) - 1 - values.index(max(values))


def _value(checkpoint: Checkpoint, metric: str) -> float:
    """The metric of a checkpoint, so that more is better; of one that could not be scored less than any."""
    if metric == TEST_LOSS:
        return float("-inf") if checkpoint.test_loss is None else -checkpoint.test_loss
    score = (checkpoint.scores or {}).get(metric)
    return float("-inf") if score is None else goodness(metric, score)


async def _tested(job: TrainingJob, model_dir: Path, test_rows: list[Any], number: int) -> bool:
    """Test the checkpoint unless it is tested; False when the run is to stop first."""
    (checkpoint,) = [row for row in await in_catalogue(training_jobs.checkpoints, job.id) if row.number == number]
    if checkpoint.results_artifact is not None:
        return True
    model = await anyio.to_thread.run_sync(load_model, model_dir, job.task_type)
    try:
        await test_some(job, [checkpoint], model, test_rows, lambda _share: None)
    except Interrupted:
        return False
    finally:
        del model
        gc.collect()
    return True
