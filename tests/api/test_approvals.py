"""Runs of pipelines that wait for a person, on a real catalogue and Prefect; the tests are the run's process."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import StateType
from prefect.states import Running, Suspended
from sqlalchemy import select

from emissary.schemas.decisions import Contender, Decision, Replaced
from emissary.schemas.pipelines import Approval
from emissary.store import approvals, pipeline_runs
from emissary.store.pipeline_tables import PipelineRun
from emissary.store.tables import Deployment, Engine, Project, TrainingJob
from tests.api.backends import Backends
from tests.api.refusals import MODEL

REJECTION = {"reason": "The tone is wrong."}


class Waiting:
    """A run that passed the gate, and its flow run."""

    def __init__(self, backends: Backends, **gate: Any) -> None:
        self.backends = backends
        job = backends.new_job()
        project, self.job_id = job.split("/")[3], job.rpartition("/")[2]
        body = {
            "name": "asking",
            "train_test_split_ratio": 50,
            "train": {"base_model": MODEL, "test_functions": ["exact_match_shared"]},
            "gate": {"approval": True} | gate,
        }
        pipelines = f"/v1/projects/{project}/pipelines"
        self.project, self.pipeline = project, backends.request("POST", pipelines, json=body).json()["id"]
        made = backends.request("POST", f"{pipelines}/{self.pipeline}/runs").json()
        self.id, self.path = made["id"], f"{pipelines}/{self.pipeline}/runs/{made['id']}"
        self.deployment = backends.catalogue(self._deployed)
        challenger = Contender(training_job_id=self.job_id, checkpoint=2, scores={})
        replaces = Replaced(deployment_id=self.deployment, training_job_id=self.job_id, checkpoint=1)
        decision = Decision(
            promoted=True, rules=[], test_rows=1, challenger=challenger, champion=None, replaces=replaces
        )
        backends.catalogue(lambda session: pipeline_runs.decide(session, self.id, decision))
        backends.put(self.flow_run, Running())
        backends.sweep()

    async def _deployed(self, session: Any) -> str:
        run = await session.get_one(PipelineRun, self.id)
        run.training_job_id = self.job_id
        owner = (await session.get_one(Project, self.project)).organization_id
        engine = Engine(
            id=f"engine-{self.id}", organization_id=owner, name=self.id, base_model=MODEL, task_type="text-generation",
            resource_management_config={}, status="Inactive", created_by=run.created_by,
        )  # fmt: skip
        session.add(engine)
        await session.flush()
        job = await session.get_one(TrainingJob, self.job_id)
        row = Deployment(
            id=f"dp-{self.id}", organization_id=owner, project_id=self.project, name=self.id, base_model=MODEL,
            task_type=job.task_type, training_job_id=self.job_id, checkpoint=1, engine_id=engine.id,
            status="Deactivated", created_by=run.created_by,
        )  # fmt: skip
        session.add(row)
        return str(row.id)

    @property
    def row(self) -> PipelineRun:
        return self.backends.catalogue(lambda session: session.get_one(PipelineRun, self.id))

    @property
    def flow_run(self) -> UUID:
        found = self.row.flow_run_id
        assert found is not None
        return found

    def ask(self) -> Approval | None:
        """What the run's process does before it is suspended, and once it goes on."""
        return self.backends.catalogue(lambda session: approvals.ask(session, self.id))

    def suspend(self) -> None:
        self.backends.put(self.flow_run, Suspended(pause_key=str(uuid4())))
        self.backends.sweep()

    def change(self, **values: Any) -> None:
        """Change what is kept of the approval."""

        async def write(session: Any) -> None:
            run = await session.get_one(PipelineRun, self.id)
            run.approval = run.approval | values

        self.backends.catalogue(write)

    def post(self, what: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        answer = self.backends.request("POST", f"{self.path}/{what}", json=body or {})
        return answer.status_code, answer.json()

    def state(self) -> tuple[StateType, str | None]:
        state = self.backends.state(self.flow_run)
        return state.type, state.name


@pytest.fixture
def waiting(backends: Backends) -> Waiting:
    """A run that is suspended until somebody has answered."""
    found = Waiting(backends)
    found.ask()
    found.suspend()
    return found


SUSPENDED = (StateType.PAUSED, "Suspended")
RESUMING = (StateType.SCHEDULED, "Resuming")


def test_run_is_pending_and_says_what_it_waits_for(waiting: Waiting) -> None:
    waiting.backends.sweep(seconds=1)
    found = waiting.backends.request("GET", waiting.path).json()
    assert (found["status"], found["outcome"], found["approval"]["approved"]) == ("Pending", None, None)
    assert found["reason"].startswith("It passed the gate and waits for a person's approval until ")
    assert 71 * 3600 < found["approval"]["until"] - found["created_at"] <= 73 * 3600
    assert waiting.state() == SUSPENDED


def test_approved_run_goes_on_and_knows_who_approved(waiting: Waiting) -> None:
    status, detail = waiting.post("approve", {"reason": "Looks fine."})
    assert status == 200
    assert detail["approval"] | {"until": 0, "at": 0} == {
        "until": 0,
        "approved": True,
        "by": waiting.row.created_by,
        "at": 0,
        "reason": "Looks fine.",
    }
    assert waiting.state() == RESUMING
    asked = waiting.ask()
    assert asked is not None
    assert asked.approved
    assert waiting.post("reject", REJECTION)[0] == 400


def test_rejected_run_goes_on_to_its_end(waiting: Waiting) -> None:
    status, detail = waiting.post("reject", REJECTION)
    assert (status, detail["approval"]["approved"]) == (200, False)
    assert waiting.state() == RESUMING
    refused = waiting.post("approve")
    assert (refused[0], "waits no more" in refused[1]["error"]) == (400, True)
    asked = waiting.ask()
    assert asked is not None
    assert (asked.approved, asked.reason) == (False, REJECTION["reason"])


def test_rejection_needs_a_reason(waiting: Waiting) -> None:
    for body in ({}, {"reason": ""}, {"reason": None}):
        assert waiting.post("reject", body)[0] == 400
    assert waiting.state() == SUSPENDED


def test_run_that_waits_for_nobody_is_not_approved(backends: Backends) -> None:
    running = Waiting(backends, approval=False)
    assert running.ask() is None
    for what, body in (("approve", None), ("reject", REJECTION)):
        status, error = running.post(what, body)
        assert (status, "does not wait for approval (status Running)" in error["error"]) == (400, True)


def test_what_is_said_before_the_run_is_suspended_wakes_it_afterwards(backends: Backends) -> None:
    run = Waiting(backends)
    run.ask()
    assert run.post("approve")[0] == 200
    assert run.state()[0] == StateType.RUNNING
    run.suspend()  # sweeps, too
    assert run.state() == RESUMING


def test_nobody_is_waited_for_longer_than_the_pipeline_says(waiting: Waiting) -> None:
    waiting.change(until=1)
    assert waiting.post("approve")[0] == 400
    waiting.backends.sweep()
    assert waiting.state() == RESUMING
    asked = waiting.ask()
    assert asked is not None
    assert (asked.approved, asked.by, asked.reason) == (False, None, "Nobody approved it in time.")


def test_approval_is_refused_where_something_else_is_deployed_by_now(waiting: Waiting) -> None:
    async def redeploy(session: Any) -> None:
        row = await session.scalar(select(Deployment).where(Deployment.id == waiting.deployment))
        row.checkpoint = 7

    waiting.backends.catalogue(redeploy)
    status, error = waiting.post("approve")
    assert (status, "serves another checkpoint by now" in error["error"]) == (400, True)
    assert waiting.state() == SUSPENDED
    assert waiting.post("reject", REJECTION)[0] == 200


def test_suspended_run_is_cancelled_at_once(waiting: Waiting) -> None:
    assert waiting.backends.request("POST", f"{waiting.path}/cancel").status_code == 204
    assert waiting.state()[0] == StateType.CANCELLED
    status, error = waiting.post("approve")
    assert (status, "status Cancelled" in error["error"]) == (400, True)
