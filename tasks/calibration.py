"""A training job counted and tried for a few steps, without anything of it being kept: what a dry run answers from.

A program of its own, for it needs what the API must not load: `python -m tasks.calibration FOLDER` reads the job's
columns from FOLDER/job.json, and writes there `counted.json`, then `measured.json`; or `refused.json` where the job
could not be trained.
"""

import asyncio
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import anyio.to_thread
import psutil
import torch
from sqlalchemy.ext.asyncio import AsyncSession

from emissary import model_files
from emissary.errors import EmissaryError
from emissary.hardware import device, memory_bytes
from emissary.processes import die_with_parent
from emissary.settings import settings
from emissary.store.tables import Dataset, TrainingJob
from tasks import auto_parameters
from tasks.catalogue import in_catalogue
from tasks.grpo_job import reward_trainer
from tasks.model_shape import model_shape
from tasks.preparing import all_warnings_of, prepare, training_and_test_rows
from tasks.row_lengths import row_lengths
from tasks.starting import starting_adapter
from tasks.training import pooled_task, trainer_of
from tasks.training_steps import Caller, Stopped

_STEPS = 6
_SECONDS = 20.0
"""After the first step, which is not like the others, measuring ends with so many steps or so many seconds."""
_PATIENCE_SECONDS = 100.0
"""So long after the beginning, on a machine that is slow or busy, the first step is measure enough."""


async def _calibrate(job: TrainingJob, folder: Path) -> None:
    job.train_dataset = await in_catalogue(AsyncSession.get_one, Dataset, job.train_dataset_id)
    train_key = await prepare.fn(job.train_dataset_id)
    test_key = await prepare.fn(job.test_dataset_id) if job.test_dataset_id else None
    train_rows, test_rows = await training_and_test_rows.fn(job, train_key, test_key)
    model_dir = model_files.local_folder(job.base_model, settings())
    assert model_dir is not None
    adapter_dir = await starting_adapter(job)
    task = pooled_task(job, train_rows, adapter_dir)
    parameters = dict(job.hyper_parameters)
    shape = model_shape(model_dir, job.task_type)
    train = row_lengths(train_rows, shape, parameters, task)
    test = row_lengths(test_rows, shape, parameters, task)
    chosen, why = auto_parameters.choose(parameters, shape, train.longest)
    parameters |= chosen
    needed = shape.training_bytes(
        parameters["lora_r"],
        parameters["per_device_train_batch_size"],
        max(train.longest) + parameters.get("max_completion_length", 0),
    )
    counted = {
        "hyper_parameters": parameters,
        "reason": why or None,
        "tokens": train.tokens * parameters["num_train_epochs"],
        "longest_row": max(train.longest),
        "truncated_rows": train.cut + test.cut,
        "warnings": [message for _, message in await all_warnings_of(job, train_rows, test_rows)],
    }
    if needed > memory_bytes():
        counted["note"] = (
            f"Not tried: a step takes about {needed / 2**30:.1f} GiB, and a training may take "
            f"{memory_bytes() / 2**30:.1f} GiB of this machine; lower per_device_train_batch_size or max_length."
        )
    _tell(folder, "counted", counted)
    if needed > memory_bytes():
        return
    warnings: dict[str, str] = {}
    if job.training_technique == "GRPO":
        parameters |= {"logging_steps": 1}  # with a point of the curve come the warnings of the rewards

        def on_warning(about: str, message: str, _tracebacks: Sequence[str]) -> None:
            warnings.setdefault(about, message)

        trainer = await reward_trainer(job, model_dir, adapter_dir, train_rows, on_warning, _nothing)
    else:
        trainer = partial(
            trainer_of(task), model_dir=model_dir, adapter_dir=adapter_dir, train_rows=train_rows, test_rows=[]
        )
    measured = await anyio.to_thread.run_sync(_measured, trainer, job.base_model, parameters)
    _tell(folder, "measured", measured | {"warnings": list(warnings.values())})


def _measured(trainer: Any, model_name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """What a step takes, by training a few."""
    ended: list[float] = []
    give_up = psutil.Process().create_time() + _PATIENCE_SECONDS

    def step(_share: float) -> None:
        ended.append(time.monotonic())  # the first time before the first step
        if len(ended) > 2 and (len(ended) > _STEPS + 1 or ended[-1] - ended[1] > _SECONDS):
            raise Stopped
        if len(ended) > 1 and time.time() > give_up:
            raise Stopped

    caller = Caller(_nothing, step, _nothing, _nothing, should_stop=lambda: False, should_save=lambda: False)
    with tempfile.TemporaryDirectory(prefix="emissary-calibration-") as scratch:
        trainer(model_name=model_name, parameters=parameters, work_dir=Path(scratch), caller=caller)
    # The first step has the longest rows, and what is done once.
    seconds = (ended[-1] - ended[1]) / (len(ended) - 2) if len(ended) > 2 else ended[1] - ended[0]
    on_gpu = device().type == "cuda"
    return {
        "step_seconds": seconds,
        "steps_measured": max(len(ended) - 2, 1),
        "memory_bytes": torch.cuda.max_memory_allocated()
        if on_gpu
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "device": torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} threads",
    }


def _nothing(_: object) -> None:
    return


def _tell(folder: Path, what: str, content: dict[str, Any]) -> None:
    partial_file = folder / f"{what}.partial"
    partial_file.write_text(json.dumps(content))
    partial_file.rename(folder / f"{what}.json")


def main(folder: Path) -> None:
    """Calibrate the job in `folder`."""
    die_with_parent()
    os.nice(15)
    job = TrainingJob(**json.loads((folder / "job.json").read_text()))
    try:
        asyncio.run(_calibrate(job, folder))
    except EmissaryError as error:
        _tell(folder, "refused", {"sentence": str(error), "code": error.code, "status": error.status})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
