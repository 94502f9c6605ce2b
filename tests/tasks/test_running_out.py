import errno

import pytest
import torch
from safetensors import SafetensorError

from emissary.errors import EmissaryError
from emissary.store.tables import TrainingJob
from tasks.publishing import DiskFull
from tasks.running_out import OutOfMemory, told_what_ran_out


def job(technique: str = "SFT") -> TrainingJob:
    return TrainingJob(id="tr-1", training_technique=technique)


def told(error: Exception, technique: str = "SFT") -> Exception:
    with pytest.raises(Exception) as raised, told_what_ran_out(job(technique)):  # noqa: PT011 - which, is asked below
        raise error
    return raised.value


def test_allocation_that_torch_cannot_make_says_what_to_lower() -> None:
    with pytest.raises(OutOfMemory, match="Lower per_device_train_batch_size or max_length"), told_what_ran_out(job()):
        torch.empty(2**60, dtype=torch.uint8)


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_each_way_of_running_out_of_memory_is_known(error: Exception) -> None:
    assert isinstance(told(error), OutOfMemory)
    assert "num_generations" in str(told(error, "GRPO"))


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:672] . PytorchStreamWriter failed writing file data/1"),
    ],
)
def test_full_disk_is_told_with_what_to_do(error: Exception) -> None:
    found = told(error)
    assert isinstance(found, DiskFull)
    assert "Make room on the disk, and resume the job" in str(found)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shapes differ"),
        SafetensorError("header too large"),
        OSError(errno.EACCES, "denied"),
        EmissaryError("x"),
    ],
)
def test_other_errors_stay_as_they_are(error: Exception) -> None:
    assert told(error) is error
