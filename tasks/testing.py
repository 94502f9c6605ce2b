"""The testing step: every checkpoint answers every test row, the testing functions score the answers."""

import gc
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
from blocks.sandbox_replies import RowScore, TestingFailed, raise_if_many_failed
from emissary.errors import EmissaryError, NotFound
from emissary.judges import AnyFunction, JudgeFunction
from emissary.serving.generation import Generator
from emissary.serving.pooled import PooledModel
from emissary.settings import settings
from emissary.store import job_events, testing_functions, training_jobs
from emissary.store.artifacts import CorruptArtifact, artifact_store
from emissary.store.tables import Checkpoint, TrainingJob
from emissary.testing_function_files import goodness, is_trusted
from tasks import job_artifacts, judging
from tasks.answer_samples import answer_samples
from tasks.attempt import Interrupted, end_if_interrupted, raise_if_interrupted
from tasks.catalogue import in_catalogue
from tasks.checkpoint_testing import (
    Results,
    published_results,
    read_results,
    read_scores,
    results_of,
    write_results,
    write_summary,
)
from tasks.job_artifacts import TRAINED
from tasks.patience import patiently
from tasks.pooled_testing import Predictions, predict_rows
from tasks.publishing import publish
from tasks.running_out import SMALLER_TESTS, told_what_ran_out
from tasks.serving import load_model
from tasks.text_answers import answer_rows, last_question

_ADAPTER = "under-test"
_ANSWERED_BY_BASE = ("text-generation", "embedding")
"""Task types for which a base model has all it needs; classification and regression need a head, which it has not."""


@task(task_run_name="test-checkpoints", cache_policy=NO_CACHE)
async def test_checkpoints(job: TrainingJob, model_dir: Path, rows: list[Any]) -> None:
    """Test the checkpoints that are not tested yet, and the base model, which is loaded once."""
    checkpoints = await in_catalogue(training_jobs.checkpoints, job.id)
    waiting = [checkpoint for checkpoint in checkpoints if checkpoint.results_artifact is None]
    if not waiting:
        return
    await in_catalogue(job_events.record, job.id, "testing")
    progress = job_artifacts.Progress(job.id)
    begun = 1 - len(waiting) / len(checkpoints)

    def show(share: float) -> None:
        anyio.from_thread.run(progress.update, TRAINED + (99 - TRAINED) * (begun + (1 - begun) * share))

    try:
        with told_what_ran_out(f"the test results of {job.id}", SMALLER_TESTS):
            model = await anyio.to_thread.run_sync(load_model, model_dir, job.task_type)
            await test_some(job, waiting, model, rows, show)
    except Interrupted:
        end_if_interrupted()
        raise
    del model
    gc.collect()
    job_artifacts.show_checkpoints(job.id)


async def test_some(
    job: TrainingJob,
    checkpoints: Sequence[Checkpoint],
    model: Generator | PooledModel,
    rows: list[Any],
    on_progress: Callable[[float], None],
) -> None:
    """Have `checkpoints` answer `rows`, and publish and record how each did as soon as it has; `model` is the base
    model, which answers them first, once in the life of a job, where there is something to compare.

    `on_progress` gets the share of all answers that are there. Raises Interrupted when the run is to stop.
    """
    base = [None] if job.test_functions and job.task_type in _ANSWERED_BY_BASE else []
    untested: list[Checkpoint | None] = []
    key_of = partial(_key, await in_catalogue(results_of, job))
    for tested in (*base, *checkpoints):
        results = await anyio.to_thread.run_sync(published_results, key_of(tested))
        if results is None:
            untested.append(tested)
        elif tested is not None:
            await _record(job, tested, results, key_of(tested))
    artifacts = [None if tested is None else tested.artifact for tested in untested]
    answers = _answers(job, model, rows, artifacts, on_progress)
    for tested in untested:
        answered, predictions = await anyio.to_thread.run_sync(next, answers)
        key = key_of(tested)
        results = await _published(job, key, key_of(None), answered, predictions, forgiving=tested is None)
        await _record(job, tested, results, key)


async def test_adapter(
    job: TrainingJob, model: Generator | PooledModel, rows: list[Any], artifact: str | None, key: str
) -> Results:
    """Have the adapter `artifact` (None: the base model `model` itself) answer `rows`, and publish under `key` how it
    did by the job's testing functions.

    Raises Interrupted when the run is to stop.
    """
    answers = _answers(job, model, rows, [artifact], lambda _: None)
    answered, predictions = await anyio.to_thread.run_sync(next, answers)
    base_key = _key(await in_catalogue(results_of, job), None)
    return await _published(job, key, base_key, answered, predictions, forgiving=artifact is None)


async def _published(
    job: TrainingJob,
    key: str,
    base_key: str,
    answered: list[tuple[str, str, str]],
    predictions: Predictions | None,
    *,
    forgiving: bool,
) -> Results:
    """What the testing functions say of the answers, from now on under `key`, compared with what `base_key` has."""
    scored = await _score(job, answered, forgiving=forgiving)
    with tempfile.TemporaryDirectory(prefix="emissary-results-") as folder:
        scratch = Path(folder)
        await anyio.to_thread.run_sync(partial(_write, base_key, scratch, answered, scored, predictions))
        results = read_results(scratch)
        await anyio.to_thread.run_sync(partial(publish, key, scratch))
    return results


def _key(results: str, tested: Checkpoint | None) -> str:
    return f"{results}/{'base' if tested is None else tested.number}"


