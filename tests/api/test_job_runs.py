"""Cancelling and resuming training jobs, on a real catalogue and Prefect."""

import asyncio

import httpx
import pytest
from prefect import runtime
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled, Cancelling, Completed, Crashed, Failed, Pending, Running, Scheduled
from sqlalchemy import update

from emissary.schemas.events import Kind
from emissary.store import job_events
from emissary.store.tables import TrainingJob
from tasks import attempt, registering
from tasks.training import run_trainer
from tests.api.backends import Backends
from tests.api.refusals import envelope

NOBODY = "http://127.0.0.1:9/api"


def post(backends: Backends, path: str) -> httpx.Response:
    return backends.request("POST", path)


def set_job(backends: Backends, path: str, **values: object) -> None:
    statement = update(TrainingJob).where(TrainingJob.id == path.rpartition("/")[2]).values(**values)
    backends.catalogue(lambda session: session.execute(statement))


def runs_named(backends: Backends, name: str) -> list[FlowRun]:
    wanted = FlowRunFilter(name=FlowRunFilterName(any_=[name]))
    return backends.prefect(lambda client: client.read_flow_runs(flow_run_filter=wanted))


@pytest.mark.parametrize("state", [None, Scheduled(name="AwaitingRetry"), Crashed(), Completed(), Failed()])
def test_job_whose_run_has_no_process_is_cancelled_at_once(backends: Backends, state: State | None) -> None:
    path = backends.new_job()
    run_id = backends.run_id(path)
    if state is not None:
        backends.put(run_id, state)
    assert post(backends, f"{path}/cancel").status_code == 204
    assert backends.job(path).status == "Cancelled"
    assert backends.state(run_id).type == StateType.CANCELLED
    assert backends.events(path) == ["queued", "cancelled"]


@pytest.mark.parametrize("state", [Pending(), Running(), Running(name="Testing")])
def test_run_with_a_process_is_cancelling_and_its_job_cancelled_at_once(backends: Backends, state: State) -> None:
    path = backends.new_job()
    run_id = backends.run_id(path)
    backends.put(run_id, state)
    assert post(backends, f"{path}/cancel").status_code == 204
    assert backends.job(path).status == "Cancelled"
    assert backends.state(run_id).type == StateType.CANCELLING
    envelope(post(backends, f"{path}/cancel"), 400, "invalid_input")


@pytest.mark.parametrize("status", ["Success", "Failed", "TimedOut"])
def test_finished_job_is_not_cancelled(backends: Backends, status: str) -> None:
    path = backends.new_job()
    set_job(backends, path, status=status)
    answer = post(backends, f"{path}/cancel")
    envelope(answer, 400, "invalid_input")
    assert status in answer.json()["error"]
    assert backends.job(path).status == status


def test_of_many_cancels_at_once_one_is_accepted(backends: Backends) -> None:
    path = backends.new_job()

    async def at_once() -> list[int]:
        return [
            answer.status_code
            for answer in await asyncio.gather(*(backends.ask("POST", f"{path}/cancel") for _ in range(6)))
        ]

    assert sorted(backends.run(at_once())) == [204, 400, 400, 400, 400, 400]
    assert backends.events(path) == ["queued", "cancelled"]


@pytest.mark.parametrize("state", [Cancelling(), Cancelled()])
def test_cancelling_in_prefect_cancels_the_job(backends: Backends, state: State) -> None:
    path = backends.new_job()
    run_id = backends.run_id(path)
    backends.put(run_id, Running())
    backends.sweep()
    backends.prefect(lambda client: client.set_flow_run_state(run_id, state))
    backends.sweep()
    assert backends.job(path).status == "Cancelled"
    assert backends.events(path) == ["queued", "cancelled"]
    assert post(backends, f"{path}/resume").status_code == 204


