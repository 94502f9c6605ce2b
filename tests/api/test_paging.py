"""Lists by pages: walking them gives the whole list."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from emissary.client import Client
from emissary.store.database import dispose, transaction
from emissary.store.tables import Base, Checkpoint, Dataset, Deployment, Engine, Project, TrainingJob
from emissary.up import Platform
from tests.api.refusals import MODEL, envelope
from tests.conftest import ENCODER
from tests.engine_life import closed
from tests.keys import make_key

COUNT = 7


def rows(project: Project) -> Sequence[Base]:
    """Seven of each kind in the project, and seven checkpoints of the first job; nothing of it runs."""
    owner, user = project.organization_id, project.created_by
    made: list[Base] = []
    for number in range(COUNT):
        mark = f"{project.id}-{number}"
        made += [
            Dataset(
                id=f"ds-{mark}", project_id=project.id, name=f"d{number}", file_name="a.jsonl",
                artifact=f"datasets/ds-{mark}", bytes=1, sha256="0", report={}, upload_by=user,
            ),
            Engine(
                id=f"engine-{mark}", organization_id=owner, name=f"e{number}", base_model=MODEL,
                task_type="text-generation", resource_management_config={}, status="Inactive", created_by=user,
            ),
            TrainingJob(
                id=f"tr-{mark}", project_id=project.id, name=f"j{number}", training_technique="SFT",
                task_type="text-generation", base_model_option="pre-trained", base_model=MODEL,
                train_dataset_id=f"ds-{project.id}-0", test_functions=[], hyper_parameters={}, status="Success",
                created_by=user,
            ),
            Deployment(
                id=f"dp-{mark}", organization_id=owner, project_id=project.id, name=f"p{mark}", base_model=MODEL,
                task_type="text-generation", checkpoint=0, engine_id=f"engine-{project.id}-0", status="Terminated",
                created_by=user,
            ),
            Checkpoint(training_job_id=f"tr-{project.id}-0", number=number + 1, artifact="none"),
        ]  # fmt: skip
    order = [Dataset, Engine, TrainingJob, Deployment, Checkpoint]
    return sorted(made, key=lambda row: order.index(type(row)))


@pytest.fixture(scope="module")
def pager(platform: Platform) -> Client:
    return Client(platform.api_url, make_key("paging"))


@pytest.fixture(scope="module")
def project(pager: Client) -> str:
    """A project with seven of everything, one of seven projects. All rows of a kind have the same time."""
    made = [str(pager.post("/v1/projects", {"name": f"p{number}"})["id"]) for number in range(COUNT)]

    async def fill() -> None:
        async with transaction() as session:
            project = await session.get_one(Project, made[0])
            for row in rows(project):
                session.add(row)
                await session.flush()
        await dispose()

    asyncio.run(fill())
    return made[0]


LISTS = ["projects", "datasets", "training-jobs", "deployments", "engines", "checkpoints"]


def path_of(kind: str, project: str) -> str:
    if kind in ("projects", "engines"):
        return f"/v1/{kind}"
    inside = f"/v1/projects/{project}"
    return f"{inside}/training-jobs/tr-{project}-0/checkpoints" if kind == "checkpoints" else f"{inside}/{kind}"


def name_of(row: dict[str, Any]) -> object:
    return row.get("id", row.get("checkpoint"))


@pytest.mark.parametrize("limit", [1, 3, 7, 1000])
@pytest.mark.parametrize("kind", LISTS)
def test_pages_together_are_the_whole_list(pager: Client, project: str, kind: str, limit: int) -> None:
    whole = [name_of(row) for row in pager.get(path_of(kind, project))]
    assert len(whole) == len(set(whole)) == COUNT
    walked: list[object] = []
    url: str | None = f"{path_of(kind, project)}?limit={limit}"
    while url:
        response = pager.http.get(url)
        page = [name_of(row) for row in response.json()]
        assert len(page) <= limit
        walked += page
        url = response.links.get("next", {}).get("url")
        assert len(walked) <= COUNT
    assert walked == whole


@pytest.mark.parametrize("kind", LISTS)
def test_whole_list_has_no_link(pager: Client, project: str, kind: str) -> None:
    assert "Link" not in pager.http.get(path_of(kind, project)).headers


@pytest.mark.parametrize("kind", LISTS)
@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=-1", "limit=1001", "limit=x", "limit=", "limit=1.0", "limit=1_0", "after=%00"],
)
def test_bad_page_is_refused_naming_the_field(pager: Client, project: str, kind: str, query: str) -> None:
    response = pager.http.get(f"{path_of(kind, project)}?{query}")
    envelope(response, 400, "invalid_input")
    assert response.json()["error"].startswith(query.partition("=")[0])


def test_filters_of_engines_leave_out_the_others(platform: Platform) -> None:
    client = Client(platform.api_url, make_key("filters"))
    management = {"management_type": "schedule", "management_config": closed()}

    def engine(base_model: str, task_type: str) -> str:
        body = {"base_model": base_model, "task_type": task_type, "resource_management_config": management}
        return str(client.post("/v1/engines", body)["id"])

    chat, labels, vectors = (
        engine(MODEL, "text-generation"),
        engine(MODEL, "classification"),
        engine(ENCODER, "embedding"),
    )
    for query, wanted in {
        f"base_model={MODEL}": {chat, labels},
        "task_type=embedding": {vectors},
        f"base_model={MODEL}&task_type=classification": {labels},
        f"base_model={ENCODER}&task_type=classification": set(),
    }.items():
        assert {row["id"] for row in client.get(f"/v1/engines?{query}")} == wanted


def test_filters_stay_in_the_link(pager: Client, project: str) -> None:
    link = pager.http.get(f"/v1/engines?base_model={MODEL}&limit=2").links["next"]["url"]
    assert f"base_model={MODEL}" in link


def test_page_behind_what_is_not_there_or_is_another_organizations_is_refused(pager: Client, client: Client) -> None:
    foreign = client.post("/v1/projects", {"name": "foreign"})["id"]
    gone = pager.post("/v1/projects", {"name": "gone"})["id"]
    pager.delete(f"/v1/projects/{gone}")
    for after in ("ms-unknown", foreign, gone):
        for rest in ("", "&limit=3"):
            response = pager.http.get(f"/v1/projects?after={after}{rest}")
            envelope(response, 400, "invalid_input")
            assert response.json()["error"].startswith("after: ")
