"""A project whose events are told to a real HTTP server."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select, update

from emissary.api.sending import Sender
from emissary.api.webhook_signatures import verified_standard
from emissary.ids import new_id
from emissary.store.pipeline_tables import Pipeline, PipelineRun
from emissary.store.tables import Dataset, Deployment, Engine, Project, TrainingJob, User
from tests.api.backends import Backends
from tests.api.refusals import MODEL
from tests.web_server import Web

NOT_YET = timedelta(0)
Message = tuple[str, dict[str, Any]]
"""The id of a delivery, and what was posted."""


class Subscribing:
    """A project, its subscriptions, and the sender of an API process, whose clock may be ahead."""

    def __init__(self, backends: Backends, web: Web, job_path: str | None = None) -> None:
        self.backends, self.web = backends, web
        self.job_path = job_path or backends.catalogue(self._add_job)
        self.job = self.job_path.rpartition("/")[2]
        self.project = self.job_path.removesuffix(f"/training-jobs/{self.job}")
        self.id = self.project.rpartition("/")[2]
        self.path = f"{self.project}/subscriptions"

    async def _add_job(self, session: Any) -> str:
        """Path of a job in a new project, for which nothing runs."""
        project, dataset, job = new_id("ms"), new_id("ds"), new_id("tr")
        user = (await session.scalars(select(User).limit(1))).one()
        for row in (
            Project(id=project, organization_id=user.organization_id, name="told", created_by=user.id),
            Dataset(
                id=dataset, project_id=project, name="d", file_name="a.jsonl", artifact=f"datasets/{dataset}", bytes=1,
                sha256="0", report={}, status="Success", upload_by=user.id,
            ),
            TrainingJob(
                id=job, project_id=project, name="triage", training_technique="SFT", task_type="text-generation",
                base_model_option="pre-trained", base_model=MODEL, status="Running", train_dataset_id=dataset,
                test_functions=[], hyper_parameters={}, state_at=datetime.now(UTC), created_by=user.id,
            ),
        ):  # fmt: skip
            session.add(row)
            await session.flush()
        return f"/v1/projects/{project}/training-jobs/{job}"

    def subscribe(self, *events: str, **fields: Any) -> dict[str, Any]:
        """A new subscription, to the server's /hook unless `fields` have another target."""
        target = {} if "block" in fields else {"url": f"{self.web.url}/hook"}
        body = {"name": "receiver", "events": list(events) or ["training_job.cancelled"]} | target | fields
        answer = self.backends.request("POST", self.path, json=body)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def ask(self, method: str, row: dict[str, Any], what: str = "", **more: Any) -> Any:
        """What the API answers about a subscription."""
        answer = self.backends.request(method, f"{self.path}/{row['id']}{what}", **more)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def deliveries(self, row: dict[str, Any], status: str | None = None) -> list[dict[str, Any]]:
        """The newest first."""
        query = "" if status is None else f"?status={status}"
        return list(self.ask("GET", row, f"/deliveries{query}"))

    def delivery(self, row: dict[str, Any]) -> dict[str, Any]:
        """The only one."""
        (found,) = self.deliveries(row)
        return found

    def send(self, ahead: timedelta = NOT_YET) -> None:
        """Send what is due, as the API would that much later."""

        async def work() -> None:
            sender = Sender(lambda: datetime.now(UTC) + ahead)
            await sender.begin()
            await sender.finish()

        self.backends.run(work())

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Have the server answer so from now on."""
        self.web.answers["/hook"] = (status, headers, body)

    def received(self, *secrets: str) -> list[Message]:
        """What the server was sent, as somebody with each of the secrets reads it."""
        found = []
        for (_, headers), body in zip(self.web.asked, self.web.posted, strict=True):
            lower = {name.lower(): value for name, value in headers.items()}
            for secret in secrets:
                key = base64.b64decode(secret.removeprefix("whsec_"))
                assert verified_standard([key], lower, body) == lower["webhook-id"]
            found.append((lower["webhook-id"], json.loads(body)))
        return found

    def change(self, kind: type[TrainingJob | Deployment | PipelineRun], **values: Any) -> None:
        """Write these columns of the project's rows of a kind, in a transaction of their own."""
        statement = update(kind).where(kind.project_id == self.id).values(**values)
        self.backends.catalogue(lambda session: session.execute(statement))

    def add_rows(self, deployment: str = "Pending") -> None:
        """A deployment, and a pipeline with a run; nothing of it runs."""

        async def add(session: Any) -> None:
            project = await session.get_one(Project, self.id)
            user = project.created_by
            for row in (
                Engine(
                    id=f"engine-{self.id}", organization_id=project.organization_id, name="engine", base_model=MODEL,
                    task_type="text-generation", resource_management_config={"management_type": "inactive_timeout"},
                    status="Inactive", created_by=user,
                ),
                Deployment(
                    id=f"dp-{self.id}", organization_id=project.organization_id, project_id=self.id, name=self.id,
                    base_model=MODEL, task_type="text-generation", training_job_id=self.job, checkpoint=1,
                    engine_id=f"engine-{self.id}", status=deployment, state_at=datetime.now(UTC), created_by=user,
                ),
                Pipeline(
                    id=f"pl-{self.id}", project_id=self.id, name="nightly", paused=True, created_by=user,
                    config={"name": "nightly"},
                ),
                PipelineRun(
                    id=f"pr-{self.id}", project_id=self.id, pipeline_id=f"pl-{self.id}", trigger="request",
                    status="Running", created_by=user,
                ),
            ):  # fmt: skip
                session.add(row)
                await session.flush()

        self.backends.catalogue(add)
