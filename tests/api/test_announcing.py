"""Every event is written with the change that it is about, once, and for those who subscribed to it."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from prefect.states import Completed, Failed, Running
from sqlalchemy import delete, select, update

from emissary.store import approvals, engines, job_runs, pipeline_runs
from emissary.store.database import transaction
from emissary.store.pipeline_tables import Pipeline, PipelineRun, Subscription, SubscriptionDelivery
from emissary.store.tables import Checkpoint, Deployment, Project, TrainingJob
from tests.api.backends import Backends
from tests.api.subscribing import Subscribing
from tests.web_server import Web

ALL = (
    "training_job.started", "training_job.succeeded", "training_job.failed", "training_job.timed_out",
    "training_job.cancelled", "deployment.deployed", "deployment.updated", "deployment.deactivated",
    "deployment.reactivated", "deployment.failed", "deployment.deleted", "pipeline_run.waiting",
    "pipeline_run.promoted", "pipeline_run.not_promoted", "pipeline_run.rolled_back", "pipeline_run.skipped",
    "pipeline_run.failed", "pipeline_run.cancelled",
)  # fmt: skip
CHANGES: list[tuple[type[Any], dict[str, Any], dict[str, Any], str | None]] = [
    (TrainingJob, {"status": "Running"}, {"status": "Testing"}, None),
    (TrainingJob, {"status": "Running"}, {"status": "Pending"}, None),
    (TrainingJob, {"status": "Running"}, {"progress": 50, "error": "x"}, None),
    (TrainingJob, {"status": "Success"}, {"status": "Success"}, None),
    (TrainingJob, {"status": "Testing"}, {"status": "Success"}, "training_job.succeeded"),
    (TrainingJob, {"status": "Running"}, {"status": "Failed", "error": "no memory"}, "training_job.failed"),
    (TrainingJob, {"status": "Running"}, {"status": "TimedOut"}, "training_job.timed_out"),
    (TrainingJob, {"status": "Pending"}, {"status": "Cancelled"}, "training_job.cancelled"),
    (Deployment, {"status": "Pending"}, {"status": "Deploying"}, None),
    (Deployment, {"status": "Deploying"}, {"status": "Deployed"}, "deployment.deployed"),
    (Deployment, {"status": "Deploying"}, {"status": "Failed", "error": "too large"}, "deployment.failed"),
    (Deployment, {"status": "Pending"}, {"status": "TimedOut"}, "deployment.failed"),
    (Deployment, {"status": "Deployed"}, {"status": "Deactivated"}, "deployment.deactivated"),
    (Deployment, {"status": "Deactivated"}, {"status": "Reactivating"}, None),
    (Deployment, {"status": "Reactivating"}, {"status": "Deployed"}, "deployment.reactivated"),
    (Deployment, {"status": "Deployed"}, {"status": "Terminated"}, "deployment.deleted"),
    (Deployment, {"status": "Deployed"}, {"checkpoint": 2}, "deployment.updated"),
    (Deployment, {"status": "Deployed"}, {"training_job_id": None}, None),
    (PipelineRun, {"status": "Running"}, {"status": "Success"}, None),
    (PipelineRun, {"status": "Running"}, {"status": "Failed", "error": "gone"}, "pipeline_run.failed"),
    (PipelineRun, {"status": "Running"}, {"status": "Cancelled"}, "pipeline_run.cancelled"),
    (PipelineRun, {"outcome": None}, {"outcome": "Promoted", "reason": "better"}, "pipeline_run.promoted"),
    (PipelineRun, {"outcome": None}, {"outcome": "Skipped", "reason": "nothing new"}, "pipeline_run.skipped"),
    (PipelineRun, {"outcome": None}, {"outcome": "RolledBack"}, "pipeline_run.rolled_back"),
    (PipelineRun, {"outcome": None}, {"outcome": "NotPromoted"}, "pipeline_run.not_promoted"),
    (PipelineRun, {"approval": None}, {"approval": {"until": 1}}, "pipeline_run.waiting"),
    (PipelineRun, {"approval": {"until": 1}}, {"approval": {"until": 1, "approved": True}}, None),
]  # fmt: skip


@pytest.fixture
def told(subscribing: Subscribing) -> dict[str, Any]:
    subscribing.add_rows()
    return subscribing.subscribe(*ALL)


def test_each_change_is_told_as_its_event_and_others_are_not(subscribing: Subscribing, told: dict[str, Any]) -> None:
    async def change(kind: type[Any], values: dict[str, Any]) -> list[tuple[str, Any]]:
        """Events that these values of the project's rows are told as, and what they say why."""
        deliveries = SubscriptionDelivery.subscription_id == told["id"]
        async with transaction() as session:
            await session.execute(delete(SubscriptionDelivery).where(deliveries))
            await session.execute(update(kind).where(kind.project_id == subscribing.id).values(**values))
        async with transaction() as session:
            rows = (await session.scalars(select(SubscriptionDelivery).where(deliveries))).all()
        assert {row.data["project_id"] for row in rows} <= {subscribing.id}
        return [(row.event, row.data.get("error") or row.data.get("reason")) for row in rows]

    async def all_changes() -> None:
        for kind, before, after, event in CHANGES:
            await change(kind, before | ({"reason": None} if kind is PipelineRun else {"error": None}))
            said = after.get("error") or after.get("reason")
            assert await change(kind, after) == ([(event, said)] if event else []), (before, after)

    subscribing.backends.run(all_changes())
    assert {event for *_, event in CHANGES if event} == set(ALL) - {"training_job.started"}


