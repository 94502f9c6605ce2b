"""How large a training job is: its rows and its steps."""

import math
from collections.abc import Mapping
from typing import Any

from emissary.data.rebalancing import row_counts
from emissary.data.splitting import downsampled, held_out
from emissary.store.tables import TrainingJob


def row_numbers(job: TrainingJob) -> tuple[int, int]:
    """The numbers of rows that the job, loaded with its datasets, trains and tests on."""
    rows = job.train_dataset.report["rows"]
    if job.test_dataset is not None:
        test = job.test_dataset.report["rows"]
    else:
        test = held_out(rows, job.train_test_split_ratio) if job.train_test_split_ratio is not None else 0
        rows -= test
    rows = downsampled(rows, job.hyper_parameters["downsample_size"])
    if job.rebalance_data:
        rows = sum(row_counts(job.rebalance_data, job.train_dataset.report["class_counts"], rows).values())
    return rows, test


def epoch_steps(parameters: Mapping[str, Any], rows: int) -> int:
    """Optimizer steps of an epoch over `rows` training rows; by GRPO each takes its prompts whole, and the rest of
    the rows is left out.
    """
    batch: int = parameters["per_device_train_batch_size"]
    accumulated: int = parameters["gradient_accumulation_steps"]
    if (generations := parameters.get("num_generations")) is not None:
        return int(rows // (batch * accumulated // generations))
    return math.ceil(math.ceil(rows / batch) / accumulated)


def checkpoint_steps(parameters: Mapping[str, Any], rows: int) -> int:
    """Optimizer steps between two checkpoints: an epoch, by GRPO `save_steps` when that is sooner."""
    steps = epoch_steps(parameters, rows)
    return min(int(parameters["save_steps"]), steps) if "num_generations" in parameters else steps
