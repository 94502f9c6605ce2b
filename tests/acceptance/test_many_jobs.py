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
    ran = [interval(own, runs[job]) for job in made]
    assert most_at_once([(claimed, end) for claimed, _, end in ran]) == 2
    # Where two places are free at once, their two runs are claimed at once, in any order.
    overtaken = [job for at, job in enumerate(made) if began_before(ran[at + 1 :], ran[at][0])]
    assert not overtaken, f"begun after later ones: {overtaken}"


def states(own: OwnPlatform, run: dict[str, Any]) -> list[tuple[str, datetime]]:
    """The states that a run was in, with their moments."""
    found = own.prefect.get("/flow_run_states/", params={"flow_run_id": run["id"]}).raise_for_status().json()
    return sorted(((state["type"], datetime.fromisoformat(state["timestamp"])) for state in found), key=lambda s: s[1])


def interval(own: OwnPlatform, run: dict[str, Any]) -> tuple[datetime, datetime, datetime]:
    """The moments at which a worker claimed the run, its flow began and it ended."""
    found = states(own, run)
    kinds = [state for state, _ in groupby(state for state, _ in found)]
    assert kinds == ["SCHEDULED", "PENDING", "RUNNING", "COMPLETED"]
    claimed, began = (next(at for state, at in found if state == kind) for kind in ("PENDING", "RUNNING"))
    return claimed, began, found[-1][1]


def began_before(ran: list[tuple[datetime, datetime, datetime]], moment: datetime) -> bool:
    """Whether any of the intervals' flows began before."""
    return any(began < moment for _, began, _ in ran)


def most_at_once(ran: list[tuple[datetime, datetime]]) -> int:
    """The largest number of intervals that have a moment in common."""
    moments = sorted([(begin, 1) for begin, _ in ran] + [(end, -1) for _, end in ran])
    now = most = 0
    for _, change in moments:
        now += change
        most = max(most, now)
    return most