def test_cancel_without_prefect_is_carried_out_once_prefect_is_back(backends: Backends) -> None:
    path = backends.new_job()
    run_id = backends.run_id(path)
    backends.put(run_id, Running())
    backends.sweep()
    token = backends.take_lease(path)
    with temporary_settings({PREFECT_API_URL: NOBODY}):
        assert post(backends, f"{path}/cancel").status_code == 204
        envelope(post(backends, f"{path}/cancel"), 400, "invalid_input")
        envelope(post(backends, f"{path}/resume"), 503, "unavailable")
    assert backends.job(path).status == "Cancelled"
    assert backends.state(run_id).type == StateType.RUNNING
    assert backends.take_lease(path) == token + 2, "the run that goes on has lost its lease"
    backends.sweep()
    assert backends.state(run_id).type == StateType.CANCELLING
    assert post(backends, f"{path}/resume").status_code == 204


def test_run_of_a_cancelled_job_that_runs_all_the_same_is_cancelled(backends: Backends) -> None:
    path = backends.new_job()
    run_id = backends.run_id(path)
    post(backends, f"{path}/cancel")
    backends.put(run_id, Running())
    backends.sweep()
    assert backends.state(run_id).type == StateType.CANCELLING


def test_run_that_was_made_unnoticed_is_cancelled_with_its_job(backends: Backends) -> None:
    path = backends.new_job()
    run_id = backends.run_id(path)
    set_job(backends, path, flow_run_id=None)
    assert post(backends, f"{path}/cancel").status_code == 204
    assert backends.state(run_id).type == StateType.CANCELLED
    backends.sweep()
    assert backends.job(path).flow_run_id == run_id


@pytest.mark.parametrize("status", ["Failed", "TimedOut", "Cancelled"])
def test_ended_job_is_resumed_by_a_new_run(backends: Backends, status: str) -> None:
    path = backends.new_job()
    first = backends.run_id(path)
    backends.put(first, Running())
    token = backends.take_lease(path)
    ending: dict[str, State] = {
        "Failed": Failed(message="no"),
        "TimedOut": Failed(name="TimedOut", message="no"),
        "Cancelled": Cancelled(),
    }
    backends.put(first, ending[status])
    backends.sweep()
    assert backends.job(path).status == status
    set_job(backends, path, crashes=2)
    assert post(backends, f"{path}/resume").status_code == 204
    job = backends.job(path)
    assert (job.status, job.attempt, job.crashes, job.error, job.started_at) == ("Pending", 2, 0, None, None)
    second = backends.run_id(path)
    assert second != first
    assert backends.state(second).type == StateType.SCHEDULED
    assert backends.prefect(lambda client: client.read_flow_run(second)).name == f"{job.id}-2"
    assert backends.take_lease(path) > token + 1, "the run before has lost its lease"
    envelope(post(backends, f"{path}/resume"), 400, "invalid_input")
    backends.put(second, Completed())
    backends.sweep()
    assert backends.job(path).status == "Success"
    assert backends.events(path)[-2:] == ["queued", "succeeded"]


def test_what_the_run_before_still_does_changes_nothing(backends: Backends) -> None:
    path = backends.new_job()
    first = backends.run_id(path)
    backends.put(first, Running())
    backends.sweep()
    assert post(backends, f"{path}/cancel").status_code == 204
    assert post(backends, f"{path}/resume").status_code == 204
    assert backends.state(first).type == StateType.CANCELLING
    backends.put(first, Failed(message="late"))
    backends.sweep()
    job = backends.job(path)
    assert (job.status, job.error, job.attempt) == ("Pending", None, 2)


def test_each_attempt_has_its_end_and_nothing_after_it(backends: Backends) -> None:
    path = backends.new_job()
    job_id = path.rpartition("/")[2]

    def record(kind: Kind, **key: object) -> None:
        backends.catalogue(lambda session: job_events.record(session, job_id, kind, key))

    def end() -> None:
        set_job(backends, path, status="Failed")
        backends.catalogue(lambda session: job_events.record_end(session, job_id, "Failed", "no"))

    backends.catalogue(lambda session: job_events.record_start(session, job_id))
    record("epoch", epoch=1)
    end()
    record("epoch", epoch=2)
    end()
    assert backends.events(path) == ["queued", "started", "epoch", "failed"]
    assert post(backends, f"{path}/resume").status_code == 204
    backends.catalogue(lambda session: job_events.record_start(session, job_id))
    record("epoch", epoch=1)
    record("epoch", epoch=2)
    end()
    record("epoch", epoch=3)
    assert backends.events(path)[4:] == ["queued", "resumed", "epoch", "failed"]


