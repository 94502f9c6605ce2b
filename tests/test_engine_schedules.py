"""Engines that run by a schedule, which Prefect keeps."""

import os
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from emissary.client import ApiError, Client
from emissary.up import Platform, apply_flow_deployments
from tests.api.refusals import envelope
from tests.engine_life import CHAT, MODEL, next_minute, prefect, runs_of, schedule, until_status, wait_until
from tests.jobs import until

# They wait for minutes of the clock to come.
pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def project(client: Client) -> str:
    return str(client.post("/v1/projects", {"name": "engine-schedules"})["id"])


def engine(client: Client, wanted: dict[str, Any]) -> dict[str, Any]:
    config = {"management_type": "schedule", "management_config": wanted}
    return dict(client.post("/v1/engines", {"base_model": MODEL, "resource_management_config": config}))


def schedules_of(platform: Platform, engine_id: str) -> dict[str, str]:
    """Flow → cron line of the engine's schedules in Prefect."""
    found = {}
    with prefect(platform) as http:
        for name in ("serve_engine", "stop_engine"):
            rows = http.get(f"/deployments/name/{name}/{name}").json()["schedules"]
            found.update((name, row["schedule"]["cron"]) for row in rows if row["slug"] == engine_id)
    return found


def test_deployment_outside_its_schedule_waits_for_the_window(platform: Platform, client: Client, project: str) -> None:
    now = datetime.now(UTC)
    opening = (now + timedelta(hours=3)).replace(second=0, microsecond=0)
    body = {"training_job_id": MODEL, "checkpoint": 0, "schedule": schedule(opening, opening + timedelta(hours=1))}
    path = f"/v1/projects/{project}/deployments"
    made = client.post(path, body | {"name": "scheduled"})
    other = client.post(path, body | {"name": "scheduled-too"})
    assert [made["status"], other["status"]] == ["Deactivated", "Deactivated"]
    engine_id = client.get(f"{path}/{made['id']}")["engine_id"]
    assert client.get(f"{path}/{other['id']}")["engine_id"] == engine_id
    found = client.get(f"/v1/engines/{engine_id}")
    assert (found["name"], found["status"]) == (f"{MODEL}-engine", "Inactive")
    assert found["resource_management_config"]["management_config"]["days"][0] == "monday"
    refused = client.http.post("/v1/chat/completions", json=CHAT | {"model": "scheduled"})
    envelope(refused, 503, "outside_schedule")
    seconds = (opening - now).total_seconds()
    assert seconds - 60 <= int(refused.headers["retry-after"]) <= seconds + 1
    until(lambda: schedules_of(platform, engine_id), lambda found: set(found) == {"serve_engine", "stop_engine"})
    until(lambda: {run["state_type"] for run in runs_of(platform, engine_id)}, lambda found: found == {"SCHEDULED"})
    # As `emissary up` does when it is started again.
    apply_flow_deployments(os.environ | {"PREFECT_API_URL": f"{platform.prefect_url}/api"})
    assert set(schedules_of(platform, engine_id)) == {"serve_engine", "stop_engine"}
    until(lambda: runs_of(platform, engine_id), bool)
    client.call("DELETE", f"/v1/engines/{engine_id}")
    until(lambda: schedules_of(platform, engine_id), lambda found: not found)
    assert runs_of(platform, engine_id) == []


def test_prefect_starts_and_ends_engines_at_the_minute_of_their_schedules(platform: Platform, client: Client) -> None:
    minute = next_minute(ahead=25)
    ends = engine(client, schedule(minute - timedelta(hours=2), minute))
    starts = engine(client, schedule(minute, minute + timedelta(hours=2)))
    assert (ends["status"], starts["status"]) == ("Creating", "Inactive")
    until(lambda: schedules_of(platform, starts["id"]), lambda found: set(found) == {"serve_engine", "stop_engine"})
    if datetime.now(UTC) < minute - timedelta(seconds=5):
        assert client.get(f"/v1/engines/{ends['id']}")["status"] != "Inactive"
    wait_until(minute)
    until_status(client, f"/v1/engines/{ends['id']}", "Inactive")
    until_status(client, f"/v1/engines/{starts['id']}", "Active")
    assert client.post("/v1/chat/completions", CHAT | {"model": MODEL})["choices"]
    for one in (ends, starts):
        client.call("DELETE", f"/v1/engines/{one['id']}")
        with pytest.raises(ApiError):
            client.get(f"/v1/engines/{one['id']}")
    until(lambda: {run["state_type"] for run in runs_of(platform, starts["id"])}, lambda found: found == {"CANCELLED"})