def _write(
    base_key: str,
    folder: Path,
    answered: list[tuple[str, str, str]],
    scored: dict[str, list[RowScore]],
    predictions: Predictions | None,
) -> None:
    # Here, for with them come scikit-learn and SciPy: a third of a second before a run's first step.
    from tasks import checkpoint_report, score_summary

    scores = {name: [row.score for row in rows] for name, rows in scored.items()}
    errors = {name: [row.traceback or row.error for row in rows] for name, rows in scored.items()}
    write_results(folder, answered, scores, predictions, errors)
    try:
        base = read_scores(patiently(artifact_store().folder, base_key), list(scores))
    except NotFound:  # the base model is not tested, or just now
        base = {}
    write_summary(folder, score_summary.summary(answered, scores, base))
    if predictions is None:
        checkpoint_report.of_texts(answered, scores).write(folder)
    else:
        checkpoint_report.of_predictions(predictions).write(folder)


async def _record(job: TrainingJob, tested: Checkpoint | None, results: Results, key: str) -> None:
    name = "base model" if tested is None else f"checkpoint {tested.number}"
    if tested is not None:
        await in_catalogue(_record_results, job, tested, results, key)
        job_artifacts.show_plots(job, tested.number, results.plots)
    measured = results.means | (results.report or {}).get("metrics", {})
    shown = ", ".join(f"{metric} {value:.4f}" for metric, value in measured.items() if value is not None)
    get_run_logger().info("%s: %s", name, shown)


async def _record_results(
    session: AsyncSession, job: TrainingJob, checkpoint: Checkpoint, results: Results, key: str
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
    tested = {"checkpoint": checkpoint.number, "scores": results.means}
    await job_events.record(session, job.id, "tested", tested, metrics=metrics)


def _answers(
    job: TrainingJob,
    model: Generator | PooledModel,
    rows: list[Any],
    artifacts: Sequence[str | None],
    on_progress: Callable[[float], None],
) -> Iterator[tuple[list[tuple[str, str, str]], Predictions | None]]:
    """Of each adapter, in their order (None: the base model): (input, expected output, output) of each row, and the
    numbers behind them, which text generation has none of.

    Raises Interrupted when the run is to stop.
    """

    def progress(done: int, share: float) -> None:
        raise_if_interrupted()
        on_progress((done + share) / len(artifacts))

    def tell_of_cut(cut: int) -> None:
        key = {"max_new_tokens": max_new_tokens}
        anyio.from_thread.run(partial(in_catalogue, job_events.record, job.id, "truncated", key, rows=cut))

    folders = (None if artifact is None else _adapter(job, artifact) for artifact in artifacts)
    if isinstance(model, PooledModel):
        for done, folder in enumerate(folders):
            with _loaded(model, folder) as adapter:
                yield predict_rows(model, rows, adapter, partial(progress, done))
        return
    asked = [(last_question(row), row["messages"][-1]["content"]) for row in rows]
    max_new_tokens = job.hyper_parameters["max_new_tokens"]
    for outputs in answer_rows(
        model, rows, folders, max_new_tokens, lambda answered: progress(0, answered / len(rows)), tell_of_cut
    ):
        yield [(*texts, output) for texts, output in zip(asked, outputs, strict=True)], None


def _adapter(job: TrainingJob, artifact: str) -> Path:
    try:
        return patiently(artifact_store().folder, artifact)
    except (NotFound, CorruptArtifact) as error:
        if artifact.startswith(f"training-jobs/{job.id}/"):
            raise EmissaryError(f"{error} Resume the job, which trains it again.", code=error.code) from error
        raise


@contextmanager
def _loaded(model: PooledModel, folder: Path | None) -> Iterator[str | None]:
    """The name of the adapter in `folder`, which is loaded meanwhile; None without one."""
    if folder is None:
        yield None
        return
    model.load_adapter(_ADAPTER, folder)
    try:
        yield _ADAPTER
    finally:
        model.unload_adapter(_ADAPTER)


async def _score(
    job: TrainingJob, answered: list[tuple[str, str, str]], *, forgiving: bool
) -> dict[str, list[RowScore]]:
    """Each testing function's score per row, or its error; the run's log tells of errors.

    Raises TestingFailed where a function fails on too many rows; `forgiving`, it has no scores then.
    """
    log = get_run_logger()
    scored: dict[str, list[RowScore]] = {}
    for function in await in_catalogue(testing_functions.of_job, job):
        try:
            scored[function.name] = await _scores(function, answered)
        except TestingFailed as error:
            if forgiving:
                log.warning("The base model's answers have no scores of %s: %s", function.name, error)
                scored[function.name] = [RowScore(None, str(error), traceback=error.traceback)] * len(answered)
                continue
            if error.traceback:
                log.error("testing function %s: %s", function.name, error.traceback)
            raise
        failed = [row for row in scored[function.name] if row.error is not None]
        if failed:
            told = "testing function %s failed on %d of %d rows, which have no score of it; the first: %s"
            first = failed[0].traceback or failed[0].error
            log.warning(told, function.name, len(failed), len(answered), first)
    return scored


async def _scores(function: AnyFunction, answered: list[tuple[str, str, str]]) -> list[RowScore]:
    if isinstance(function, JudgeFunction):
        scores = await judging.score(function, answered)
        raise_if_many_failed(function.name, scores, len(answered))
        return scores
    return await score_rows(
        function,
        answered,
        seconds=settings().testing_seconds,
        row_seconds=settings().testing_row_seconds,
        isolation=settings().sandbox,
        trusted=is_trusted(function.name),
    )


@task(task_run_name="pick-best", cache_policy=NO_CACHE)
async def pick_best(job: TrainingJob) -> int | None:
    """Record the best checkpoint; None when nothing was tested, so that no choice would mean anything."""
    number = await in_catalogue(_pick_best, job)
    job_artifacts.show_checkpoints(job.id)
    if number is not None:
        results = await in_catalogue(results_of, job)
        job_artifacts.show_answers(job, await anyio.to_thread.run_sync(answer_samples, job, results, number))
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
