"""What the sweep does about runs that crashed, are dead, or are over their time; on a real catalogue and Prefect."""

import time
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import State, StateType
from prefect.states import Cancelled, Cancelling, Completed, Crashed, Pending, Running
from sqlalchemy import func, update

from emissary.api import dead_runs, projection, submit, sweeping
from emissary.api.silences import Silences
from emissary.store.tables import FlowBacked, Lease, TrainingJob
from tests.api.backends import Backends
from tests.jobs import until

KILLED = "Process exited with status code: -9. It was killed."


@pytest.fixture(autouse=True)
def impatient(backends: Backends, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweep waits two seconds for what it waits twenty for."""
    monkeypatch.setattr(dead_runs, "SILENT_SECONDS", dict.fromkeys(dead_runs.SILENT_SECONDS, 2.0))
    monkeypatch.setattr(dead_runs, "UNREGISTERED_SECONDS", 4.0)
    backends.silences = Silences()


@pytest.fixture
def running(backends: Backends) -> tuple[str, UUID]:
    """Path and flow run of a job whose run is Running, and whose lease is taken."""
    path = backends.new_job()
    run_id = backends.run_id(path)
    backends.put(run_id, Running())
    backends.take_lease(path)
    backends.sweep()
    assert backends.job(path).status == "Running"
    return path, run_id


def beat(backends: Backends, path: str) -> None:
    row_id = path.rpartition("/")[2]
    statement = update(Lease).where(Lease.id == row_id).values(beats=Lease.beats + 1)
    backends.catalogue(lambda session: session.execute(statement))


def swept_until(backends: Backends, run_id: UUID, wanted: set[StateType], seconds: float = 20) -> State:
    def look() -> State:
        backends.sweep()
        return backends.state(run_id)

    return until(look, lambda state: state.type in wanted, seconds)  # type: ignore[no-any-return]


def test_run_without_a_sign_of_life_is_crashed_and_begins_again(backends: Backends, running: tuple[str, UUID]) -> None:
    path, run_id = running
    token = backends.take_lease(path)
    state = swept_until(backends, run_id, {StateType.SCHEDULED})
    assert state.name == "AwaitingRetry"
    assert "no sign of life" in (state.message or "")
    backends.sweep()
    job = backends.job(path)
    assert (job.status, job.crashes) == ("Pending", 1)
    assert backends.take_lease(path) > token + 1, "whoever still lives would keep the lease"


def test_run_that_beats_is_left_alone_and_one_without_a_lease_is_not(
    backends: Backends, running: tuple[str, UUID]
) -> None:
    path, run_id = running
    lone = backends.new_job()
    backends.put(backends.run_id(lone), Running())

    def look() -> State:
        beat(backends, path)
        backends.sweep()
        return backends.state(backends.run_id(lone))

    until(look, lambda state: state.type == StateType.SCHEDULED, 20)
    assert backends.state(run_id).type == StateType.RUNNING


def test_after_an_outage_a_run_has_as_long_as_ever(backends: Backends, running: tuple[str, UUID]) -> None:
    path, run_id = running
    now = 0.0
    backends.silences = Silences(lambda: now)
    backends.sweep()
    now = 3600.0
    backends.sweep()
    assert backends.state(run_id).type == StateType.RUNNING
    now = 3603.0
    backends.sweep()
    assert backends.state(run_id).type == StateType.CRASHED
    assert backends.job(path).status == "Running"


def test_run_that_ends_in_the_moment_it_is_taken_for_dead_stays_as_it_ended(
    backends: Backends, running: tuple[str, UUID]
) -> None:
    path, run_id = running
    before = backends.state(run_id)
    backends.put(run_id, Completed())

    backends.prefect(lambda client: dead_runs._force(client, run_id, before, None, dead_runs._dead(before, 2.0)))
    assert backends.state(run_id).type == StateType.COMPLETED
    backends.prefect(lambda client: client.set_flow_run_state(run_id, dead_runs._dead(before, 2.0)))
    assert backends.state(run_id).type == StateType.COMPLETED, "Prefect lets an ended run crash"
    backends.sweep()
    assert backends.job(path).status == "Success"


def test_dead_run_that_was_cancelled_is_cancelled(backends: Backends, running: tuple[str, UUID]) -> None:
    path, run_id = running
    backends.put(run_id, Cancelling())
    swept_until(backends, run_id, {StateType.CANCELLED})
    assert backends.job(path).status == "Cancelled"
    assert backends.events(path) == ["queued", "cancelled"]


def test_cancelled_run_that_no_worker_ends_loses_its_lease_and_is_cancelled(
    backends: Backends, running: tuple[str, UUID]
) -> None:
    path, run_id = running
    token = backends.take_lease(path)
    backends.put(run_id, Cancelling())

    def look() -> StateType:
        beat(backends, path)
        backends.sweep()
        return backends.state(run_id).type

    assert look() == StateType.CANCELLING, "its worker had no time to end it"
    until(look, lambda state: state == StateType.CANCELLED, 20)
    assert backends.take_lease(path) > token + 1, "its process would go on"


def test_run_for_a_row_that_is_another_runs_is_ended(backends: Backends, running: tuple[str, UUID]) -> None:
    path, run_id = running
    assert backends.request("POST", f"{path}/cancel").status_code == 204
    assert backends.request("POST", f"{path}/resume").status_code == 204
    backends.put(run_id, Running(name="Given back"))
    backends.sweep()
    assert backends.state(run_id).type == StateType.CANCELLING
    assert backends.state(backends.run_id(path)).type == StateType.SCHEDULED
    assert backends.job(path).status == "Pending"


def test_job_whose_run_was_deleted_in_prefect_fails_and_its_process_ends(
    backends: Backends, running: tuple[str, UUID]
) -> None:
    path, run_id = running
    token = backends.take_lease(path)
    backends.prefect(lambda client: client.delete_flow_run(run_id))
    backends.sweep()
    job = backends.job(path)
    assert job.status == "Failed"
    assert "deleted in Prefect" in (job.error or "")
    assert backends.take_lease(path) > token + 1, "whoever still works would keep the lease"
    assert backends.request("POST", f"{path}/resume").status_code == 204
    assert backends.run_id(path) != run_id


def test_run_that_a_worker_claimed_and_did_not_start_is_scheduled_again(backends: Backends) -> None:
    path = backends.new_job()
    run_id = backends.run_id(path)
    backends.put(run_id, Pending())
    state = swept_until(backends, run_id, {StateType.SCHEDULED})
    assert state.name == "AwaitingRetry"
    assert backends.job(path).crashes == 0


def run_without_a_row(backends: Backends, parameters: dict[str, str] | None = None, key: str | None = None) -> UUID:
    """As a flow run that is scheduled, or started in Prefect's UI, until it has registered its row."""

    async def make(client: PrefectClient) -> UUID:
        flow = await client.read_deployment_by_name("stop_engine/stop_engine")
        run = await client.create_flow_run_from_deployment(
            flow.id, parameters={"engine_id": "engine-1"} | (parameters or {}), idempotency_key=key
        )
        return run.id

    return backends.prefect(make)


def test_run_without_a_row_that_a_worker_claimed_and_did_not_start_is_scheduled_again(backends: Backends) -> None:
    run_id = run_without_a_row(backends)
    backends.put(run_id, Pending())
    assert swept_until(backends, run_id, {StateType.SCHEDULED}).name == "AwaitingRetry"


def test_run_that_registers_no_row_begins_again(backends: Backends) -> None:
    run_id = run_without_a_row(backends)
    backends.put(run_id, Running())
    begun = time.monotonic()
    assert swept_until(backends, run_id, {StateType.CRASHED, StateType.SCHEDULED}).type == StateType.CRASHED
    assert time.monotonic() - begun > 4, "it had no time to register one"
    assert swept_until(backends, run_id, {StateType.SCHEDULED}).name == "AwaitingRetry"


def test_run_without_a_row_begins_again_after_two_crashes_and_not_after_three(backends: Backends) -> None:
    run_id = run_without_a_row(backends)
    for _ in range(2):
        backends.put(run_id, Crashed(message=KILLED))
        backends.sweep()
        assert backends.state(run_id).name == "AwaitingRetry"
        backends.put(run_id, Running())
    backends.put(run_id, Crashed(message=KILLED))
    backends.sweep()
    assert backends.state(run_id).type == StateType.CRASHED


def test_crashed_run_for_a_row_that_is_gone_does_not_begin_again(backends: Backends) -> None:
    run_id = run_without_a_row(backends, {"engine_id": "engine-1", "training_job_id": "tr-gone"})
    backends.put(run_id, Crashed(message=KILLED))
    backends.sweep()
    assert backends.state(run_id).type == StateType.CRASHED


@pytest.mark.parametrize(
    ("key", "state"), [(None, StateType.RUNNING), ("ds-gone:0", StateType.CANCELLING)], ids=["of a form", "submitted"]
)
def test_run_for_a_dataset_that_is_gone_says_so_itself_where_it_was_started_in_prefect(
    backends: Backends, key: str | None, state: StateType
) -> None:
    run_id = run_without_a_row(backends, {"dataset_id": "ds-gone"}, key)
    backends.put(run_id, Running())
    backends.sweep()
    assert backends.state(run_id).type == state
    backends.put(run_id, Cancelled())


def test_run_of_another_work_pool_is_left_alone(backends: Backends, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = run_without_a_row(backends)
    backends.put(run_id, Pending())
    monkeypatch.setattr(dead_runs, "POOLS", ("training",))
    backends.sweep(3)
    assert backends.state(run_id).type == StateType.PENDING


def test_row_that_prefect_refuses_does_not_keep_the_others_waiting(
    backends: Backends, running: tuple[str, UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, run_id = running
    refused = backends.new_job()
    values = {"flow_run_id": None, "status": "Pending"}
    again = update(TrainingJob).where(TrainingJob.id == refused.rpartition("/")[2]).values(**values)
    backends.catalogue(lambda session: session.execute(again))
    known = submit._flow

    def missing(row: FlowBacked) -> tuple[str, dict[str, Any]]:
        return ("gone/gone", {}) if refused.endswith(row.id) else known(row)

    backends.put(run_id, Crashed(message=KILLED))
    with monkeypatch.context() as patch:
        patch.setattr(submit, "_flow", missing)
        backends.sweep()
    assert backends.state(run_id).name == "AwaitingRetry"
    backends.sweep()
    assert backends.job(refused).flow_run_id is not None


def test_run_that_lived_for_long_after_a_crash_has_its_crashes_forgotten(
    backends: Backends, running: tuple[str, UUID]
) -> None:
    path, run_id = running
    backends.put(run_id, Crashed(message=KILLED))
    backends.sweep()
    backends.put(run_id, Running())
    now = 0.0
    backends.silences = Silences(lambda: now)

    def live(seconds: int) -> int:
        nonlocal now
        for _ in range(0, seconds, 10):
            beat(backends, path)
            backends.sweep()
            now += 10
        return backends.job(path).crashes

    assert live(30) == 1
    now += dead_runs.LIVED_SECONDS  # in which nobody looked
    assert live(30) == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dead_runs, "LIVED_SECONDS", 20.0)
        assert live(10) == 0


def test_three_crashes_in_a_row_fail_and_the_waits_grow(backends: Backends, running: tuple[str, UUID]) -> None:
    path, run_id = running
    for crashes, wait in ((1, 0.0), (2, 5.0)):
        backends.put(run_id, Crashed(message=KILLED))
        before = backends.state(run_id).timestamp
        backends.sweep()
        state = backends.state(run_id)
        assert (state.type, state.name) == (StateType.SCHEDULED, "AwaitingRetry")
        assert state.state_details.scheduled_time is not None
        assert -1 < state.state_details.scheduled_time.timestamp() - before.timestamp() - wait < 5
        backends.sweep()
        assert (backends.job(path).status, backends.job(path).crashes) == ("Pending", crashes)
        backends.put(run_id, Running())
    backends.put(run_id, Crashed(message=KILLED))
    backends.sweep()
    backends.sweep()
    job = backends.job(path)
    assert (job.status, backends.state(run_id).type) == ("Failed", StateType.FAILED)
    assert "signal 9" in (job.error or "")
    assert backends.events(path)[-1] == "failed"
    backends.put(run_id, Crashed(message=KILLED))
    backends.sweep()
    state = backends.state(run_id)
    assert (state.type, state.message) == (StateType.FAILED, job.error), "a crash that was told twice stays"


def test_crash_counts_once_however_often_it_is_seen(
    backends: Backends, running: tuple[str, UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, run_id = running

    async def elsewhere(*_: object) -> bool:
        return False

    with monkeypatch.context() as patch:
        patch.setattr(sweeping, "is_still", elsewhere)
        backends.put(run_id, Crashed(message=KILLED))
        for _ in range(3):
            backends.sweep()
    assert backends.job(path).crashes == 1


def test_completed_step_makes_crashes_no_longer_in_a_row(backends: Backends, running: tuple[str, UUID]) -> None:
    path, run_id = running
    for _ in range(4):
        backends.put(run_id, Crashed(message=KILLED))
        backends.sweep()
        backends.put(run_id, Running())
        reset = update(TrainingJob).where(TrainingJob.flow_run_id == run_id).values(crashes=0)
        backends.catalogue(lambda session, reset=reset: session.execute(reset))  # type: ignore[misc]
    backends.sweep()
    assert backends.job(path).status == "Running"


def begin(backends: Backends, path: str, seconds_ago: int) -> None:
    row_id = path.rpartition("/")[2]
    started = func.now() - timedelta(seconds=seconds_ago)
    statement = update(TrainingJob).where(TrainingJob.id == row_id).values(timeout_seconds=60, started_at=started)
    backends.catalogue(lambda session: session.execute(statement))


def test_run_over_its_time_limit_is_timed_out_once_it_had_time_to_end_itself(
    backends: Backends, running: tuple[str, UUID]
) -> None:
    path, run_id = running
    begin(backends, path, 110)
    beat(backends, path)
    backends.sweep()
    assert backends.state(run_id).type == StateType.RUNNING
    begin(backends, path, 121)
    beat(backends, path)
    backends.sweep()
    backends.sweep()
    job = backends.job(path)
    assert (job.status, backends.state(run_id).name) == ("TimedOut", "TimedOut")
    assert "60" in (job.error or "")


def test_run_that_crashes_after_its_time_limit_is_timed_out(backends: Backends, running: tuple[str, UUID]) -> None:
    path, run_id = running
    begin(backends, path, 61)
    backends.put(run_id, Crashed(message=KILLED))
    backends.sweep()
    backends.sweep()
    assert backends.job(path).status == "TimedOut"


def test_state_that_is_told_late_is_not_applied(backends: Backends, running: tuple[str, UUID]) -> None:
    path, run_id = running
    late = backends.state(run_id)
    backends.put(run_id, Running(name="Testing"))
    backends.sweep()
    assert backends.job(path).status == "Testing"
    backends.run(projection.apply(run_id, late.type.value, late.name or "", None, late.timestamp))
    assert backends.job(path).status == "Testing"
