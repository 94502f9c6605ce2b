"""Running out of memory or of room on the disk, told with what to do about it."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from safetensors import SafetensorError

from emissary.errors import EmissaryError
from tasks.publishing import DiskFull

FEWER_ROWS = "Use a dataset with fewer rows"
SMALLER_TESTS = "Lower max_new_tokens, or test on shorter rows"
SMALLER_TRAINING = {
    "SFT": "Lower per_device_train_batch_size or max_length",
    "GRPO": "Lower per_device_train_batch_size, num_generations or max_completion_length",
}
"""Training technique to what needs less memory."""


class OutOfMemory(EmissaryError):
    """The machine, or its GPU, has too little memory for the job."""

    code = "out_of_memory"


@contextmanager
def told_what_ran_out(what: str, smaller: str) -> Iterator[None]:
    """Raises OutOfMemory or DiskFull in place of the errors with which Python and torch tell of them.

    `what` needs room on the disk, as in "the test results of tr-1"; `smaller`, the beginning of a sentence, says what
    needs less memory.
    """
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise _out_of_memory(smaller) from error
    except RuntimeError as error:
        # torch has no class for these two: its CPU allocator's, and its file writer's.
        if "can't allocate memory" in str(error):
            raise _out_of_memory(smaller) from error
        if "PytorchStreamWriter failed" in str(error):
            raise DiskFull(what) from error
        raise
    except SafetensorError as error:
        if f"(os error {errno.ENOSPC})" in str(error):
            raise DiskFull(what) from error
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(what) from error
        raise


def _out_of_memory(smaller: str) -> OutOfMemory:
    return OutOfMemory(f"Out of memory. {smaller}, or run it on a machine with more memory; then start it again.")
