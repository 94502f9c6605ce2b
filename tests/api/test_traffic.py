"""What deployments answer is kept where that is asked for, corrected by people, and removed. With a real engine."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import uvicorn
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.api import capturing
from emissary.schemas.traffic import Capture
from emissary.secret_files import signing_key
from emissary.serving.batching import Batcher
from emissary.serving.generation import Generator
from emissary.serving.server import create_engine_app
from emissary.serving.token import engine_token
from emissary.settings import settings
from emissary.store import traffic
from emissary.store.deployments import Target
from emissary.store.tables import Engine, Project, TrafficEntry
from tests.api.backends import Backends
from tests.api.captured_traffic import TASKS, Traffic, deployment
from tests.api.refusals import MODEL, envelope

ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say red."}]


@pytest.fixture(scope="module")
def made(backends: Backends) -> Traffic:
    return Traffic(backends)


@pytest.fixture
def captured(made: Traffic) -> Iterator[Traffic]:
    """All four capture, and have captured nothing."""
    for task in TASKS:
        made.capture(task)
    yield made
    for task in TASKS:
        made.of(task, "DELETE")
        made.of(task, "DELETE", "capture")


@pytest.fixture(scope="module")
def engine(backends: Backends, made: Traffic, base_model_dir: Path) -> Iterator[str]:
    """The name of the deployment whose engine runs, in a thread of this process."""
    generator = Generator(base_model_dir, torch.float32)
    batcher = Batcher(generator)

    async def token(_: AsyncSession) -> str:
        return engine_token(signing_key(settings()).get_secret_value(), "engine-text-generation")

    app = create_engine_app(batcher, generator, base_model=MODEL, token=backends.catalogue(token), fetch=Path)
    app.state.load("dp-text-generation", None)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()

    async def set_to(session: AsyncSession, **values: Any) -> None:
        await session.execute(update(Engine).where(Engine.id == "engine-text-generation").values(values))

    endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
    backends.catalogue(lambda session: set_to(session, status="Active", endpoint=endpoint))
    yield "captured-text-generation"
    backends.catalogue(lambda session: set_to(session, status="Inactive", endpoint=None))
    server.should_exit = True
    thread.join()
    batcher.close()


def ask(made: Traffic, model: str, stream: bool = False, **more: Any) -> httpx.Response:
    body = {"model": model, "messages": ASKED, "max_tokens": 3, "temperature": 0, "stream": stream}
    return made.backends.request("POST", "/v1/chat/completions", json=body | more)


def test_whole_and_streamed_answers_are_kept_under_the_id_that_the_client_got(captured: Traffic, engine: str) -> None:
    whole = ask(captured, engine).json()
    events = ask(captured, engine, stream=True).text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    text = captured.backends.request(
        "POST", "/v1/completions", json={"model": "dp-text-generation", "prompt": "Red is", "max_tokens": 2}
    ).json()
    assert ask(captured, engine, max_tokens=0).status_code == 400
    assert captured.of("text-generation").json() == []  # what waits is written a moment later
    captured.write()
    found = captured.of("text-generation").json()
    assert [row["answer_id"] for row in found] == [text["id"], chunks[0]["id"], whole["id"]]
    assert [row["input"] for row in found] == [{"prompt": "Red is"}, {"messages": ASKED}, {"messages": ASKED}]
    said = whole["choices"][0]["message"]["content"]
    assert [row["output"] for row in found] == [text["choices"][0]["text"], said, said]
    assert {(row["state"], row["correction"], row["position"]) for row in found} == {("unreviewed", None, 0)}
    assert {round((row["expires_at"] - row["created_at"]) / 86400) for row in found} == {30}


def test_nothing_is_kept_unless_it_is_asked_for_and_in_the_sample(
    made: Traffic, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    detail = made.request("GET", "deployments/dp-text-generation").json()
    assert (detail["capture"], detail["capture_lost"]) == (None, 0)
    ask(made, engine)
    made.capture("text-generation", sample_percentage=25, keep_days=2)
    for drawn in (0.3, 0.2):
        monkeypatch.setattr(capturing.random, "random", lambda drawn=drawn: drawn)
        ask(made, engine)
    made.write()
    (row,) = made.of("text-generation").json()
    assert round((row["expires_at"] - row["created_at"]) / 86400) == 2
    ask(made, engine)
    assert made.of("text-generation", "DELETE", "capture").status_code == 204
    made.write()  # what waits is not kept any more either
    assert len(made.of("text-generation").json()) == 1
    assert made.of("text-generation", "DELETE").status_code == 204
    assert made.of("text-generation").json() == []


def test_answers_are_given_while_the_catalogue_is_away_and_what_has_no_room_is_counted(
    captured: Traffic, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(capturing, "MOST_WAITING", 2)
        for _ in range(4):
            assert ask(captured, engine).status_code == 200

        def away() -> None:
            raise OperationalError("SELECT 1", {}, ConnectionError("refused"))

        patch.setattr(capturing, "transaction", away)
        with pytest.raises(OperationalError):
            captured.write()
    captured.write()
    assert len(captured.of("text-generation").json()) == 2
    assert captured.request("GET", "deployments/dp-text-generation").json()["capture_lost"] == 2


def test_stream_that_is_left_or_breaks_off_is_not_kept(captured: Traffic) -> None:
    target = Target(Engine(), "dp-text-generation", True, Capture())
    before = captured.request("GET", "deployments/dp-text-generation").json()["capture_lost"]
    for end in (b"", b'data: {"status": 503, "error": "It ended.", "code": "unavailable"}\n\n'):
        recording = capturing.begin("/v1/completions", target, {"prompt": "a"})
        assert recording is not None
        recording.add(b'data: {"id": "cmpl-1", "choices": [{"text": "b"}]}\n\n' + end)
        recording.end_stream()
    captured.write()
    assert captured.of("text-generation").json() == []
    assert captured.request("GET", "deployments/dp-text-generation").json()["capture_lost"] == before


def pooled(kind: str, *data: dict[str, Any]) -> dict[str, Any]:
    return {"id": f"{kind}-1", "data": [{"index": index} | one for index, one in enumerate(data)]}


ANSWERS: dict[str, tuple[dict[str, Any], dict[str, Any], Any]] = {
    "classification": ({"input": "x"}, pooled("classify", {"logits": {"a": 1.0, "b": 2.0}}), {"a": 0, "b": 1}),
    "regression": ({"input": "x"}, pooled("regress", {"logits": 2.5}), 2.5),
    "embedding": ({"input": "x", "target": "y"}, {"id": "rq-1", "response": {"cosine_score": 0.25}}, 0.25),
}
RIGHT = {"classification": ("a", {"a": 1, "b": 0}), "regression": (3, 3.0), "embedding": (-0.5, -0.5)}
WRONG = {"classification": "c", "regression": "3", "embedding": 1.5}


@pytest.mark.parametrize("task", ANSWERS)
def test_correction_is_checked_by_the_task_type_and_downloaded_as_a_dataset_that_can_be_uploaded(
    captured: Traffic, task: str
) -> None:
    request, answer, output = ANSWERS[task]
    captured.add(task, request, answer)
    (row,) = captured.of(task).json()
    assert (row["output"], row["state"]) == (output, "unreviewed")
    assert captured.of(task, path="traffic.jsonl").text == ""
    by_answer = f"traffic/{answer['id']}"
    refusal = captured.of(task, "PUT", f"{by_answer}/correction", json={"output": WRONG[task]})
    envelope(refusal, 400, "invalid_input")
    assert refusal.json()["error"].startswith("output: ")
    assert captured.of(task, path=by_answer).json() == row
    given, kept = RIGHT[task]
    corrected = captured.of(task, "PUT", f"{by_answer}/correction", json={"output": given}).json()
    assert (corrected["correction"], corrected["state"], corrected["output"]) == (kept, "corrected", output)
    assert corrected["reviewed_at"] >= row["created_at"]
    file = captured.of(task, path="traffic.jsonl?only=corrected")
    assert file.headers["content-type"] == "application/jsonl"
    uploaded = captured.request("POST", "datasets", files={"file": ("traffic.jsonl", file.content)})
    assert uploaded.status_code == 201, uploaded.text
    detail = captured.request("GET", f"datasets/{uploaded.json()['id']}").json()
    assert task in detail["compatible_task_types"]
    accepted = captured.of(task, "POST", f"{by_answer}/accept").json()
    assert (accepted["correction"], accepted["state"]) == (None, "accepted")


def test_answer_that_cannot_be_learnt_is_corrected_but_not_accepted(captured: Traffic) -> None:
    captured.add("text-generation", {"prompt": "a"}, {"id": "cmpl-empty", "choices": [{"text": ""}]})
    refusal = captured.of("text-generation", "POST", "traffic/cmpl-empty/accept")
    envelope(refusal, 400, "invalid_input")
    assert "'completion' is empty" in refusal.json()["error"]
    assert captured.of("text-generation", path="traffic.jsonl?only=all").text == ""
    captured.of("text-generation", "PUT", "traffic/cmpl-empty/correction", json={"output": "b"})
    assert captured.of("text-generation", path="traffic.jsonl").text == '{"prompt": "a", "completion": "b"}\n'


def test_entries_are_listed_by_state_and_answer_in_pages_and_deleted_one_by_one(captured: Traffic) -> None:
    captured.add("regression", {"input": ["x", "y", "z"]}, pooled("regress", *({"logits": 0.5},) * 3))
    rows = captured.of("regression", path="traffic?answer_id=regress-1").json()
    assert {row["position"] for row in rows} == {0, 1, 2}
    assert captured.of("regression", path="traffic?answer_id=nobody").json() == []
    refusal = captured.of("regression", "PUT", "traffic/regress-1/correction", json={"output": 1})
    envelope(refusal, 400, "invalid_input")
    assert "answered several inputs; name one" in refusal.json()["error"]
    captured.of("regression", "PUT", f"traffic/{rows[1]['id']}/correction", json={"output": 1})
    assert [row["id"] for row in captured.of("regression", path="traffic?state=corrected").json()] == [rows[1]["id"]]
    page = captured.of("regression", path="traffic?state=unreviewed&limit=1")
    assert "state=unreviewed" in page.headers["Link"]
    (after,) = page.json()
    rest = captured.of("regression", path=f"traffic?state=unreviewed&limit=2&after={after['id']}").json()
    assert {row["id"] for row in (after, *rest)} == {rows[0]["id"], rows[2]["id"]}
    assert captured.of("regression", "DELETE", f"traffic/{rows[0]['id']}").status_code == 204
    envelope(captured.of("regression", path=f"traffic/{rows[0]['id']}"), 404, "object_not_found")
    envelope(captured.of("regression", path="traffic?state=good"), 400, "invalid_input")
    assert len(captured.of("regression").json()) == 2


def test_answer_that_is_written_again_is_there_once(captured: Traffic) -> None:
    """As where the answer to the first commit was lost."""
    request, answer, _ = ANSWERS["regression"]
    captured.add("regression", request, answer)
    captured.of("regression", "POST", "traffic/regress-1/accept")
    captured.add("regression", request, answer)
    assert [row["state"] for row in captured.of("regression").json()] == ["accepted"]


def test_what_has_expired_and_what_is_too_much_goes_the_unreviewed_first(
    captured: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abcd":
        captured.add("regression", {"input": name}, pooled(name, {"logits": 0.5}))
    captured.of("regression", "POST", "traffic/a-1/accept")
    monkeypatch.setattr(traffic, "MOST_ENTRIES", 2)
    captured.backends.catalogue(traffic.forget)
    assert [row["answer_id"] for row in captured.of("regression").json()] == ["d-1", "a-1"]

    async def age(session: AsyncSession) -> None:
        row = (await session.scalars(select(TrafficEntry).where(TrafficEntry.answer_id == "a-1"))).one()
        row.created_at = datetime.now(UTC) - timedelta(days=5)

    captured.backends.catalogue(age)
    captured.capture("regression", keep_days=6)
    captured.backends.catalogue(traffic.forget)
    assert len(captured.of("regression").json()) == 2
    captured.capture("regression", keep_days=4)  # counts for what is there, too
    captured.backends.catalogue(traffic.forget)
    assert [row["answer_id"] for row in captured.of("regression").json()] == ["d-1"]


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"sample_percentage": 0}, "sample_percentage:"),
        ({"sample_percentage": 101}, "sample_percentage:"),
        ({"sample_percentage": "100"}, "sample_percentage:"),
        ({"sample_percentage": True}, "sample_percentage:"),
        ({"keep_days": 0}, "keep_days:"),
        ({"keep_days": 366}, "keep_days:"),
        ({"keep_days": 1.5}, "keep_days:"),
    ],
    ids=str,
)
def test_capture_that_cannot_be_is_refused(made: Traffic, wanted: dict[str, Any], field: str) -> None:
    body = {"training_job_id": MODEL, "checkpoint": 0, "name": "refused", "capture": wanted}
    for answer in (
        made.of("regression", "PUT", "capture", json=wanted),
        made.request("POST", "deployments", json=body),
    ):
        envelope(answer, 400, "invalid_input")
        assert field in answer.json()["error"]
    assert made.request("GET", "deployments/dp-regression").json()["capture"] is None
    assert "refused" not in {row["name"] for row in made.request("GET", "deployments").json()}


def pipeline(**gather: Any) -> dict[str, Any]:
    return {
        "name": "of traffic",
        "train": {"base_model": MODEL, "test_functions": ["exact_match_shared"]},
        "train_test_split_ratio": 50,
        "gather": {"source": "traffic"} | gather,
    }


def test_pipeline_is_made_of_traffic_that_there_is_or_will_be(captured: Traffic) -> None:
    refused = {
        "nobody": ({"deployment_id": "dp-nobody"}, "gather.deployment_id: There is no deployment"),
        "none named": ({}, "gather.deployment_id:"),
        "other task": (
            {"deployment_id": "dp-regression"},
            "gather.deployment_id: 'captured-regression' is for regression",
        ),
        "unknown choice": ({"deployment_id": "dp-text-generation", "only": "good"}, "gather.only:"),
        "unknown dataset": (
            {"deployment_id": "dp-text-generation", "datasets": ["ds-nobody"]},
            "gather.datasets: there is no dataset 'ds-nobody'",
        ),
        "misfitting dataset": (
            {"deployment_id": "dp-text-generation", "datasets": [captured.dataset]},
            "gather.datasets: the dataset 'labelled' does not fit text-generation",
        ),
    }
    for gather, words in refused.values():
        answer = captured.request("POST", "pipelines", json=pipeline(**gather))
        envelope(answer, 400, "invalid_input")
        assert words in answer.json()["error"]
    body = pipeline(deployment_id="dp-text-generation", datasets=[captured.texts])
    body["train_test_split_ratio"], body["test_dataset_id"] = None, captured.texts
    answer = captured.request("POST", "pipelines", json=body)
    envelope(answer, 400, "invalid_input")
    assert "is the test dataset" in answer.json()["error"]
    captured.of("text-generation", "DELETE", "capture")
    answer = captured.request("POST", "pipelines", json=pipeline(deployment_id="dp-text-generation"))
    envelope(answer, 400, "invalid_input")
    assert "captures no traffic" in answer.json()["error"]
    captured.capture("text-generation")
    answer = captured.request("POST", "pipelines", json=pipeline(deployment_id="dp-text-generation"))
    assert answer.status_code == 201, answer.text
    found = answer.json()["gather"]
    assert (found["source"], found["only"], found["merge"]) == ("traffic", "reviewed", False)


def test_traffic_goes_with_its_deployment(made: Traffic) -> None:
    made.capture("ending")
    made.add("ending", *ANSWERS["embedding"][:2])
    entries = select(TrafficEntry.id).where(TrafficEntry.deployment_id == "dp-ending")

    async def count(session: AsyncSession) -> int:
        return len((await session.scalars(entries)).all())

    assert made.backends.catalogue(count) == 1
    assert made.request("DELETE", "deployments/dp-ending").status_code == 204
    assert made.backends.catalogue(count) == 0
    made.add("ending", *ANSWERS["embedding"][:2])  # answered in the moment before
    assert made.backends.catalogue(count) == 0
    assert made.of("ending", "PUT", "capture", json={}).status_code == 400


def test_traffic_goes_with_the_project(backends: Backends) -> None:
    project = backends.request("POST", "/v1/projects", json={"name": "going"}).json()["id"]

    async def fill(session: AsyncSession) -> None:
        row = await session.get_one(Project, project)
        engine = Engine(
            id="engine-going", organization_id=row.organization_id, name="going", base_model=MODEL,
            task_type="going", resource_management_config={}, status="Inactive", created_by=row.created_by,
        )  # fmt: skip
        session.add(engine)
        await session.flush()
        session.add(deployment("going", row))
        await session.flush()
        session.add(
            TrafficEntry(
                id="te-going", deployment_id="dp-going", answer_id="a", position=0, input={"prompt": "a"}, output="b",
                expires_at=datetime.now(UTC),
            )
        )  # fmt: skip

    backends.catalogue(fill)
    answer = backends.request("DELETE", f"/v1/projects/{project}")
    assert answer.status_code == 204, answer.text
    assert backends.catalogue(lambda session: session.get(TrafficEntry, "te-going")) is None
