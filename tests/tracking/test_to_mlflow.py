"""Jobs told to a real tracking store, and read back by MLflow's own client."""

import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.tracking.jobs import CREATED, MOMENTS, job_at, renamed

pytest.importorskip("mlflow", reason="NOT TESTED: telling MLflow. `make trackers` installs it.")

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException

from emissary.tracking.to_mlflow import Mlflow


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def store(uri: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> MlflowClient:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", request.node.name)
    return MlflowClient()


def runs(store: MlflowClient) -> list[Run]:
    experiment = store.get_experiment_by_name(os.environ["MLFLOW_EXPERIMENT_NAME"])
    return list(store.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL))


def curve(store: MlflowClient, run: Run, name: str) -> list[tuple[int, float]]:
    history: list[Any] = store.get_metric_history(run.info.run_id, name)
    return sorted((point.step, point.value) for point in history)


def test_life_of_a_job_is_one_run_with_each_point_once(store: MlflowClient) -> None:
    """Each time by another process, as after a kill."""
    for moment in MOMENTS:
        Mlflow().tell(moment)
    (run,) = runs(store)
    assert (run.info.run_name, run.info.status) == ("triage", "FINISHED")
    assert run.info.start_time == int(CREATED.timestamp() * 1000)
    assert curve(store, run, "train/loss") == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3)), (4, 0.25)]
    assert curve(store, run, "train/rewards/exact_match_shared") == [(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4)]
    assert curve(store, run, "checkpoint/loss/test") == [(1, 2.0), (2, 1.0)]
    assert curve(store, run, "checkpoint/score/exact_match_shared") == [(1, 0.25), (2, 0.5)]
    assert curve(store, run, "checkpoint/metric/chrf") == [(1, 0.125), (2, 0.25)]
    expected = {
        "lora_r": "2", "learning_rate": "0.01", "base_model": "SmolLM2-135M-Instruct", "train_dataset_id": "ds-1",
        "test_dataset": "tickets-test", "reward/exact_match_shared": "1.0",
    }  # fmt: skip
    assert {name: run.data.params[name] for name in expected} == expected
    assert run.data.tags["emissary.organization"] == "ours"
    assert run.data.tags["emissary.best_checkpoint"] == "2"
    assert run.data.tags["emissary.checkpoint.2"].endswith("/artifacts/training-jobs/tr-1/checkpoints/2")


@pytest.mark.parametrize(("status", "shown"), [("Failed", "FAILED"), ("TimedOut", "FAILED"), ("Cancelled", "KILLED")])
def test_end_is_told_and_a_resumed_job_goes_on_in_its_run(store: MlflowClient, status: str, shown: str) -> None:
    tracker = Mlflow()
    tracker.tell(job_at(2))
    tracker.tell(job_at(2, status, checkpoints=1))
    (run,) = runs(store)
    assert run.info.status == shown
    assert run.info.end_time
    tracker.tell(job_at(3, checkpoints=1))
    (run,) = runs(store)
    assert (run.info.status, curve(store, run, "train/epoch")) == ("RUNNING", [(1, 0.5), (2, 1.0), (3, 1.5)])


def test_run_that_somebody_deleted_there_is_left_alone(store: MlflowClient) -> None:
    Mlflow().tell(job_at(1))
    Mlflow().tell(renamed(job_at(1), "tr-2"))
    assert len(runs(store)) == 2
    deleted = next(run for run in runs(store) if run.data.tags["emissary.job_id"] == "tr-1")
    store.delete_run(deleted.info.run_id)
    Mlflow().tell(job_at(2, "Success"))
    assert len(runs(store)) == 2
    assert [run.info.run_id for run in runs(store) if run.info.lifecycle_stage == "deleted"] == [deleted.info.run_id]


def test_what_was_told_while_it_failed_is_sent_the_next_time(
    store: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Mlflow()
    tracker.tell(job_at(1))
    sent: Callable[..., None] = tracker._client.log_batch

    def breaks(run_id: str, *, metrics: Any = (), **more: Any) -> None:
        sent(run_id, metrics=list(metrics)[:3], **more)
        raise ConnectionError("the network is gone in the middle of it")

    with monkeypatch.context() as patch:
        patch.setattr(tracker._client, "log_batch", breaks)
        with pytest.raises(ConnectionError):
            tracker.tell(job_at(3))
    tracker.tell(job_at(3))
    (run,) = runs(store)
    assert [step for step, _ in curve(store, run, "train/loss")] == [1, 2, 3]
    assert [step for step, _ in curve(store, run, "train/reward")] == [1, 2, 3]


def test_server_that_is_away_is_told_of_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(MlflowException, match="Max retries exceeded"):
        Mlflow().tell(job_at(1))
    assert time.monotonic() - began < 30
