"""Running out of memory or of room on the disk, told with what to do about it."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from safetensors import SafetensorError

from emissary.errors import EmissaryError
from emissary.store.tables import TrainingJob
from tasks.publishing import DiskFull

_SMALLER = {
    "SFT": "Lower per_device_train_batch_size or max_length",
    "GRPO": "Lower per_device_train_batch_size, num_generations or max_completion_length",
}


class OutOfMemory(EmissaryError):
    """The machine, or its GPU, has too little memory for the job."""

    code = "out_of_memory"


@contextmanager
def told_what_ran_out(job: TrainingJob) -> Iterator[None]:
    """Raises OutOfMemory or DiskFull in place of the errors with which Python and torch tell of them."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise _out_of_memory(job) from error
    except RuntimeError as error:
        # torch has no class for these two: its CPU allocator's, and its file writer's.
        if "can't allocate memory" in str(error):
            raise _out_of_memory(job) from error
        if "PytorchStreamWriter failed" in str(error):
            raise DiskFull(f"the trainer state of {job.id}") from error
        raise
    except SafetensorError as error:
        if f"(os error {errno.ENOSPC})" in str(error):
            raise DiskFull(f"what {job.id} trains") from error
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"what {job.id} trains") from error
        raise


def _out_of_memory(job: TrainingJob) -> OutOfMemory:
    return OutOfMemory(
        f"Out of memory. {_SMALLER[job.training_technique]}, or run it on a machine with more memory, and create the "
        "job again."
    )
