"""Where a deployment goes and what it is called when the request does not say; no engine of these runs."""

import asyncio
from typing import Any

import pytest

from emissary.client import Client
from emissary.store.database import dispose, transaction
from emissary.store.tables import Checkpoint, Project, TrainingJob
from emissary.up import Platform
from tests.api.refusals import GOOD, MODEL, envelope, upload
from tests.engine_life import closed
from tests.keys import make_key


@pytest.fixture(scope="module")
def owner(platform: Platform) -> Client:
    return Client(platform.api_url, make_key("deployments"))


def job_in(client: Client, name: str) -> tuple[str, str]:
    """(path of the project's deployments, id) of a finished job in a project of its own, with two checkpoints."""
    project = str(client.post("/v1/projects", {"name": name})["id"])
    dataset = str(upload(client, project, GOOD * 4)["id"])
    job_id = f"tr-{project}"

    async def fill() -> None:
        async with transaction() as session:
            user = (await session.get_one(Project, project)).created_by
            session.add(
                TrainingJob(
                    id=job_id, project_id=project, name=name, training_technique="SFT", task_type="text-generation",
                    base_model_option="pre-trained", base_model=MODEL, status="Success", train_dataset_id=dataset,
                    test_functions=[], hyper_parameters={}, best_checkpoint=2, created_by=user,
                )
            )  # fmt: skip
            await session.flush()
            session.add_all([Checkpoint(training_job_id=job_id, number=number, artifact="none") for number in (1, 2)])
        await dispose()

    asyncio.run(fill())
    return f"/v1/projects/{project}/deployments", job_id


def deploy(client: Client, job: tuple[str, str], **more: Any) -> dict[str, Any]:
    path, job_id = job
    made = client.post(path, {"training_job_id": job_id, "schedule": closed()} | more)
    found: dict[str, Any] = client.get(f"{path}/{made['id']}")
    assert found["status"] == "Deactivated"
    return found


def test_deployments_find_a_fitting_engine_or_make_one_and_are_named_after_their_job(owner: Client) -> None:
    job, other = job_in(owner, "tickets"), job_in(owner, "mails")
    first = deploy(owner, job, checkpoint=1)
    assert (first["name"], first["checkpoint"]) == ("tickets-checkpoint-1", 1)
    engine = owner.get(f"/v1/engines/{first['engine_id']}")
    assert (engine["name"], engine["base_model"], engine["status"]) == ("tickets-engine", MODEL, "Inactive")
    best, base = deploy(owner, job, checkpoint="best"), deploy(owner, job, checkpoint=0)
    assert (best["name"], best["checkpoint"]) == ("tickets-checkpoint-2", 2)
    assert (base["name"], base["base_model"]) == ("tickets-checkpoint-0", MODEL)
    named = deploy(owner, other, checkpoint=1, name="mine")
    # All four are of one base model and run at the same times.
    assert {row["engine_id"] for row in (best, base, named)} == {first["engine_id"]}
    apart = deploy(owner, other, checkpoint=1, schedule=closed(2))
    assert apart["engine_id"] != first["engine_id"]
    assert owner.get(f"/v1/engines/{apart['engine_id']}")["name"] == "mails-engine"


def test_name_is_taken_once_in_an_organization_and_free_again_after_deletion(platform: Platform, owner: Client) -> None:
    job, other = job_in(owner, "orders"), job_in(owner, "orders")
    first = deploy(owner, job, checkpoint=1)
    path, job_id = other
    for body in ({}, {"name": "orders-checkpoint-1"}):
        refused = owner.http.post(path, json={"training_job_id": job_id, "checkpoint": 1, "schedule": closed()} | body)
        envelope(refused, 400, "invalid_input")
        assert "'orders-checkpoint-1'" in refused.json()["error"]
    stranger = Client(platform.api_url, make_key("deployments-2"))
    assert deploy(stranger, job_in(stranger, "orders"), checkpoint=1)["name"] == first["name"]
    owner.delete(f"{job[0]}/{first['id']}")
    assert deploy(owner, other, checkpoint=1)["name"] == first["name"]
