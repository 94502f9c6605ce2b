"""What a job's next run makes again of its checkpoints, on a real catalogue and with a trainer of a few lines."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from emissary.store import training_jobs
from emissary.store.artifacts import artifact_store
from emissary.store.tables import Checkpoint, TrainingJob
from tasks import job_artifacts, job_checkpoints, training
from tasks.checkpoint_testing import results_of
from tasks.publishing import publish
from tasks.training import run_trainer
from tasks.training_steps import Caller, FinishedCheckpoint, once_each
from tests.api.backends import Backends

LAST = 3


class Killed(Exception):
    """Stands for a kill."""


@dataclass
class Trainer:
    """Trains a checkpoint a step; notes the steps that it takes and the checkpoints that it makes."""

    steps: list[int] = field(default_factory=list)
    made: list[int] = field(default_factory=list)

    def __call__(self, *, work_dir: Path, caller: Caller, **_: Any) -> int:
        def make(number: int, folder: Path) -> FinishedCheckpoint:
            self.made.append(number)
            folder.mkdir(parents=True)
            (folder / "adapter.bin").write_text(f"weights {number}")
            return FinishedCheckpoint(number, folder, float(number), 1 / number, 2 / number)

        finish = once_each(work_dir, caller, make)
        begin = max((int(path.name[11:]) for path in (work_dir / "trainer").glob("*")), default=0)
        if begin:
            finish(begin)
        for step in range(begin + 1, LAST + 1):
            self.steps.append(step)
            state = work_dir / "trainer" / f"checkpoint-{step}"
            state.mkdir(parents=True)
            (state / "optimizer.pt").write_text(f"state {step}")
            caller.on_state(state)
            finish(step)
        return 0


@pytest.fixture
def job(backends: Backends, monkeypatch: pytest.MonkeyPatch) -> TrainingJob:
    """A job whose runs show nothing in Prefect."""
    monkeypatch.setattr(training, "get_run_logger", lambda: logging.getLogger("run"))
    monkeypatch.setattr(job_artifacts, "report", lambda *_: None)
    return backends.job(backends.new_job())


def trained(backends: Backends, job: TrainingJob) -> Trainer:
    """The trainer of a run of the job."""
    trainer = Trainer()
    backends.run(run_trainer(job, trainer))
    return trainer


def listed(backends: Backends, job: TrainingJob) -> Sequence[Checkpoint]:
    return backends.catalogue(lambda session: training_jobs.checkpoints(session, job.id))


def in_store(backends: Backends, work: Callable[[], Any]) -> Any:
    async def inside() -> Any:
        return work()

    return backends.run(inside())


def damage(backends: Backends, job: TrainingJob, number: int) -> Path:
    key = f"training-jobs/{job.id}/checkpoints/{number}"
    file: Path = in_store(backends, lambda: artifact_store().file(key, "adapter.bin"))
    file.write_text("damaged")
    return file


def test_published_checkpoint_that_is_not_listed_is_listed_with_its_losses_and_not_made_again(
    backends: Backends, job: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:

        async def kill(*_: Any) -> None:
            raise Killed

        patch.setattr(job_checkpoints, "_list", kill)
        with pytest.raises(Killed):
            trained(backends, job)
    assert listed(backends, job) == []
    again = trained(backends, job)
    assert (again.steps, again.made) == ([2, 3], [2, 3])
    losses = [(row.number, row.train_loss, row.test_loss) for row in listed(backends, job)]
    assert losses == [(1, 1.0, 2.0), (2, 1 / 2, 1.0), (3, 1 / 3, 2 / 3)]


@pytest.mark.parametrize("is_listed", [True, False])
def test_checkpoint_whose_losses_were_not_noted_is_made_again_only_where_it_is_not_listed(
    backends: Backends, job: TrainingJob, monkeypatch: pytest.MonkeyPatch, is_listed: bool
) -> None:
    def publish_without_notes(key: str, folder: Path, _notes: Any) -> None:
        publish(key, folder)

    async def kill(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(job_checkpoints, "publish", publish_without_notes)
        if is_listed:
            trained(backends, job)
        else:
            patch.setattr(job_checkpoints, "_list", kill)
            with pytest.raises(Killed):
                trained(backends, job)
    again = trained(backends, job)
    assert (again.steps, again.made) == (([], []) if is_listed else ([2, 3], [1, 2, 3]))
    assert [row.number for row in listed(backends, job)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("number", "steps"), [(1, [1, 2, 3]), (2, [3]), (3, [])], ids=["the first", "in the middle", "the last"]
)
def test_damaged_checkpoint_of_a_trained_job_is_made_again_from_the_state_before_it(
    backends: Backends, job: TrainingJob, number: int, steps: list[int]
) -> None:
    trained(backends, job)
    file = damage(backends, job, number)
    again = trained(backends, job)
    assert (again.steps, again.made) == (steps, [number])
    assert file.read_text() == f"weights {number}"
    assert trained(backends, job) == Trainer()


def test_run_that_is_killed_while_it_makes_a_damaged_checkpoint_again_goes_on_with_that(
    backends: Backends, job: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(backends, job)
    file = damage(backends, job, 2)
    with monkeypatch.context() as patch:

        async def kill(*_: Any) -> None:
            raise Killed

        patch.setattr(job_checkpoints, "keep", kill)
        with pytest.raises(Killed):
            trained(backends, job)
    again = trained(backends, job)
    assert (again.steps, again.made) == ([3], [2])
    assert file.read_text() == "weights 2"


def test_damaged_checkpoint_that_is_tested_is_left(backends: Backends, job: TrainingJob) -> None:
    trained(backends, job)
    damage(backends, job, 1)
    key = backends.catalogue(lambda session: results_of(session, job))
    results = {"artifact": "x", "results_artifact": f"{key}/1"}
    backends.catalogue(lambda session: training_jobs.record_checkpoint(session, job.id, 1, **results))
    assert trained(backends, job) == Trainer()


def test_checkpoint_that_was_tested_by_other_functions_is_trained_again_where_it_is_damaged(
    backends: Backends, job: TrainingJob
) -> None:
    trained(backends, job)
    damage(backends, job, 1)
    results = {"artifact": "x", "results_artifact": f"training-jobs/{job.id}/results/of-others/1", "scores": {"f": 1.0}}
    backends.catalogue(lambda session: training_jobs.record_checkpoint(session, job.id, 1, **results))
    assert trained(backends, job).made == [1]
    (first, *_) = backends.catalogue(lambda session: training_jobs.checkpoints(session, job.id))
    assert (first.results_artifact, first.scores) == (None, None)


def test_other_number_of_threads_is_told(
    backends: Backends, job: TrainingJob, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    threads = torch.get_num_threads()
    trained(backends, job)
    damage(backends, job, 3)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 1)
    with caplog.at_level(logging.WARNING, "run"):
        trained(backends, job)
    assert f"goes on in {threads + 1} threads, before in {threads}: its bytes may differ" in caplog.text
