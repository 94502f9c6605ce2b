"""Schedules of engines and deployments that are refused, naming the field."""

from typing import Any

import pytest

from emissary.client import Client
from tests.api.refusals import MODEL, refused

GOOD = {"timezone": "Europe/Berlin", "start_time": "10:00", "end_time": "18:00", "days": ["monday"]}
SCHEDULES: dict[str, tuple[dict[str, Any], str]] = {
    "unknown timezone": ({"timezone": "Mars/Olympus"}, "timezone"),
    "timezone that is a path": ({"timezone": "../../etc/passwd"}, "timezone"),
    "the machine's timezone": ({"timezone": "localtime"}, "timezone"),
    "timezone as number": ({"timezone": 2}, "timezone"),
    "no timezone": ({"timezone": None}, "timezone"),
    "hour 24": ({"start_time": "24:00"}, "start_time"),
    "one digit": ({"start_time": "9:00"}, "start_time"),
    "seconds": ({"end_time": "18:00:00"}, "end_time"),
    "minute 60": ({"end_time": "18:60"}, "end_time"),
    "line feed": ({"end_time": "18:00\n"}, "end_time"),
    "other digits": ({"end_time": "1٨:00"}, "end_time"),
    "time as number": ({"start_time": 10}, "start_time"),
    "no end": ({"end_time": None}, "end_time"),
    "equal start and end": ({"end_time": "10:00"}, "end_time"),
    "no day": ({"days": []}, "days"),
    "unknown day": ({"days": ["monday", "caturday"]}, "days.1"),
    "days as text": ({"days": "monday"}, "days"),
}
each = pytest.mark.parametrize(("changed", "field"), SCHEDULES.values(), ids=SCHEDULES)


def without_none(schedule: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in schedule.items() if value is not None}


@each
def test_bad_schedule_of_an_engine_is_refused(
    client: Client, project: str, changed: dict[str, Any], field: str
) -> None:
    config = {"management_type": "schedule", "management_config": without_none(GOOD | changed)}
    with refused(client, project, f"resource_management_config.management_config.{field}:"):
        client.post("/v1/engines", {"base_model": MODEL, "resource_management_config": config})


@each
def test_bad_schedule_of_a_deployment_is_refused(
    client: Client, project: str, changed: dict[str, Any], field: str
) -> None:
    body = {"training_job_id": MODEL, "checkpoint": 0, "schedule": without_none(GOOD | changed)}
    with refused(client, project, f"schedule.{field}:"):
        client.post(f"/v1/projects/{project}/deployments", body)


def test_schedule_without_its_config_is_refused(client: Client, project: str) -> None:
    with refused(client, project, "resource_management_config.management_config.timezone"):
        config = {"management_type": "schedule"}
        client.post("/v1/engines", {"base_model": MODEL, "resource_management_config": config})


def test_config_of_the_other_management_is_refused(client: Client, project: str) -> None:
    with refused(client, project, "resource_management_config.management_config.timezone"):
        config: dict[str, Any] = {"management_type": "schedule", "management_config": {"inactive_duration": 60}}
        client.post("/v1/engines", {"base_model": MODEL, "resource_management_config": config})
    with refused(client, project, "resource_management_config.management_config.inactive_duration"):
        config = {"management_config": {"inactive_duration": "60"}}
        client.post("/v1/engines", {"base_model": MODEL, "resource_management_config": config})


def test_schedule_beside_an_inactive_timeout_is_refused(client: Client, project: str) -> None:
    body = {"training_job_id": MODEL, "checkpoint": 0, "schedule": GOOD, "inactive_timeout": 60}
    with refused(client, project, "schedule", "inactive_timeout"):
        client.post(f"/v1/projects/{project}/deployments", body)
