"""Pipelines that run when a dataset is uploaded: one run that will find it, and none where it is of no use."""

import asyncio
import time
from typing import Any
from urllib.parse import urlsplit

import pytest

from emissary.store import pipeline_runs
from emissary.store.database import transaction
from tests.api.backends import Backends
from tests.api.refusals import GOOD, MODEL, envelope
from tests.api.waiting import waiting_for_a_lock
from tests.jobs import until

TRAIN = {"base_model": MODEL, "test_functions": ["exact_match_shared"]}
GRADES = b'{"prompt": "a", "completion": 0.5}\n{"prompt": "b", "completion": 1.5}\n'


class Project:
    """A project with one dataset."""

    def __init__(self, backends: Backends) -> None:
        self.backends = backends
        made = backends.request("POST", "/v1/projects", json={"name": "triggers"}).json()
        self.path = f"/v1/projects/{made['id']}"
        self.upload()

    def upload(self, content: bytes = GOOD * 4, **headers: str) -> str:
        answer = self.backends.request("POST", f"{self.path}/datasets", **self._request(content, headers))
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def _request(self, content: bytes, headers: dict[str, str]) -> dict[str, Any]:
        keyed = {"headers": headers | {"X-API-Key": "ek-backends"}} if headers else {}
        return {"files": {"file": ("rows.jsonl", content)}} | keyed

    def pipeline(self, **fields: Any) -> str:
        body = {"name": "triggered", "train": TRAIN, "train_test_split_ratio": 50, "triggers": {"on_dataset": True}}
        answer = self.backends.request("POST", f"{self.path}/pipelines", json=body | fields)
        assert answer.status_code == 201, answer.text
        return f"{self.path}/pipelines/{answer.json()['id']}"

    def runs(self, pipeline: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.backends.request("GET", f"{pipeline}/runs").json()
        return found


@pytest.fixture
def project(backends: Backends) -> Project:
    return Project(backends)


def test_upload_begins_one_run_and_those_that_follow_begin_none_while_it_waits(project: Project) -> None:
    pipeline, other = project.pipeline(), project.pipeline(name="untriggered", triggers={})
    dataset = project.upload()
    project.upload()
    (run,) = project.runs(pipeline)
    assert (run["trigger"], run["status"]) == ("dataset", "Pending")
    detail = project.backends.request("GET", f"{pipeline}/runs/{run['id']}").json()
    assert (detail["trigger_id"], bool(detail["flow_run_id"])) == (dataset, True)
    assert project.runs(other) == []
    assert project.backends.request("POST", f"{pipeline}/runs/{run['id']}/cancel").status_code == 204
    project.upload()
    assert len(project.runs(pipeline)) == 2


def test_run_that_asks_for_other_datasets_is_not_waited_for(project: Project) -> None:
    pipeline = project.pipeline()
    known = project.backends.request("GET", f"{project.path}/datasets").json()[0]["id"]
    asked = project.backends.request("POST", f"{pipeline}/runs", json={"datasets": [known]})
    assert asked.status_code == 201
    project.upload()
    assert [run["trigger"] for run in project.runs(pipeline)] == ["dataset", "request"]


def test_upload_in_parts_begins_a_run_once(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMISSARY_HOME", str(project.backends.home))  # of the process that reads the rows
    # Of the task that completes the upload, which outlives the request and has none of its context.
    monkeypatch.setenv("PREFECT_API_URL", project.backends.prefect_url)
    pipeline = project.pipeline()
    begun = project.backends.request(
        "POST", f"{project.path}/datasets/uploads", json={"file_name": "a.jsonl", "bytes": len(GOOD)}
    ).json()
    assert project.runs(pipeline) == []
    part = urlsplit(begun["parts"][0]["url"]).path
    assert project.backends.request("PUT", part, content=GOOD).status_code == 204
    complete = f"{project.path}/datasets/uploads/{begun['id']}/complete"
    for _ in range(2):
        done = until(lambda: project.backends.request("POST", complete), lambda answer: answer.status_code != 202)
        assert done.status_code == 201, done.text
    (run,) = project.runs(pipeline)
    detail = project.backends.request("GET", f"{pipeline}/runs/{run['id']}").json()
    assert detail["trigger_id"] == done.json()["id"]


def test_repeated_and_refused_uploads_begin_nothing_more(project: Project) -> None:
    pipeline = project.pipeline()
    envelope(
        project.backends.request("POST", f"{project.path}/datasets", files={"file": ("a.jsonl", b"")}),
        400,
        "invalid_input",
    )
    assert project.runs(pipeline) == []
    key = f"upload-{time.time_ns()}"
    first = project.upload(**{"Idempotency-Key": key})
    (run,) = project.runs(pipeline)
    project.backends.request("POST", f"{pipeline}/runs/{run['id']}/cancel")
    assert project.upload(**{"Idempotency-Key": key}) == first
    assert len(project.runs(pipeline)) == 1


def test_dataset_of_another_task_type_or_project_begins_nothing(backends: Backends, project: Project) -> None:
    pipeline = project.pipeline()
    project.upload(GRADES)
    Project(backends).upload()
    assert project.runs(pipeline) == []


def test_paused_pipeline_is_not_triggered(project: Project) -> None:
    pipeline = project.pipeline(paused=True)
    project.upload()
    assert project.runs(pipeline) == []
    assert project.backends.request("POST", f"{pipeline}/unpause").status_code == 204
    project.upload()
    assert len(project.runs(pipeline)) == 1


def test_trigger_beside_named_datasets_is_refused(project: Project) -> None:
    known = project.upload()
    body = {"name": "named", "train": TRAIN, "train_test_split_ratio": 50, "gather": {"datasets": [known]}}
    answer = project.backends.request(
        "POST", f"{project.path}/pipelines", json=body | {"triggers": {"on_dataset": True}}
    )
    envelope(answer, 400, "invalid_input")
    assert answer.json()["error"].startswith("triggers.on_dataset: ")


def test_two_uploads_at_once_begin_one_run(project: Project) -> None:
    pipeline = project.pipeline()

    async def both() -> None:
        request = project._request(GOOD * 4, {})
        ask = project.backends.ask
        answers = await asyncio.gather(*(ask("POST", f"{project.path}/datasets", **request) for _ in range(4)))
        assert {answer.status_code for answer in answers} == {201}

    project.backends.run(both())
    assert len(project.runs(pipeline)) == 1


@pytest.mark.parametrize("commits", [True, False])
def test_upload_while_a_run_gathers_is_missed_by_nobody(project: Project, commits: bool, backends: Backends) -> None:
    pipeline = project.pipeline()
    project.upload()
    (run,) = project.runs(pipeline)

    async def upload_meanwhile() -> None:
        class Broken(Exception):
            pass

        try:
            async with transaction() as session:
                assert await pipeline_runs.gather(session, run["id"])
                request = project._request(GOOD * 4, {})
                uploading = asyncio.create_task(backends.ask("POST", f"{project.path}/datasets", **request))
                await waiting_for_a_lock(1)
                if not commits:
                    raise Broken
        except Broken:
            pass
        assert (await uploading).status_code == 201

    backends.run(upload_meanwhile())
    assert len(project.runs(pipeline)) == (2 if commits else 1)
