"""Many jobs at once, on a pool that takes two: each runs once, in the order in which they came."""

from datetime import datetime
from itertools import groupby
from typing import Any

import pytest

from tests.acceptance.evidence import catalogue, flow_runs
from tests.acceptance.own_platform import OwnPlatform
from tests.acceptance.small_jobs import CLASSES
from tests.jobs import ended, until, upload

pytestmark = pytest.mark.acceptance
JOBS = 20
TINY = CLASSES.body["parameters"] | {"num_train_epochs": 1}


def test_twenty_jobs_run_in_order_none_twice_and_two_at_a_time(own: OwnPlatform) -> None:
    client = own.client()
    project = client.post("/v1/projects", {"name": "many"})["id"]
    path = f"/v1/projects/{project}/training-jobs"
    body = CLASSES.body | {"train_dataset_id": upload(client, project, CLASSES.rows), "parameters": TINY}
    made = [client.post(path, body)["id"] for _ in range(JOBS)]
    until(lambda: [job for job in client.get(path) if not ended(job)], lambda left: not left, 400)
    assert {job["status"] for job in client.get(path)} == {"Success"}

    begun = [event for event in catalogue(own.database_url())["job_events"] if event["kind"] in ("started", "resumed")]
    order = [event["training_job_id"] for event in sorted(begun, key=lambda each: each["id"])]
    assert sorted(order) == sorted(made), "a job began twice, or not at all"
    runs = {run["parameters"].get("training_job_id"): run for run in flow_runs(own.prefect)}
    ran = sorted((interval(own, runs[job]) for job in made), key=lambda each: each[0])
    assert most_at_once(ran) == 2
    assert claims(own, [runs[job] for job in made]) == made


def states(own: OwnPlatform, run: dict[str, Any]) -> list[tuple[str, datetime]]:
    """The states that a run was in, with their moments."""
    found = own.prefect.get("/flow_run_states/", params={"flow_run_id": run["id"]}).raise_for_status().json()
    return sorted(((state["type"], datetime.fromisoformat(state["timestamp"])) for state in found), key=lambda s: s[1])


def interval(own: OwnPlatform, run: dict[str, Any]) -> tuple[datetime, datetime]:
    """From the moment a worker claimed the run to its end."""
    found = states(own, run)
    kinds = [state for state, _ in groupby(state for state, _ in found)]
    assert kinds == ["SCHEDULED", "PENDING", "RUNNING", "COMPLETED"]
    return next(at for state, at in found if state == "PENDING"), found[-1][1]


def most_at_once(ran: list[tuple[datetime, datetime]]) -> int:
    """The largest number of intervals that have a moment in common."""
    moments = sorted([(begin, 1) for begin, _ in ran] + [(end, -1) for _, end in ran])
    now = most = 0
    for _, change in moments:
        now += change
        most = max(most, now)
    return most


def claims(own: OwnPlatform, runs: list[dict[str, Any]]) -> list[str]:
    """The jobs in the order in which their runs were claimed."""
    claimed = sorted(runs, key=lambda run: interval(own, run)[0])
    return [run["parameters"]["training_job_id"] for run in claimed]
