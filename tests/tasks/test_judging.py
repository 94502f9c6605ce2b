"""What a run finds out of a judge's deployment, in a catalogue of its own."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from prefect.logging import disable_run_logger
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.errors import InvalidInput, Unavailable
from emissary.judges import Judge, JudgeFunction
from emissary.store import judges, tables, testing_functions
from emissary.store.database import dispose, transaction
from emissary.store.tables import Dataset, Deployment, Engine, Organization, Project, TrainingJob
from emissary.store.users import Caller, ensure_user
from tasks import judging, serving
from tasks.catalogue import in_catalogue
from tests.engine_life import closed
from tests.own_home import own_catalogue

REPORT = {"labels": ["polite", "rude"], "label_kind": "multiclass"}
TIMEOUT = {"management_type": "inactive_timeout", "management_config": {"inactive_duration": 60}}
SCHEDULE = {"management_type": "schedule", "management_config": closed()}


def in_transaction(work: Callable[[AsyncSession], Coroutine[Any, Any, Any]]) -> Any:
    async def run() -> Any:
        async with transaction() as session:
            found = await work(session)
        await dispose()
        return found

    return asyncio.run(run())


@pytest.fixture(scope="module")
def caller() -> Iterator[Caller]:
    """Somebody with deployments of each kind, none of which runs; `manners` is a classifier."""

    async def fill(session: AsyncSession) -> Caller:
        user = await ensure_user(session, "somebody")
        organization = user.organization_id
        session.add(Organization(id="org-other", name="other"))
        session.add(Project(id="ms-1", organization_id=organization, name="judging", created_by=user.id))
        await session.flush()
        session.add(
            Dataset(
                id="ds-1", project_id="ms-1", name="tone", file_name="tone.jsonl", artifact="datasets/1", bytes=1,
                sha256="0" * 64, report=REPORT, upload_by=user.id,
            )
        )  # fmt: skip
        await session.flush()
        for task_type in ("classification", "regression", "embedding"):
            session.add(
                TrainingJob(
                    id=f"tr-{task_type}", project_id="ms-1", name=task_type, training_technique="SFT",
                    task_type=task_type, base_model_option="pre-trained", base_model="all-MiniLM-L6-v2",
                    train_dataset_id="ds-1", test_functions=[], hyper_parameters={}, status="Success",
                    created_by=user.id,
                )
            )  # fmt: skip
            session.add(
                Engine(
                    id=f"engine-{task_type}", organization_id=organization, name=task_type, status="Inactive",
                    base_model="all-MiniLM-L6-v2", task_type=task_type, created_by=user.id,
                    resource_management_config=SCHEDULE if task_type == "regression" else TIMEOUT,
                )
            )  # fmt: skip
        await session.flush()
        for name, task_type in (
            ("manners", "classification"), ("price", "regression"), ("near", "embedding"), ("old", "classification")
        ):  # fmt: skip
            session.add(
                Deployment(
                    id=f"dp-{name}", organization_id=organization, project_id="ms-1", name=name,
                    base_model="all-MiniLM-L6-v2", task_type=task_type, training_job_id=f"tr-{task_type}",
                    checkpoint=1, engine_id=f"engine-{task_type}", created_by=user.id,
                    status="Terminated" if name == "old" else "Deactivated",
                )
            )  # fmt: skip
        return Caller(user.id, organization, "member")

    with own_catalogue():
        yield in_transaction(fill)


@pytest.mark.parametrize("named", ["manners", "dp-manners"])
def test_a_judge_keeps_the_id_of_its_deployment(caller: Caller, named: str) -> None:
    wanted = Judge(deployment_id=named, label="rude")
    found = in_transaction(lambda session: judges.settle(session, caller.organization_id, wanted))
    assert found == Judge(deployment_id="dp-manners", label="rude")


@pytest.mark.parametrize(
    ("organization", "deployment", "label", "sentence"),
    [
        ("own", "nobody", "rude", "judge.deployment_id: there is no deployment 'nobody'."),
        ("own", "old", "rude", "judge.deployment_id: there is no deployment 'old'."),
        ("other", "dp-manners", "rude", "judge.deployment_id: there is no deployment 'dp-manners'."),
        ("own", "manners", None, "judge.label: give one of the labels of the deployment 'manners': polite, rude."),
        ("own", "manners", "Rude", "judge.label: 'Rude' is not one of the labels of the deployment 'manners': polite, "
         "rude."),
        ("own", "price", "rude", "judge.label: the deployment 'price' is a regression, whose number is the score; "
         "leave it out."),
        ("own", "near", None, "judge.deployment_id: the deployment 'near' is for embedding; a judge is one for "
         "classification or regression."),
    ],
)  # fmt: skip
def test_a_judge_that_does_not_fit_is_refused(
    caller: Caller, organization: str, deployment: str, label: str | None, sentence: str
) -> None:
    wanted, of = Judge(deployment_id=deployment, label=label), organization
    organization_id = caller.organization_id if of == "own" else "org-other"
    with pytest.raises(InvalidInput) as refused:
        in_transaction(lambda session: judges.settle(session, organization_id, wanted))
    assert str(refused.value) == sentence


@pytest.fixture
def judge(caller: Caller) -> Iterator[JudgeFunction]:
    """The testing function `polite`, which asks `manners`, and a job `tr-1` that it scores."""
    asks = Judge(deployment_id="dp-manners", label="polite")

    async def add(session: AsyncSession) -> None:
        await testing_functions.create(session, caller, "polite", content=None, dependencies=[], judge=asks)
        session.add(
            TrainingJob(
                id="tr-1", project_id="ms-1", name="judged", training_technique="GRPO", task_type="text-generation",
                base_model_option="pre-trained", base_model="SmolLM2-135M-Instruct", train_dataset_id="ds-1",
                test_functions=["exact_match_shared", "polite"], reward_functions={"polite": 1.0}, hyper_parameters={},
                status="Pending", created_by=caller.user_id,
            )
        )  # fmt: skip

    async def remove(session: AsyncSession) -> None:
        await session.execute(delete(TrainingJob).where(TrainingJob.id == "tr-1"))
        await session.execute(delete(tables.TestingFunction))
        await session.execute(update(Deployment).where(Deployment.id == "dp-manners").values(status="Deactivated"))

    in_transaction(add)
    yield JudgeFunction(name="polite", judge=asks)
    in_transaction(remove)


@pytest.mark.parametrize(
    ("status", "technique", "needed"),
    [
        ("Pending", "GRPO", False),
        ("Running", "GRPO", True),
        ("Running", "SFT", False),
        ("Testing", "SFT", True),
        ("Testing", "GRPO", True),
        ("Success", "GRPO", False),
    ],
)
def test_an_engine_is_in_use_while_it_judges(judge: JudgeFunction, status: str, technique: str, needed: bool) -> None:
    async def look(session: AsyncSession) -> list[bool]:
        values = {"status": status, "training_technique": technique}
        await session.execute(update(TrainingJob).where(TrainingJob.id == "tr-1").values(values))
        return [
            await judges.engine_in_use(session, f"engine-{task_type}") for task_type in ("classification", "regression")
        ]

    assert in_transaction(look) == [needed, False]


def test_a_job_is_scored_by_its_judge_while_the_deployment_is_there(judge: JudgeFunction) -> None:
    async def functions(session: AsyncSession) -> Any:
        return await testing_functions.of_job(session, await session.get_one(TrainingJob, "tr-1"))

    assert in_transaction(functions)[1] == judge
    gone = update(Deployment).where(Deployment.id == "dp-manners").values(status="Terminated")
    in_transaction(lambda session: session.execute(gone))
    sentence = (
        r"test_functions\[1\]: the judge 'polite' asks the deployment dp-manners, which is gone; give it another with "
        "PUT /v1/testing-functions/polite"
    )
    with pytest.raises(InvalidInput, match=sentence):
        in_transaction(functions)
    with pytest.raises(Unavailable, match=r"cannot ask its deployment dp-manners: it is Terminated\. Give the judge"):
        asyncio.run(_asked(judge))


async def _asked(function: JudgeFunction) -> None:
    try:
        await judging.score(function, [("Say red.", "red", "please")])
    finally:
        await dispose()


def test_a_run_has_an_engine_started_that_has_ended_and_says_when_it_does_not_come(
    judge: JudgeFunction, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "PATIENCE_SECONDS", 1.0)
    with pytest.raises(Unavailable) as refused:
        asyncio.run(_asked(judge))
    assert str(refused.value).startswith(
        "The judge 'polite' cannot ask its deployment dp-manners: its engine engine-classification is Creating and the "
        "deployment Reactivating after 1 s."
    )
    query = select(Engine).where(Engine.id == "engine-classification")
    started = in_transaction(lambda session: session.scalar(query))
    assert (started.status, started.flow_run_id, started.attempt) == ("Creating", None, 2)


def test_an_engine_outside_its_schedule_is_not_started(caller: Caller) -> None:
    price = JudgeFunction(name="price", judge=Judge(deployment_id="dp-price"))
    with pytest.raises(Unavailable, match="dp-price: The engine engine-regression runs by a schedule") as refused:
        asyncio.run(_asked(price))
    assert refused.value.code == "outside_schedule"


def test_an_idle_engine_goes_on_while_it_judges(judge: JudgeFunction) -> None:
    app = FastAPI()
    app.state.last_access = lambda: 0
    engine = Engine(
        id="engine-classification",
        base_model="all-MiniLM-L6-v2",
        resource_management_config=TIMEOUT | {"management_config": {"inactive_duration": 1}},
    )

    async def set_status(session: AsyncSession, status: str) -> None:
        await session.execute(update(TrainingJob).where(TrainingJob.id == "tr-1").values(status=status))

    async def run() -> str:
        await in_catalogue(set_status, "Testing")
        with disable_run_logger():
            idle = asyncio.create_task(serving.until_idle.fn(engine, app))
            ended, _ = await asyncio.wait({idle}, timeout=2.5)  # more than it would take to end
            assert not ended
            await in_catalogue(set_status, "Success")
            said = await asyncio.wait_for(idle, 60)
        await dispose()
        return said

    assert asyncio.run(run()) == "No request for 1 s."
