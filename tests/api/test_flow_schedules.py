"""Prefect's schedules follow the catalogue, and fire for the row that they belong to."""

from collections.abc import Iterator
from typing import Any

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.settings import PREFECT_API_URL, temporary_settings

from emissary.api import flow_schedules
from tests.api.backends import Backends
from tests.api.refusals import GOOD, MODEL

PIPELINE = {
    "name": "nightly",
    "train": {"base_model": MODEL, "test_functions": ["exact_match_shared"]},
    "train_test_split_ratio": 50,
    "schedule": {"cron": "0 3 * * *"},
}


@pytest.fixture
def pipeline(backends: Backends) -> Iterator[str]:
    """The path of a pipeline with a schedule."""
    project = f"/v1/projects/{backends.request('POST', '/v1/projects', json={'name': 'flow-schedules'}).json()['id']}"
    uploaded = backends.request("POST", f"{project}/datasets", files={"file": ("rows.jsonl", GOOD * 4)})
    assert uploaded.status_code == 201, uploaded.text
    made = backends.request("POST", f"{project}/pipelines", json=PIPELINE)
    assert made.status_code == 201, made.text
    path = f"{project}/pipelines/{made.json()['id']}"
    yield path
    assert backends.request("DELETE", path).status_code == 204
    assert applied(backends, path) is None


def schedules(path: str) -> Any:
    """A call that gives the pipeline's schedule in Prefect, None where there is none."""

    async def read(client: PrefectClient) -> tuple[Any, DeploymentSchedule | None]:
        deployment = (await client.read_deployment_by_name("retrain/retrain")).id
        found = await client.read_deployment_schedules(deployment)
        return deployment, next((row for row in found if row.slug == path.rpartition("/")[2]), None)

    return read


def applied(backends: Backends, path: str) -> DeploymentSchedule | None:
    """The schedule once Prefect was brought up to date."""

    async def apply() -> None:
        with temporary_settings({PREFECT_API_URL: backends.prefect_url}):
            await flow_schedules.apply()

    backends.run(apply())
    found: DeploymentSchedule | None = backends.prefect(schedules(path))[1]
    return found


@pytest.mark.parametrize("change", ["pause", "unpause", "another time"])
def test_schedule_that_is_paused_or_changed_still_fires_for_its_pipeline(
    backends: Backends, pipeline: str, change: str
) -> None:
    before = applied(backends, pipeline)
    assert before is not None
    if change == "another time":
        body = PIPELINE | {"schedule": {"interval_seconds": 3600}}
        assert backends.request("PUT", pipeline, json=body).status_code == 200
    else:
        assert backends.request("POST", f"{pipeline}/pause").status_code == 204
    if change == "unpause":
        applied(backends, pipeline)
        assert backends.request("POST", f"{pipeline}/unpause").status_code == 204
    after = applied(backends, pipeline)
    assert after is not None
    assert after.active is (change != "pause")
    assert (after.schedule == before.schedule) is (change != "another time")
    assert after.parameters == before.parameters == {"pipeline_id": pipeline.rpartition("/")[2]}


def test_schedule_whose_pipeline_was_forgotten_in_prefect_gets_it_back(backends: Backends, pipeline: str) -> None:
    before = applied(backends, pipeline)
    assert before is not None

    async def forget(client: PrefectClient) -> None:
        deployment, row = await schedules(pipeline)(client)
        await client.update_deployment_schedule(deployment, row.id, active=True)

    backends.prefect(forget)
    assert backends.prefect(schedules(pipeline))[1].parameters == {}
    after = applied(backends, pipeline)
    assert after is not None
    assert after.parameters == before.parameters
