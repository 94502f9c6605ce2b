"""Hyperparameters that are `auto`, or more than the model takes: chosen from model, data and memory, once per job."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio.to_thread

from emissary import base_models
from emissary.hardware import memory_bytes
from emissary.job_size import epoch_steps
from emissary.schemas.parameters import AUTO
from emissary.serving.adapter_task import AdapterTask
from emissary.store import training_jobs
from emissary.store.tables import TrainingJob
from tasks.catalogue import in_catalogue
from tasks.model_shape import ModelShape, model_shape
from tasks.row_lengths import row_lengths

LEARNING_RATE, BATCH_SIZE = "learning_rate", "per_device_train_batch_size"
_MANY, _FEW = 32, 4
_STEPS = 100


async def settle(job: TrainingJob, model_dir: Path, train_rows: Sequence[Any], task: AdapterTask | None) -> None:
    """Choose what is still to be chosen of the job, and keep it, so that the run goes on with the same wherever it is
    resumed.
    """
    # What the catalogue's models take was looked at when the job was made.
    if AUTO not in (job.hyper_parameters[LEARNING_RATE], job.hyper_parameters[BATCH_SIZE]) and (
        job.base_model in base_models.catalogue()
    ):
        return

    def chosen() -> tuple[dict[str, Any], str]:
        shape = model_shape(model_dir, job.task_type)
        return choose(job.hyper_parameters, shape, row_lengths(train_rows, shape, job.hyper_parameters, task).longest)

    values, why = await anyio.to_thread.run_sync(chosen)
    if not values:
        return
    job.hyper_parameters = await in_catalogue(training_jobs.settle_parameters, job.id, values, why)


def choose(parameters: Mapping[str, Any], shape: ModelShape, lengths: Sequence[int]) -> tuple[dict[str, Any], str]:
    """Values of the parameters that are `auto`, and of a max_length that is more than the model's context; and why
    these. `lengths` are the training rows' tokens.

    Rows per forward pass: a power of two, at most 32 (LoRA bears large batches worse than full fine-tuning; Schulman
    et al., "LoRA Without Regret", 2025), so that the job has 100 optimizer steps or more, though not below 4 for that;
    then halved until a pass over rows of the longest one's length fits into the memory, see
    `ModelShape.training_bytes`.

    Learning rate: 5e-4 × (2000 / hidden size)^0.781, ten times that of full fine-tuning (the rule of the same authors,
    fitted for Llama models in their tinker-cookbook; the best rate does not depend on the rank, since the update is
    scaled by alpha / rank), 1.5 times that in a job of fewer than 100 steps; times 32 / lora_alpha, as the rule is for
    an alpha of 32; times the square root of rows per step / 32 (Malladi et al., 2022, arXiv:2205.10330). At most 0.01.
    """
    chosen: dict[str, Any] = {}
    why, resolved = [], dict(parameters)
    if parameters["max_length"] > shape.context:
        chosen["max_length"] = shape.context
        why.append(f"The model takes {_counted(shape.context, 'token')}, not {parameters['max_length']}.")
    if parameters[BATCH_SIZE] == AUTO:
        size, reason = _batch_size(parameters, shape, lengths)
        chosen[BATCH_SIZE] = resolved[BATCH_SIZE] = size
        why.append(reason)
    if parameters[LEARNING_RATE] == AUTO:
        rate, reason = _learning_rate(resolved, shape, len(lengths))
        chosen[LEARNING_RATE] = rate
        why.append(reason)
    return chosen, " ".join(why)


def _batch_size(parameters: Mapping[str, Any], shape: ModelShape, lengths: Sequence[int]) -> tuple[int, str]:
    longest = max(lengths)
    enough = parameters["num_train_epochs"] * len(lengths) / parameters["gradient_accumulation_steps"] / _STEPS
    by_steps = min(_MANY, max(_FEW, 2 ** math.floor(math.log2(max(enough, 1)))))
    room, size = memory_bytes(), by_steps
    while size > 1 and shape.training_bytes(parameters["lora_r"], size, longest) > room:
        size //= 2
    epochs, rows = parameters["num_train_epochs"], len(lengths)
    reason = f"{_counted(size, 'row')} per pass: {by_steps} by {_counted(rows, 'row')} and {_counted(epochs, 'epoch')}"
    if size < by_steps:
        reason += f", less for the memory of {room / 2**30:.1f} GiB at {longest} tokens a row"
    return size, reason + "."


def _learning_rate(parameters: Mapping[str, Any], shape: ModelShape, rows: int) -> tuple[float, str]:
    per_step = parameters[BATCH_SIZE] * parameters["gradient_accumulation_steps"]
    steps = parameters["num_train_epochs"] * epoch_steps(parameters, rows)
    multiple = 15 if steps < _STEPS else 10
    width = (2000 / shape.hidden_size) ** 0.781
    rate = multiple * 5e-5 * width * 32 / parameters["lora_alpha"] * math.sqrt(per_step / 32)
    rate = float(f"{min(rate, 0.01):.2g}")
    return rate, (
        f"Learning rate {rate:g}: {multiple} × 5e-5, × {width:.3g} for {shape.hidden_size} hidden units, × 32 / "
        f"lora_alpha {parameters['lora_alpha']}, × √({per_step} rows per step / 32)."
    )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")
