"""One organization against another: operation by operation, nothing of it is seen, named, deployed or called."""

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from emissary.api.app import create_app
from emissary.client import Client
from emissary.store import tables
from emissary.store.database import dispose, transaction
from emissary.store.pipeline_tables import Pipeline, PipelineRun, Subscription, SubscriptionDelivery, Webhook
from emissary.store.tables import Checkpoint, Deployment, Engine, Project, TrafficEntry, TrainingJob
from emissary.up import Platform
from tests.api.refusals import GOOD, MODEL, envelope, upload
from tests.jobs import profiled
from tests.keys import make_key

NAME = "same-name"
PIPELINE: dict[str, Any] = {
    "train": {"base_model": MODEL, "test_functions": ["exact_match_shared"]},
    "train_test_split_ratio": 50,
}
DOCUMENT = {
    definition["operationId"]: (method.upper(), path, definition)
    for path, item in create_app().openapi()["paths"].items()
    for method, definition in item.items()
}
OPERATIONS = {name: (method, path) for name, (method, path, found) in DOCUMENT.items() if found.get("security")}
NAMING = {name: found for name, found in OPERATIONS.items() if "{" in found[1]}
IN_PROJECT = {name: found for name, found in NAMING.items() if re.search(r"project_id}.*{", found[1])}
CALLS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "a"}]},
    "/v1/completions": {"prompt": "a"},
    "/v1/embeddings": {"input": "a", "target": "b"},
    "/v1/classification": {"input": "a"},
    "/v1/regression": {"input": "a"},
}
# Those that begin something new at the root, and name nothing that is owned; and those that are for everybody, where
# a link in the path, or the request itself, is signed.
MAKES = {"createProject", "createEngine", "createKey", "createTestFunction"}
OPEN = {"healthz", "download", "putPart", "receiveWebhook"}