@pytest.mark.parametrize("status", ["Success", "Pending", "Running", "Testing"])
def test_job_that_succeeded_or_goes_on_is_not_resumed(backends: Backends, status: str) -> None:
    path = backends.new_job()
    set_job(backends, path, status=status)
    envelope(post(backends, f"{path}/resume"), 400, "invalid_input")
    assert backends.job(path).attempt == 1


def test_job_is_not_resumed_without_what_it_starts_from(backends: Backends) -> None:
    path = backends.new_job()
    lacking = {"base_model_option": "fine-tuned", "base_fine_tuned_model": "first-try"}
    set_job(backends, path, status="Failed", **lacking)
    answer = post(backends, f"{path}/resume")
    envelope(answer, 400, "invalid_input")
    assert "first-try" in answer.json()["error"]


def test_job_is_not_resumed_without_its_testing_functions(backends: Backends) -> None:
    path = backends.new_job()
    set_job(backends, path, status="Failed", test_functions=["gone"])
    answer = post(backends, f"{path}/resume")
    envelope(answer, 400, "invalid_input")
    assert "gone" in answer.json()["error"]


@pytest.mark.parametrize("what", ["resume", "cancel"])
def test_unknown_job_is_not_found(backends: Backends, what: str) -> None:
    path = backends.new_job()
    envelope(post(backends, f"{path}x/{what}"), 404, "object_not_found")


def test_of_many_resumes_at_once_one_is_accepted(backends: Backends) -> None:
    path = backends.new_job()
    set_job(backends, path, status="Failed")

    async def at_once() -> list[int]:
        return [
            answer.status_code
            for answer in await asyncio.gather(*(backends.ask("POST", f"{path}/resume") for _ in range(6)))
        ]

    assert sorted(backends.run(at_once())) == [204, 400, 400, 400, 400, 400]
    assert len(runs_named(backends, f"{path.rpartition('/')[2]}-2")) == 1


def test_attempt_begins_once_though_the_answer_to_its_commit_is_lost(
    backends: Backends, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = backends.new_job()

    run_id = str(backends.run_id(path))
    monkeypatch.setattr(runtime.flow_run, "get_id", lambda: run_id)

    def begin(process: str) -> list[str]:
        monkeypatch.setattr(attempt, "process_identity", lambda: process)
        for _ in range(2):
            backends.catalogue(lambda session: registering._training_job(session, path.rpartition("/")[2], None, None))
        return backends.events(path)

    assert begin("here:1:0") == ["queued", "started"]
    assert begin("here:2:0") == ["queued", "started", "resumed"]


def test_job_that_is_trained_is_not_trained_again_when_its_trainer_states_are_gone(backends: Backends) -> None:
    job = backends.job(backends.new_job())
    backends.catalogue(lambda session: job_events.record(session, job.id, "trained"))
    backends.run(run_trainer(job, lambda **_: pytest.fail("it is trained again")))


@pytest.mark.parametrize("seconds", [1, 30 * 24 * 3600])
def test_time_limit_is_kept_and_shown(backends: Backends, seconds: int) -> None:
    path = backends.new_job(timeout_seconds=seconds)
    assert backends.request("GET", path).json()["timeout_seconds"] == seconds


@pytest.mark.parametrize("seconds", [0, -1, 30 * 24 * 3600 + 1, 1.5, "60", True])
def test_time_limit_out_of_range_is_refused(backends: Backends, seconds: object) -> None:
    path = backends.new_job()
    detail = backends.request("GET", path).json()
    assert detail["timeout_seconds"] is None
    body = {"base_model": detail["base_model"], "train_dataset_id": detail["train_dataset"]["id"]}
    answer = backends.request("POST", path.rpartition("/")[0], json=body | {"timeout_seconds": seconds})
    envelope(answer, 400, "invalid_input")
    assert "timeout_seconds" in answer.json()["error"]
