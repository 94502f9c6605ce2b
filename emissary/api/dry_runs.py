"""What a training job would be and take, asked before it is created: nothing of it is kept.

Rows are counted and steps tried by a process of its own, a nice one, for that takes what the API must not load; and it
is ended with the request, or when it takes too long.
"""

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from sqlalchemy import inspect
from starlette.concurrency import run_in_threadpool

from emissary import model_files
from emissary.errors import EmissaryError, Unavailable
from emissary.job_size import checkpoint_steps, epoch_steps, row_numbers
from emissary.schemas.dry_runs import TrainingJobEstimate, TrainingJobPlan
from emissary.schemas.parameters import AUTO
from emissary.settings import PROJECT_ROOT, settings
from emissary.store.tables import TrainingJob

AT_ONCE = 1
SECONDS = 180.0
PATIENCE_SECONDS = 20.0
_slots = asyncio.Semaphore(AT_ONCE)


async def plan(job: TrainingJob) -> TrainingJobPlan:
    """What `job`, loaded with its datasets and not in the catalogue, would be and take.

    Raises what its training would raise before its first step, and Unavailable where other dry runs keep it waiting.
    """
    if await run_in_threadpool(model_files.local_folder, job.base_model, settings()) is None:
        why = await run_in_threadpool(model_files.incomplete, job.base_model, settings())
        here = f"The files of {job.base_model} are not on the API's machine yet" + (f"; {why}" if why else "")
        note = f"{here}: `emissary models pull`, and ask again."
        return _plan(job, {}, None, note)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await _slots.acquire()
    except TimeoutError:
        raise Unavailable(
            f"{AT_ONCE} dry run is going on, as many as this API does at once; try again in a minute.", code="busy"
        ) from None
    try:
        with tempfile.TemporaryDirectory(prefix="emissary-dry-run-") as folder:
            return await _calibrated(job, Path(folder))
    finally:
        _slots.release()


async def _calibrated(job: TrainingJob, folder: Path) -> TrainingJobPlan:
    columns = {column.key: getattr(job, column.key) for column in inspect(TrainingJob).column_attrs}
    datasets = {"train_dataset_id": job.train_dataset.id, "test_dataset_id": job.test_dataset and job.test_dataset.id}
    (folder / "job.json").write_text(json.dumps(columns | datasets))
    code = await _run(folder)
    if (refused := _read(folder, "refused")) is not None:
        error = EmissaryError(refused["sentence"], refused["code"])
        error.status = refused["status"]
        raise error
    counted, measured = _read(folder, "counted"), _read(folder, "measured")
    note = (counted or {}).get("note")
    if measured is None and note is None:
        why = f"it took longer than {SECONDS:.0f} s" if code is None else f"it ended with code {code}"
        note = f"Not {'tried' if counted else 'counted'}: {why}."
        if code in (-9, 137):
            note = "Not tried: the system ended it, most likely for lack of memory; lower per_device_train_batch_size."
    return _plan(job, counted or {}, measured, note)


async def _run(folder: Path) -> int | None:
    """Run the program to its end and return its exit code; None where it took too long."""
    database = {"EMISSARY_DATABASE_URL": str(settings().database_url), "EMISSARY_HOME": str(settings().home)}
    command = (sys.executable, "-m", "tasks.calibration", str(folder))
    silent = asyncio.subprocess.DEVNULL
    environment = os.environ | database | {"TMPDIR": str(folder)}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=PROJECT_ROOT, env=environment, stdin=silent, stdout=silent
    )
    try:
        async with asyncio.timeout(SECONDS):
            return await process.wait()
    except TimeoutError:
        return None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _read(folder: Path, what: str) -> dict[str, Any] | None:
    file = folder / f"{what}.json"
    return dict(json.loads(file.read_text())) if file.exists() else None


def _plan(
    job: TrainingJob, counted: dict[str, Any], measured: dict[str, Any] | None, note: str | None
) -> TrainingJobPlan:
    parameters = counted.get("hyper_parameters", job.hyper_parameters)
    rows, test_rows = row_numbers(job)
    steps = checkpoints = estimate = None
    if parameters["per_device_train_batch_size"] != AUTO:
        steps = parameters["num_train_epochs"] * epoch_steps(parameters, rows)
        checkpoints = -(-steps // checkpoint_steps(parameters, rows)) if steps else 0
    warnings = counted.get("warnings", [])
    if measured is not None:
        warnings += measured.pop("warnings")
        if steps is not None:
            estimate = TrainingJobEstimate(training_seconds=steps * measured["step_seconds"], **measured)
    return TrainingJobPlan(
        training_technique=job.training_technique,
        task_type=job.task_type,
        base_model=job.base_model,
        hyper_parameters=parameters,
        reason=counted.get("reason"),
        train_rows=rows,
        test_rows=test_rows,
        steps=steps,
        checkpoints=checkpoints,
        tokens=counted.get("tokens"),
        longest_row=counted.get("longest_row"),
        truncated_rows=counted.get("truncated_rows"),
        estimate=estimate,
        warnings=warnings,
        note=note,
    )