class Side:
    """One organization's client and the ids of one of each that it owns; none of it runs."""

    def __init__(self, platform: Platform, organization: str) -> None:
        self.client = Client(platform.api_url, make_key(organization))
        project = str(self.client.post("/v1/projects", {"name": "theirs"})["id"])
        dataset = str(upload(self.client, project, GOOD * 4)["id"])
        profiled(self.client, f"/v1/projects/{project}/datasets/{dataset}")  # nothing changes by itself behind that
        self.ids = {
            "project_id": project,
            "dataset_id": dataset,
            "training_job_id": f"tr-{organization}",
            "engine_id": f"engine-{organization}",
            "deployment_id": f"dp-{organization}",
            "pipeline_id": f"pl-{organization}",
            "pipeline_run_id": f"pr-{organization}",
            "webhook_id": f"wh-{organization}",
            "subscription_id": f"sub-{organization}",
            "delivery_id": f"sd-{organization}",
            "traffic_id": f"te-{organization}",
            "upload_id": self._begun(project),
            "key_id": str(self.client.get("/v1/keys")[0]["id"]),
            "name": f"of_{organization}",
            # A client of OpenAI's asks for a deployment's name there.
            "base_model_name": f"only-{organization}",
        }
        asyncio.run(self._serve())

    def _begun(self, project: str) -> str:
        begun = self.client.post(f"/v1/projects/{project}/datasets/uploads", {"file_name": "a.jsonl", "bytes": 5})
        return str(begun["id"])

    async def _serve(self) -> None:
        async with transaction() as session:
            project = await session.get_one(Project, self.ids["project_id"])
            owner, user = project.organization_id, project.created_by
            for row in (
                TrainingJob(
                    id=self.ids["training_job_id"], project_id=project.id, name="job", training_technique="SFT",
                    task_type="text-generation", base_model_option="pre-trained", base_model=MODEL, status="Success",
                    train_dataset_id=self.ids["dataset_id"], test_functions=[], hyper_parameters={}, created_by=user,
                ),
                Checkpoint(training_job_id=self.ids["training_job_id"], number=1, artifact="none"),
                Engine(
                    id=self.ids["engine_id"], organization_id=owner, name="engine", base_model=MODEL,
                    task_type="text-generation", resource_management_config={}, status="Inactive", created_by=user,
                ),
                Deployment(
                    id=self.ids["deployment_id"], organization_id=owner, project_id=project.id, name=NAME,
                    base_model=MODEL, task_type="text-generation", training_job_id=self.ids["training_job_id"],
                    checkpoint=1, engine_id=self.ids["engine_id"], status="Deactivated", created_by=user,
                ),
                Deployment(
                    id=f"{self.ids['deployment_id']}-2", organization_id=owner, project_id=project.id,
                    name=self.ids["base_model_name"], base_model=MODEL, task_type="text-generation",
                    training_job_id=self.ids["training_job_id"], checkpoint=1, engine_id=self.ids["engine_id"],
                    status="Deployed", created_by=user,
                ),
                TrafficEntry(
                    id=self.ids["traffic_id"], deployment_id=self.ids["deployment_id"], answer_id=f"answer-{owner}",
                    position=0, input={"prompt": "a"}, output="b", correction="c", state="corrected",
                    expires_at=datetime.now(UTC) + timedelta(days=1),
                ),
                Pipeline(
                    id=self.ids["pipeline_id"], project_id=project.id, name="pipeline", paused=True, created_by=user,
                    config=PIPELINE | {"name": "pipeline", "deployment_id": self.ids["deployment_id"]},
                ),
                PipelineRun(
                    id=self.ids["pipeline_run_id"], project_id=project.id, pipeline_id=self.ids["pipeline_id"],
                    trigger="request", status="Success", outcome="Skipped", created_by=user,
                ),
                Webhook(
                    id=self.ids["webhook_id"], pipeline_id=self.ids["pipeline_id"], name="webhook", scheme="standard",
                    parameters={}, created_by=user,
                ),
                Subscription(
                    id=self.ids["subscription_id"], project_id=project.id, name="subscription", events=[], paused=True,
                    url="https://example.com", created_by=user,
                ),
                SubscriptionDelivery(
                    id=self.ids["delivery_id"], subscription_id=self.ids["subscription_id"], event="ping", data={},
                    status="Dead", next_attempt_at=datetime.now(UTC), give_up_at=datetime.now(UTC),
                ),
                tables.TestingFunction(
                    id=f"tf-{owner}", organization_id=owner, name=self.ids["name"], content="", dependencies=[],
                    created_by=user,
                ),
            ):  # fmt: skip
                session.add(row)
                await session.flush()
        await dispose()

    def everything(self) -> dict[str, Any]:
        """All that the organization sees, less what changes by itself."""
        inside = f"/v1/projects/{self.ids['project_id']}"
        pipeline = f"pipelines/{self.ids['pipeline_id']}"
        kinds = (
            "datasets",
            "training-jobs",
            "deployments",
            "pipelines",
            f"{pipeline}/runs",
            f"{pipeline}/webhooks",
            "subscriptions",
            f"subscriptions/{self.ids['subscription_id']}/deliveries",
            f"deployments/{self.ids['deployment_id']}",
            f"deployments/{self.ids['deployment_id']}/traffic",
            f"datasets/uploads/{self.ids['upload_id']}",
        )
        paths = ["/v1/projects", "/v1/engines", "/v1/testing-functions", inside, f"/v1/engines/{self.ids['engine_id']}"]
        seen = {path: self.client.get(path) for path in [*paths, *(f"{inside}/{kind}" for kind in kinds)]}
        for part in seen[f"{inside}/{kinds[-1]}"]["parts"]:
            del part["url"]  # signed anew each time
        return seen | {"keys": [row | {"last_used_at": None} for row in self.client.get("/v1/keys")]}


@pytest.fixture(scope="module")
def theirs(platform: Platform) -> Side:
    return Side(platform, "owner")


