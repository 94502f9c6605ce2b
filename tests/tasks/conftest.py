"""One uninterrupted training that several tests look at."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from tasks.sampled_completions import Rows
from tasks.training_steps import FinishedCheckpoint, LossPoint
from tests.short_model import short_model_dir
from tests.tasks.sft_run import run


@dataclass
class Trained:
    """What a training reported, and its folder."""

    work_dir: Path
    points: list[LossPoint] = field(default_factory=list)
    progress: list[float] = field(default_factory=list)
    checkpoints: list[FinishedCheckpoint] = field(default_factory=list)
    tables: list[Rows] = field(default_factory=list)


@pytest.fixture(scope="package", autouse=True)
def single_thread() -> Iterator[None]:
    """Threads that wait for each other are many times slower on cores that others use too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def model_dir() -> Path:
    """Folder of the base model of these trainings."""
    return short_model_dir()


@pytest.fixture(scope="package")
def trained(single_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    done = Trained(tmp_path_factory.mktemp("trained"))
    run(
        done.work_dir,
        on_log=done.points.append,
        on_progress=done.progress.append,
        on_checkpoint=done.checkpoints.append,
    )
    return done
