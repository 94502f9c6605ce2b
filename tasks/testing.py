"""The testing step: every checkpoint answers every test row, the testing functions score the answers."""

import gc
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from sqlalchemy.ext.asyncio import AsyncSession

from blocks.sandbox import score_rows
from blocks.sandbox_replies import RowScore, TestingFailed
from emissary.serving.generation import Generator
from emissary.serving.pooled import PooledModel
from emissary.settings import settings
from emissary.store import job_events, testing_functions, training_jobs
from emissary.store.artifacts import artifact_store
from emissary.store.tables import Checkpoint, TrainingJob
from emissary.testing_function_files import goodness, is_trusted
from tasks import job_artifacts
from tasks.attempt import Interrupted, end_if_interrupted, raise_if_interrupted
from tasks.catalogue import in_catalogue
from tasks.checkpoint_testing import (
    Results,
    answer_rows,
    last_question,
    published_results,
    read_results,
    write_results,
)
from tasks.job_artifacts import TRAINED
from tasks.pooled_testing import Predictions, predict_rows
from tasks.publishing import publish
from tasks.serving import load_model


@task(task_run_name="test-checkpoints", cache_policy=NO_CACHE)
async def test_checkpoints(job: TrainingJob, model_dir: Path, rows: list[Any]) -> None:
    """Test the checkpoints that are not tested yet, with the base model loaded once."""
    checkpoints = await in_catalogue(training_jobs.checkpoints, job.id)
    waiting = [checkpoint for checkpoint in checkpoints if checkpoint.results_artifact is None]
    if not waiting:
        return
    await in_catalogue(job_events.record, job.id, "testing")
    progress = job_artifacts.Progress(job.id)
    model = await anyio.to_thread.run_sync(load_model, model_dir, job.task_type)
    for checkpoint in waiting:
        first = TRAINED + (100 - TRAINED) * checkpoints.index(checkpoint) / len(checkpoints)
        share = (99 - TRAINED) / len(checkpoints)

        def show(done: float, first: float = first, share: float = share) -> None:
            anyio.from_thread.run(progress.update, first + done * share)

        try:
            await test_checkpoint(job, checkpoint, model, rows, show)
        except Interrupted:
            end_if_interrupted()
            raise
    del model
    gc.collect()
    job_artifacts.show_checkpoints(job.id)


async def test_checkpoint(
    job: TrainingJob,
    checkpoint: Checkpoint,
    model: Generator | PooledModel,
    rows: list[Any],
    on_progress: Callable[[float], None],
) -> None:
    """Have the checkpoint answer `rows`, and publish and record how it did; `model` is the base model.

    `on_progress` gets the share of rows answered. Raises Interrupted when the run is to stop.
    """
    key = f"training-jobs/{job.id}/results/{checkpoint.number}"
    results = await anyio.to_thread.run_sync(published_results, key)
    if results is None:
        folder = await anyio.to_thread.run_sync(artifact_store().folder, checkpoint.artifact)
        results = await tested_adapter(job, model, rows, f"checkpoint-{checkpoint.number}", folder, key, on_progress)
    await in_catalogue(_record_results, job, checkpoint, key, results)
    job_artifacts.show_plots(job, checkpoint.number, results.plots)
    measured = results.means | (results.report or {}).get("metrics", {})
    shown = ", ".join(f"{name} {value:.4f}" for name, value in measured.items() if value is not None)
    get_run_logger().info("checkpoint %d: %s", checkpoint.number, shown)


async def tested_adapter(
    job: TrainingJob,
    model: Generator | PooledModel,
    rows: list[Any],
    adapter: str,
    folder: Path | None,
    key: str,
    on_progress: Callable[[float], None],
) -> Results:
    """Have the adapter in `folder` (None: the base model `model` itself) answer `rows`, and publish under `key` how it
    did by the job's testing functions.

    `on_progress` gets the share of rows answered. Raises Interrupted when the run is to stop.
    """
    if folder is not None:
        model.load_adapter(adapter, folder)
    name = None if folder is None else adapter
    tested, predictions = await anyio.to_thread.run_sync(partial(_answers, job, model, rows, name, on_progress))
    if folder is not None:
        model.unload_adapter(adapter)
    scored = await _score(job, tested)
    with tempfile.TemporaryDirectory(prefix="emissary-results-") as scratch:
        await anyio.to_thread.run_sync(partial(_write, Path(scratch), tested, scored, predictions))
        results = read_results(Path(scratch))
        await anyio.to_thread.run_sync(partial(publish, key, Path(scratch)))
    return results


