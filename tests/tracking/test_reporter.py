"""Which jobs a tracker is told of, when, and what a tracker that fails does to them: nothing."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text, update
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.errors import InvalidInput
from emissary.settings import Settings
from emissary.store import job_events, tracked_jobs
from emissary.store.database import dispose
from emissary.store.tables import Dataset, Organization, Project, TrackedJob, TrainingJob, User
from emissary.tracking import check
from emissary.tracking.facts import Facts
from emissary.tracking.reporter import Reporter
from tests.catalogue import in_catalogue
from tests.own_home import own_catalogue


class Remembering:
    """A tracker that keeps what it is told, or fails while it is `away`."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, int]] = []
        self.away = False

    def tell(self, job: Facts) -> None:
        if self.away:
            raise ConnectionError("mlflow.internal refused the connection")
        self.told.append((job.job_id, job.status, len({point.step for point in job.training})))


@pytest.fixture(scope="module", autouse=True)
def catalogue() -> Iterator[None]:
    with own_catalogue():
        yield


def job(job_id: str, status: str) -> TrainingJob:
    return TrainingJob(
        id=job_id, project_id="ms-1", name=job_id, training_technique="SFT", task_type="text-generation",
        base_model_option="pre-trained", base_model="SmolLM2-135M-Instruct", status=status, train_dataset_id="ds-1",
        test_functions=[], hyper_parameters={}, created_by="user-1",
    )  # fmt: skip


@pytest.fixture(autouse=True)
def rows() -> None:
    """Only the job `old`, which had ended before anything was told."""

    async def fill(session: AsyncSession) -> None:
        await session.execute(text("TRUNCATE organizations CASCADE"))
        for row in (
            Organization(id="org-1", name="ours"),
            User(id="user-1", organization_id="org-1", name="admin"),
            Project(id="ms-1", organization_id="org-1", name="support", created_by="user-1"),
            Dataset(
                id="ds-1", project_id="ms-1", name="tickets", file_name="t.jsonl", artifact="datasets/1", bytes=1,
                sha256="a", report={"rows": 3}, upload_by="user-1",
            ),
            job("old", "Success"),
        ):  # fmt: skip
            session.add(row)
            await session.flush()

    in_catalogue(fill)


async def _add(session: AsyncSession, status: str = "Running") -> None:
    session.add(job("new", status))
    await session.flush()
    await job_events.record_queued(session, "new")


async def _set(session: AsyncSession, *, ago: int = 0, **values: Any) -> None:
    changed = update(TrainingJob).where(TrainingJob.id == "new")
    await session.execute(changed.values(updated_at=text(f"now() - interval '{ago} seconds'"), **values))


async def _warnings(session: AsyncSession) -> list[dict[str, Any]]:
    return [row.details for row in await job_events.list_all(session, "new") if row.kind == "warning"]


def look(reporter: Reporter) -> None:
    async def once() -> None:
        try:
            await reporter.look()
        finally:
            await dispose()

    asyncio.run(once())


def test_job_is_told_when_there_is_something_new_and_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = Remembering()
    reporter = Reporter("mlflow", tracker)
    look(reporter)
    assert tracker.told == []  # what ended before is not dug up
    in_catalogue(_add)
    look(reporter)
    look(reporter)
    assert tracker.told == [("new", "Running", 0)]
    point = {"timestamp": 1, "step": 5, "epoch": 1.0, "loss": 0.5}
    in_catalogue(lambda session: _set(session, training_loss=[point]))
    look(reporter)
    assert tracker.told[1:] == [("new", "Running", 1)]
    in_catalogue(lambda session: _set(session, status="Cancelled"))
    look(reporter)
    assert tracker.told[2:] == []  # its process may write for some seconds yet
    in_catalogue(lambda session: _set(session, ago=10))
    look(Reporter("mlflow", tracker))  # another process goes on
    assert tracker.told[2:] == [("new", "Cancelled", 1)]
    look(Reporter("mlflow", tracker))
    look(Reporter("wandb", tracker))  # which had not heard of it
    assert len(tracker.told) == 3
    in_catalogue(lambda session: _set(session, status="Pending"))  # it is resumed
    look(reporter)
    assert tracker.told[3:] == [("new", "Pending", 1)]


def test_tracker_that_fails_is_warned_of_once_and_told_everything_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emissary.tracking.reporter.FIRST_WAIT_SECONDS", 0.0)
    tracker = Remembering()
    tracker.away = True
    reporter = Reporter("mlflow", tracker)
    in_catalogue(_add)
    look(reporter)
    look(reporter)
    (warning,) = in_catalogue(_warnings)
    assert (warning["about"], warning["tracker"]) == ("tracking", "mlflow")
    assert warning["message"].startswith("MLflow cannot be told of this job now. Training goes on")
    assert "internal" not in warning["message"]
    in_catalogue(lambda session: _set(session, status="Success", ago=10))
    look(reporter)
    tracker.away = False
    look(reporter)
    assert tracker.told == [("new", "Success", 0)]
    assert len(in_catalogue(_warnings)) == 1


def test_failed_report_waits_longer_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = Remembering()
    tracker.away = True
    reporter = Reporter("mlflow", tracker)
    in_catalogue(_add)
    look(reporter)
    assert 0 < reporter._waits["new"][1] <= 15
    tracker.away = False
    look(reporter)
    assert tracker.told == []


def test_deleted_job_is_forgotten() -> None:
    in_catalogue(_add)
    look(Reporter("mlflow", Remembering()))

    async def delete(session: AsyncSession) -> None:
        await session.execute(text("DELETE FROM job_events"))
        await session.execute(text("DELETE FROM training_jobs WHERE id = 'new'"))
        await tracked_jobs.told(session, "new", "mlflow", "Success")
        assert await session.get(TrackedJob, ("new", "mlflow")) is None

    in_catalogue(delete)


def test_tracker_that_is_not_there_is_refused_with_what_toin_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emissary.tracking.find_spec", lambda name: None if name == "wandb" else object())
    with pytest.raises(InvalidInput, match=r"names wandb, but the package wandb is not installed: pip install 'emis"):
        check(Settings(report_to="wandb"), {})  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="set MLFLOW_TRACKING_URI"):
        check(Settings(report_to="mlflow"), {})  # type: ignore[arg-type]
    check(Settings(report_to="mlflow"), {"MLFLOW_TRACKING_URI": "http://mlflow.internal:5000"})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="mlflow"):
        Settings(report_to="tensorboard")  # type: ignore[arg-type]