@pytest.fixture(scope="module")
def ours(platform: Platform) -> Side:
    return Side(platform, "stranger")


def request(side: Side, operation_id: str, ids: dict[str, str]) -> httpx.Response:
    method, path = OPERATIONS[operation_id]
    filled = re.sub(r"{(\w+)}", lambda found: ids[found[1]], path)
    # A name that the owner has, so that an operation that would go by it alone is found out.
    body = (
        {}
        if method == "GET"
        else {"json": {"deployment_name": NAME, "name": "x", "checkpoint": 1, "repo": "acme/x", **ids}}
    )
    return side.client.http.request(method, filled, **body)  # type: ignore[arg-type]


def test_matrix_has_all_operations() -> None:
    reads = {name for name, (method, _) in OPERATIONS.items() if method == "GET"}
    calls = {name for name, (_, path) in OPERATIONS.items() if path in CALLS}
    assert set(DOCUMENT) == set(NAMING) | reads | calls | MAKES | OPEN
    assert set(CALLS) <= {path for _, path in OPERATIONS.values()}
    assert set(DOCUMENT) - set(OPERATIONS) == OPEN


@pytest.mark.parametrize("operation_id", NAMING)
def test_another_organizations_thing_is_not_found(ours: Side, theirs: Side, operation_id: str) -> None:
    before = theirs.everything()
    envelope(request(ours, operation_id, theirs.ids), 404, "object_not_found")
    assert theirs.everything() == before


def test_model_of_another_organization_is_not_found_by_openais_clients(ours: Side, theirs: Side) -> None:
    path = f"/v1/models/{theirs.ids['base_model_name']}"
    answers = []
    for side in (theirs, ours):
        bearer = {"X-API-Key": "", "Authorization": f"Bearer {side.client.http.headers['X-API-Key']}"}
        answers.append(side.client.http.get(path, headers=bearer))
    assert answers[0].json()["id"] == theirs.ids["base_model_name"]
    envelope(answers[1], 404, "object_not_found")


@pytest.mark.parametrize("operation_id", IN_PROJECT)
def test_another_organizations_thing_is_not_found_in_a_project_of_ones_own(
    ours: Side, theirs: Side, operation_id: str
) -> None:
    before = theirs.everything()
    ids = theirs.ids | {"project_id": ours.ids["project_id"]}
    envelope(request(ours, operation_id, ids), 404, "object_not_found")
    assert theirs.everything() == before


@pytest.mark.parametrize("operation_id", [name for name, (method, _) in OPERATIONS.items() if method == "GET"])
def test_nothing_that_is_read_names_what_is_anothers(ours: Side, theirs: Side, operation_id: str) -> None:
    for headers in ({}, {"X-API-Key": "", "Authorization": f"Bearer {ours.client.http.headers['X-API-Key']}"}):
        path = re.sub(r"{(\w+)}", lambda found: ours.ids[found[1]], OPERATIONS[operation_id][1])
        content = json.dumps(ours.client.http.get(path, headers=headers).json())
        assert not [name for name in theirs.ids.values() if name in content]


def test_what_is_anothers_cannot_be_trained_on(ours: Side, theirs: Side) -> None:
    path = f"/v1/projects/{ours.ids['project_id']}/training-jobs"
    body = {"base_model": MODEL, "train_dataset_id": theirs.ids["dataset_id"]}
    envelope(ours.client.http.post(path, json=body), 400, "invalid_input")
    body = {
        "base_model": MODEL,
        "train_dataset_id": ours.ids["dataset_id"],
        "test_dataset_id": theirs.ids["dataset_id"],
    }
    envelope(ours.client.http.post(path, json=body), 400, "invalid_input")
    body = {
        "base_model_option": "fine-tuned",
        "base_model": theirs.ids["training_job_id"],
        "checkpoint": 1,
        "train_dataset_id": ours.ids["dataset_id"],
    }
    refusal = ours.client.http.post(path, json=body)
    envelope(refusal, 400, "invalid_input")
    assert "base_model: there is no training job" in refusal.json()["error"]