def _write(
    folder: Path,
    tested: list[tuple[str, str, str]],
    scored: dict[str, list[RowScore]],
    predictions: Predictions | None,
) -> None:
    # Here, for with it comes scikit-learn: a third of a second before a run's first step.
    from tasks import checkpoint_report

    scores = {name: [row.score for row in rows] for name, rows in scored.items()}
    errors = {name: [row.traceback or row.error for row in rows] for name, rows in scored.items()}
    write_results(folder, tested, scores, predictions, errors)
    if predictions is None:
        checkpoint_report.of_texts(tested, scores).write(folder)
    else:
        checkpoint_report.of_predictions(predictions).write(folder)


async def _record_results(
    session: AsyncSession, job: TrainingJob, checkpoint: Checkpoint, key: str, results: Results
) -> None:
    await training_jobs.record_checkpoint(
        session,
        job.id,
        checkpoint.number,
        artifact=checkpoint.artifact,
        scores=results.means,
        report=results.report,
        results_artifact=key,
    )
    metrics = (results.report or {}).get("metrics", {})
    await job_events.record(
        session, job.id, "tested", {"checkpoint": checkpoint.number}, scores=results.means, metrics=metrics
    )


def _answers(
    job: TrainingJob,
    model: Generator | PooledModel,
    rows: list[Any],
    adapter: str | None,
    on_progress: Callable[[float], None],
) -> tuple[list[tuple[str, str, str]], Predictions | None]:
    """(input, expected output, output) of each row, and the numbers behind them, which text generation has none of.

    Raises Interrupted when the run is to stop.
    """

    def progress(share: float) -> None:
        raise_if_interrupted()
        on_progress(share)

    if isinstance(model, PooledModel):
        return predict_rows(model, rows, adapter, progress)
    outputs = answer_rows(model, rows, adapter, job.hyper_parameters["max_new_tokens"], progress)
    tested = [
        (last_question(row), row["messages"][-1]["content"], output) for row, output in zip(rows, outputs, strict=True)
    ]
    return tested, None


async def _score(job: TrainingJob, tested: list[tuple[str, str, str]]) -> dict[str, list[RowScore]]:
    """Each testing function's score per row, or its error; the run's log tells of errors."""
    scored: dict[str, list[RowScore]] = {}
    for function in await in_catalogue(testing_functions.of_job, job):
        try:
            scored[function.name] = await score_rows(
                function,
                tested,
                seconds=settings().testing_seconds,
                row_seconds=settings().testing_row_seconds,
                isolation=settings().sandbox,
                trusted=is_trusted(function.name),
            )
        except TestingFailed as error:
            if error.traceback:
                get_run_logger().error("testing function %s: %s", function.name, error.traceback)
            raise
        failed = [row for row in scored[function.name] if row.error is not None]
        if failed:
            told = "testing function %s failed on %d of %d rows, which have no score of it; the first: %s"
            first = failed[0].traceback or failed[0].error
            get_run_logger().warning(told, function.name, len(failed), len(tested), first)
    return scored


@task(task_run_name="pick-best", cache_policy=NO_CACHE)
async def pick_best(job: TrainingJob) -> int | None:
    """Record the best checkpoint; None when nothing was tested, so that no choice would mean anything."""
    number = await in_catalogue(_pick_best, job)
    job_artifacts.show_checkpoints(job.id)
    return number


async def _pick_best(session: AsyncSession, job: TrainingJob) -> int | None:
    number = best(await training_jobs.checkpoints(session, job.id), job.test_functions)
    if number is not None:
        await training_jobs.record_best(session, job.id, number)
        await job_events.record(session, job.id, "best", {"checkpoint": number})
    return number


def best(checkpoints: Sequence[Checkpoint], functions: list[str]) -> int | None:
    """The checkpoint with the best mean of the first testing function, which is the highest, or of an error the lowest;
    ties go to the lower test loss, then to the earlier one. None when none has a score or a test loss.
    """
    first = functions[0] if functions else None
    tested = [row for row in checkpoints if row.test_loss is not None or (first and row.scores)]
    if not tested:
        return None

    def rank(row: Checkpoint) -> tuple[float, float, int]:
        scores = row.scores or {}
        worse = 0.0 if first is None else -goodness(first, scores[first]) if first in scores else float("inf")
        return (worse, row.test_loss if row.test_loss is not None else float("inf"), row.number)

    return min(tested, key=rank).number
