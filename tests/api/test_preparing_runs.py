"""Flow runs of datasets: made by the sweep, once, few at a time; on a real catalogue and Prefect, without a worker."""

from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.client.schemas.objects import StateType
from prefect.states import Completed, Crashed, Running
from sqlalchemy import select

from emissary.api import submit
from emissary.errors import InvalidInput
from emissary.store import datasets, leases
from emissary.store.tables import Dataset
from tests.api.backends import Backends
from tests.api.refusals import GOOD


@pytest.fixture(autouse=True)
def alone(backends: Backends) -> None:
    """No dataset of another test waits or runs."""

    async def forget(session) -> None:  # type: ignore[no-untyped-def]
        for row in await session.scalars(select(Dataset).where(Dataset.status.in_(("Pending", "Running")))):
            row.status = "Success"

    backends.catalogue(forget)


def upload(backends: Backends) -> str:
    project = backends.request("POST", "/v1/projects", json={"name": "runs"}).json()["id"]
    file = {"file": ("rows.jsonl", GOOD * 4)}
    path = f"/v1/projects/{project}/datasets"
    return f"{path}/{backends.request('POST', path, files=file).json()['id']}"


def row(backends: Backends, path: str) -> Dataset:
    return backends.catalogue(lambda session: session.get_one(Dataset, path.rpartition("/")[2]))


def run_id(backends: Backends, path: str) -> UUID:
    found = row(backends, path).flow_run_id
    assert found is not None
    return found


def runs_of(backends: Backends, path: str) -> int:
    named = FlowRunFilter(name=FlowRunFilterName(any_=[path.rpartition("/")[2]]))
    return len(backends.prefect(lambda client: client.read_flow_runs(flow_run_filter=named)))


def test_sweep_submits_each_once_and_two_at_a_time(backends: Backends) -> None:
    paths = [upload(backends) for _ in range(3)]
    assert [row(backends, path).flow_run_id for path in paths] == [None] * 3
    backends.sweep()
    backends.sweep()
    assert [runs_of(backends, path) for path in paths] == [1] * submit.PREPARING_AT_ONCE + [0]
    backends.put(run_id(backends, paths[0]), Completed())
    backends.sweep()
    backends.sweep()
    assert [runs_of(backends, path) for path in paths] == [1, 1, 1]
    detail = backends.request("GET", paths[0]).json()
    assert (detail["profile_status"], detail["is_profiled"]) == ("Success", False)


def test_run_that_crashed_begins_again_and_fails_after_three(backends: Backends) -> None:
    path = upload(backends)
    backends.sweep()
    run = run_id(backends, path)
    for _ in range(2):
        backends.put(run, Crashed(message="Process exited with status code: -9."))
        backends.sweep()
        assert backends.state(run).type == StateType.SCHEDULED
    backends.put(run, Crashed(message="Out of memory: the kernel ended the process."))
    backends.sweep()
    backends.sweep()
    detail = backends.request("GET", path).json()
    assert detail["profile_status"] == "Failed"
    assert "Jobs can be trained on the dataset all the same" in detail["profile_error"]


def test_run_of_a_deleted_dataset_loses_its_lease_and_is_ended(backends: Backends) -> None:
    path = upload(backends)
    backends.sweep()
    run = run_id(backends, path)
    backends.put(run, Running())
    dataset = path.rpartition("/")[2]
    backends.catalogue(lambda session: leases.take(session, dataset, run, "here:1:0"))
    assert backends.request("DELETE", path).status_code == 204
    assert backends.catalogue(lambda session: leases.beats(session, [dataset])) == {}
    backends.sweep()
    assert backends.state(run).type == StateType.CANCELLING


def test_run_started_in_prefect_for_a_prepared_dataset_is_not_ended(backends: Backends) -> None:
    path = upload(backends)
    backends.sweep()
    backends.put(run_id(backends, path), Completed())
    backends.sweep()

    async def start(client) -> UUID:  # type: ignore[no-untyped-def]
        flow = await client.read_deployment_by_name("prepare_dataset/prepare_dataset")
        parameters = {"dataset_id": path.rpartition("/")[2]}
        made = await client.create_flow_run_from_deployment(flow.id, parameters=parameters)
        return UUID(str(made.id))

    run = backends.prefect(start)
    backends.put(run, Running())
    backends.sweep()
    assert backends.state(run).type == StateType.RUNNING

    async def adopt(session) -> None:  # type: ignore[no-untyped-def]
        datasets.adopt(await session.get_one(Dataset, path.rpartition("/")[2]), run)

    backends.catalogue(adopt)
    assert backends.request("GET", path).json()["profile_status"] == "Running"
    backends.put(run, Completed())
    backends.sweep()
    assert backends.request("GET", path).json()["profile_status"] == "Success"
    assert row(backends, path).attempt == 2


def test_run_does_not_take_a_dataset_that_another_prepares() -> None:
    mine = uuid4()
    dataset = Dataset(id="ds-1", status="Running", flow_run_id=uuid4(), attempt=1)
    with pytest.raises(InvalidInput, match="wait until it has ended"):
        datasets.adopt(dataset, mine)
    dataset.status = "Failed"
    datasets.adopt(dataset, mine)
    assert (dataset.flow_run_id, dataset.status, dataset.attempt) == (mine, "Running", 2)
    datasets.adopt(dataset, mine)
    assert dataset.attempt == 2


def test_profile_whose_tokens_nobody_could_count_is_made_again_once_there_is_a_model(backends: Backends) -> None:
    paths = [upload(backends) for _ in range(2)]
    backends.sweep()
    for path, tokens in zip(paths, (None, {"base_model": "one"}), strict=True):
        backends.put(run_id(backends, path), Completed())
        name = path.rpartition("/")[2]
        backends.catalogue(
            lambda session, name=name, tokens=tokens: datasets.record_profile(session, name, {"tokens": tokens}, "a")
        )
    backends.sweep()
    backends.catalogue(lambda session: datasets.profile_again(session, ("embedding", "regression")))
    assert [row(backends, path).status for path in paths] == ["Success", "Success"]
    backends.catalogue(lambda session: datasets.profile_again(session, ("embedding", "text-generation")))
    assert [row(backends, path).status for path in paths] == ["Pending", "Success"]
    before = row(backends, paths[0])
    backends.sweep()
    assert (before.flow_run_id, before.attempt) == (None, 2)
    assert backends.state(run_id(backends, paths[0])).type == StateType.SCHEDULED
