"""A project whose deployments' answers can be kept."""

import json
from typing import Any

import httpx
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.api import capturing
from emissary.schemas.traffic import Capture
from emissary.store.deployments import Target
from emissary.store.tables import Deployment, Engine, Project, TrainingJob
from tests.api.backends import Backends
from tests.api.refusals import GOOD, MODEL
from tests.jobs import jsonl

LABELLED = jsonl(
    [{"prompt": f"text {label}", "completion": {"a": int(label == "a"), "b": int(label == "b")}} for label in "ab"]
)
TASKS = ("text-generation", "classification", "regression", "embedding")


def deployment(task: str, project: Project, job: str | None = None, name: str | None = None) -> Deployment:
    return Deployment(
        id=f"dp-{name or task}", organization_id=project.organization_id, project_id=project.id,
        name=f"captured-{name or task}", base_model=MODEL, task_type=task, checkpoint=1, engine_id=f"engine-{task}",
        training_job_id=job, status="Deployed", created_by=project.created_by,
    )  # fmt: skip


class Traffic:
    """A project with a deployment for each task type; that for text-generation answers."""

    def __init__(self, backends: Backends) -> None:
        self.backends = backends
        self.project = backends.request("POST", "/v1/projects", json={"name": "traffic"}).json()["id"]
        file = {"file": ("labelled.jsonl", LABELLED)}
        self.dataset = self.request("POST", "datasets", files=file).json()["id"]
        self.texts = self.request("POST", "datasets", files={"file": ("texts.jsonl", GOOD)}).json()["id"]
        self.engine: Engine | None = None
        backends.catalogue(self._fill)

    async def _fill(self, session: AsyncSession) -> None:
        project = await session.get_one(Project, self.project)
        job = TrainingJob(
            id=f"tr-{self.project}", project_id=project.id, name="job", training_technique="SFT",
            task_type="classification", base_model_option="pre-trained", base_model=MODEL, status="Success",
            train_dataset_id=self.dataset, test_functions=[], hyper_parameters={}, created_by=project.created_by,
        )  # fmt: skip
        session.add(job)
        await session.flush()
        for task in TASKS:
            engine = Engine(
                id=f"engine-{task}", organization_id=project.organization_id, name=task, base_model=MODEL,
                task_type=task, resource_management_config={}, status="Inactive", created_by=project.created_by,
            )  # fmt: skip
            session.add(engine)
            await session.flush()
            session.add(deployment(task, project, job.id if task == "classification" else None))
        session.add(deployment("embedding", project, name="ending"))

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        """The API's answer at a path in the project."""
        return self.backends.request(method, f"/v1/projects/{self.project}/{path}", **more)

    def of(self, task: str, method: str = "GET", path: str = "traffic", **more: Any) -> httpx.Response:
        """The API's answer at a path of the task type's deployment."""
        return self.request(method, f"deployments/dp-{task}/{path}", **more)

    def capture(self, task: str, **more: Any) -> None:
        assert self.of(task, "PUT", "capture", json=more).status_code == 200

    def write(self) -> None:
        self.backends.run(capturing.write_waiting())

    def add(self, task: str, request: dict[str, Any], answer: dict[str, Any]) -> None:
        """Capture this as if the deployment of this name, for which nothing runs here, had answered it."""
        path = {"embedding": "/v1/embeddings"}.get(task, f"/v1/{task}")
        recording = capturing.begin(path, Target(Engine(), f"dp-{task}", True, Capture()), request)
        assert recording is not None
        recording.add(json.dumps(answer).encode())
        recording.end()
        self.write()