def test_another_organizations_function_scores_and_rewards_nothing(ours: Side, theirs: Side) -> None:
    path, name = f"/v1/projects/{ours.ids['project_id']}/training-jobs", theirs.ids["name"]
    body = {"base_model": MODEL, "train_dataset_id": ours.ids["dataset_id"], "test_functions": [name]}
    envelope(ours.client.http.post(path, json=body), 400, "invalid_input")
    envelope(ours.client.http.post(f"{path}/grpo", json=body | {"reward": {name: 1}}), 400, "invalid_input")


def test_pipeline_neither_gathers_tests_on_nor_replaces_what_is_anothers(ours: Side, theirs: Side) -> None:
    path = f"/v1/projects/{ours.ids['project_id']}/pipelines"
    taken = (
        {"gather": {"datasets": [theirs.ids["dataset_id"]]}},
        {"test_dataset_id": theirs.ids["dataset_id"], "train_test_split_ratio": None},
        {"deployment_id": theirs.ids["deployment_id"]},
        {"gather": {"source": "traffic", "deployment_id": theirs.ids["deployment_id"]}},
    )
    for fields in taken:
        envelope(ours.client.http.post(path, json=PIPELINE | {"name": "taking"} | fields), 400, "invalid_input")


def test_what_is_anothers_cannot_be_deployed(ours: Side, theirs: Side) -> None:
    body = {"training_job_id": theirs.ids["training_job_id"], "checkpoint": 1, "name": "stolen"}
    response = ours.client.http.post(f"/v1/projects/{ours.ids['project_id']}/deployments", json=body)
    envelope(response, 400, "invalid_input")
    path = f"/v1/engines/{ours.ids['engine_id']}/deploy"
    stolen = {"project_id": theirs.ids["project_id"], "training_id": theirs.ids["training_job_id"], "checkpoint": 1}
    envelope(ours.client.http.post(path, json=stolen), 404, "object_not_found")
    stolen["project_id"] = ours.ids["project_id"]
    envelope(ours.client.http.post(path, json=stolen), 400, "invalid_input")


@pytest.mark.parametrize("path", [path for _, path in OPERATIONS.values() if path in CALLS])
def test_what_is_anothers_cannot_be_called(platform: Platform, theirs: Side, path: str) -> None:
    third = Client(platform.api_url, make_key("caller"))
    for model in (NAME, theirs.ids["deployment_id"], theirs.ids["base_model_name"]):
        envelope(third.http.post(path, json=CALLS[path] | {"model": model}), 404, "object_not_found")


def test_name_of_a_deployment_is_unique_within_an_organization_only(ours: Side, theirs: Side) -> None:
    for side in (ours, theirs):
        path = f"/v1/projects/{side.ids['project_id']}/deployments"
        assert NAME in [row["name"] for row in side.client.get(path)]
        body = {"training_job_id": MODEL, "checkpoint": 0, "name": NAME}
        refusal = side.client.http.post(path, json=body)
        envelope(refusal, 400, "invalid_input")
        assert "name" in refusal.json()["error"]


def test_read_only_key_reads_and_changes_nothing(platform: Platform, theirs: Side) -> None:
    reader = Client(platform.api_url, make_key("owner", "read-only"))
    before = theirs.everything()
    for method, path in OPERATIONS.values():
        filled = re.sub(r"{(\w+)}", lambda found: theirs.ids[found[1]], path)
        response = reader.http.request(method, filled)
        if path.startswith("/v1/keys"):
            envelope(response, 403, "forbidden")  # an admin's alone
        elif method == "GET":
            assert response.status_code in (200, 404), (path, response.text)
        else:
            envelope(response, 403, "forbidden")
    assert theirs.everything() == before
    assert reader.get("/v1/projects") == before["/v1/projects"]