def test_run_that_failed_is_told_with_the_outcome_that_the_api_says(
    subscribing: Subscribing, told: dict[str, Any]
) -> None:
    subscribing.change(PipelineRun, status="Failed", error="no data")
    data = subscribing.delivery(told)["data"]
    runs = f"{subscribing.project}/pipelines/pl-{subscribing.id}/runs"
    (run,) = subscribing.backends.request("GET", runs).json()
    assert (data["outcome"], data["reason"]) == (run["outcome"], run["reason"]) == ("Failed", "no data")


def test_change_that_is_rolled_back_is_told_nobody(subscribing: Subscribing, told: dict[str, Any]) -> None:
    async def breaks_off(session: Any) -> None:
        project = await session.get_one(Project, subscribing.id)
        await job_runs.cancel(session, project, subscribing.job)
        query = select(SubscriptionDelivery.event).where(SubscriptionDelivery.subscription_id == told["id"])
        await session.flush()
        assert (await session.scalars(query)).all() == ["training_job.cancelled"]
        raise RuntimeError

    with pytest.raises(RuntimeError):
        subscribing.backends.catalogue(breaks_off)
    assert subscribing.deliveries(told) == []


def test_job_is_told_of_from_its_flow_runs_states_once_each(backends: Backends, web: Web) -> None:
    path = backends.new_job()
    subscribing = Subscribing(backends, web, path)
    told = subscribing.subscribe(*ALL)
    run_id = backends.run_id(path)
    backends.put(run_id, Running())
    backends.sweep()
    backends.put(run_id, Failed(message="Flow run encountered an exception: OSError: the disk is full"))
    backends.sweep()
    backends.sweep()
    delivery = subscribing.delivery(told)
    assert (delivery["event"], delivery["data"]["error"]) == ("training_job.failed", "the disk is full")
    assert backends.request("POST", f"{path}/resume").is_success
    backends.sweep()

    async def best(session: Any) -> None:
        session.add(Checkpoint(training_job_id=subscribing.job, number=1, artifact="none", scores={"f": 0.5}))
        job = await session.get_one(TrainingJob, subscribing.job)
        job.best_checkpoint = 1

    backends.catalogue(best)
    backends.put(backends.run_id(path), Completed())
    backends.sweep()
    succeeded = subscribing.deliveries(told)[0]
    assert (succeeded["event"], succeeded["data"]["scores"]) == ("training_job.succeeded", {"f": 0.5})
    assert len(subscribing.deliveries(told)) == 2


