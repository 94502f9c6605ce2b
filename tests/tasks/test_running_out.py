import asyncio
import errno
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from emissary.errors import EmissaryError
from emissary.store import training_jobs
from emissary.store.pipeline_tables import PipelineRun
from emissary.store.tables import Checkpoint, Dataset, TrainingJob
from tasks import comparing, preparing, testing
from tasks.publishing import DiskFull
from tasks.running_out import SMALLER_TRAINING, OutOfMemory, told_what_ran_out

JOB = TrainingJob(id="tr-1", task_type="text-generation")


def running_out(technique: str = "SFT") -> AbstractContextManager[None]:
    return told_what_ran_out("what tr-1 trains", SMALLER_TRAINING[technique])


def told(error: Exception, technique: str = "SFT") -> Exception:
    with pytest.raises(Exception) as raised, running_out(technique):  # noqa: PT011 - which, is asked below
        raise error
    return raised.value


def test_allocation_that_torch_cannot_make_says_what_to_lower() -> None:
    with pytest.raises(OutOfMemory, match="Lower per_device_train_batch_size or max_length"), running_out():
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
    assert str(found).startswith("There is no room left for what tr-1 trains. Make room on the disk, and resume")


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


STEPS: dict[str, tuple[Any, str, Callable[[], Coroutine[Any, Any, Any]]]] = {
    "preparing": (preparing, "made_once", lambda: preparing.prepare.fn("ds-1")),
    "splitting": (preparing, "_rows", lambda: preparing.training_and_test_rows.fn(JOB, "prepared/1", None)),
    "testing": (testing, "load_model", lambda: testing.test_checkpoints.fn(JOB, Path(), [])),
    "comparing": (comparing, "_decide", lambda: comparing.compare.fn(PipelineRun(id="pr-1"), JOB)),
}


@pytest.mark.parametrize(
    ("error", "said"),
    [(MemoryError(), "Out of memory"), (OSError(errno.ENOSPC, "No space left"), "There is no room left")],
    ids=["memory", "disk"],
)
@pytest.mark.parametrize(("module", "broken", "run"), STEPS.values(), ids=STEPS)
def test_every_step_that_needs_much_says_what_ran_out(
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    broken: str,
    run: Callable[[], Coroutine[Any, Any, Any]],
    error: Exception,
    said: str,
) -> None:
    def run_out(*_: Any) -> None:
        raise error

    dataset = Dataset(sha256="1", file_name="rows.jsonl", report={})

    async def in_catalogue(work: Any, *_: Any, **__: Any) -> Any:
        if work is comparing._decided:
            return None
        return [Checkpoint(number=1)] if work is training_jobs.checkpoints else dataset

    monkeypatch.setattr(module, broken, run_out)
    monkeypatch.setattr(module, "in_catalogue", in_catalogue)
    with pytest.raises(EmissaryError, match=said):
        asyncio.run(run())
