"""A pipeline's runs have their turn one after the other, and say which one they wait for."""

from sqlalchemy.ext.asyncio import AsyncSession

from emissary.store import pipeline_runs
from emissary.store.pipeline_tables import PipelineRun
from tests.api.backends import Backends
from tests.api.refusals import GOOD, MODEL

PIPELINE = {
    "name": "turns",
    "train": {"base_model": MODEL, "test_functions": ["exact_match_shared"]},
    "train_test_split_ratio": 50,
}


def test_run_that_waits_says_for_which_one(backends: Backends) -> None:
    project = f"/v1/projects/{backends.request('POST', '/v1/projects', json={'name': 'turns'}).json()['id']}"
    uploaded = backends.request("POST", f"{project}/datasets", files={"file": ("rows.jsonl", GOOD * 4)})
    assert uploaded.status_code == 201, uploaded.text
    path = f"{project}/pipelines/{backends.request('POST', f'{project}/pipelines', json=PIPELINE).json()['id']}/runs"
    first, second = (backends.request("POST", path, json={}).json()["id"] for _ in range(2))

    def has_its_turn(run: str) -> bool:
        return backends.catalogue(lambda session: pipeline_runs.has_its_turn(session, run))

    def reason(run: str) -> str | None:
        found: str | None = backends.request("GET", f"{path}/{run}").json()["reason"]
        return found

    assert (has_its_turn(first), has_its_turn(second)) == (True, False)
    assert (reason(first), reason(second)) == (None, f"It waits for the run {first}, which has not ended.")

    async def end(session: AsyncSession) -> None:
        (await session.get_one(PipelineRun, first)).status = "Cancelled"

    backends.catalogue(end)
    assert has_its_turn(second)
    assert reason(second) is None