def test_start_is_told_once_however_often_the_run_begins_again(subscribing: Subscribing, told: dict[str, Any]) -> None:
    subscribing.change(TrainingJob, started_at=datetime.now(UTC))
    subscribing.change(TrainingJob, started_at=datetime.now(UTC))
    assert subscribing.delivery(told)["event"] == "training_job.started"


def test_deployments_that_go_with_their_engine_are_told_of(subscribing: Subscribing, told: dict[str, Any]) -> None:
    subscribing.change(Deployment, status="Deactivated")
    already = len(subscribing.deliveries(told))
    subscribing.backends.catalogue(lambda session: engines.delete(session, f"engine-{subscribing.id}"))
    newest, *others = subscribing.deliveries(told)
    assert len(others) == already
    assert (newest["event"], newest["data"]["status"]) == ("deployment.deleted", "Terminated")


def test_run_that_asks_a_person_and_is_then_not_promoted_is_told_of_with_the_reason(
    subscribing: Subscribing, told: dict[str, Any]
) -> None:
    async def ask(session: Any) -> None:
        pipeline = await session.get_one(Pipeline, f"pl-{subscribing.id}")
        train = {"base_model": "SmolLM2-135M-Instruct", "test_functions": ["exact_match_shared"]}
        pipeline.config = {"name": "nightly", "train": train, "gate": {"approval": True}}
        await session.flush()
        await approvals.ask(session, f"pr-{subscribing.id}")

    async def conclude(session: Any) -> None:
        await pipeline_runs.conclude(session, f"pr-{subscribing.id}", "NotPromoted", "exact_match is 0.1, not 0.7.")

    subscribing.backends.catalogue(ask)
    subscribing.backends.catalogue(ask)
    waiting = subscribing.delivery(told)
    assert (waiting["event"], waiting["data"]["name"]) == ("pipeline_run.waiting", "nightly")
    assert waiting["data"]["approval"]["until"] > waiting["created_at"]
    subscribing.backends.catalogue(conclude)
    refused = subscribing.deliveries(told)[0]
    assert (refused["event"], refused["data"]["reason"]) == (
        "pipeline_run.not_promoted",
        "exact_match is 0.1, not 0.7.",
    )


def test_only_what_is_subscribed_to_is_told_and_nothing_while_paused(subscribing: Subscribing) -> None:
    failed = subscribing.subscribe("training_job.failed", name="failures")
    paused = subscribing.subscribe("training_job.cancelled", name="paused", paused=True)
    both = subscribing.subscribe("training_job.failed", "training_job.cancelled", name="both")
    subscribing.change(TrainingJob, status="Cancelled")
    assert [len(subscribing.deliveries(row)) for row in (failed, paused, both)] == [0, 0, 1]
    subscribing.ask("POST", paused, "/unpause")
    assert subscribing.deliveries(paused) == []


def test_job_ends_while_a_subscription_is_being_deleted(subscribing: Subscribing, told: dict[str, Any]) -> None:
    """The change waits for the deletion, and goes through without it."""

    async def both() -> None:
        async with transaction() as deleting:
            await deleting.execute(delete(Subscription).where(Subscription.id == told["id"]))

            async def end() -> None:
                async with transaction() as session:
                    mine = update(TrainingJob).where(TrainingJob.id == subscribing.job)
                    await session.execute(mine.values(status="Failed"))

            ending = asyncio.create_task(end())
            await asyncio.sleep(0.3)
            assert not ending.done()
        await ending

    subscribing.backends.run(both())
    assert subscribing.backends.job(subscribing.job_path).status == "Failed"
