"""A worker that is stopped, as each deployment of a new version does: its runs save, end, and go on with the next."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psutil
import pytest

from emissary.client import Client
from emissary.up import Platform
from tests.engine_life import CHAT, MODEL, until_status
from tests.jobs import ROWS, TINY, ended, until, upload

pytestmark = pytest.mark.acceptance

STOP_SECONDS = 20


def worker() -> psutil.Process:
    (found,) = [child for child in psutil.Process().children() if "emissary.worker" in child.cmdline()]
    return found


def stop_worker() -> float:
    """Stop the worker as a service manager does; returns the seconds it took. The supervisor starts the next."""
    process, begun = worker(), time.monotonic()
    runs = process.children(recursive=True)
    process.terminate()
    psutil.wait_procs([process], STOP_SECONDS)
    took = time.monotonic() - begun
    assert not psutil.wait_procs([process, *runs], 5)[1], "the worker or something that it ran still lives"
    return took


@contextmanager
def calls(client: Client, model: str) -> Iterator[list[int]]:
    """Chat with the model again and again while the block runs; yields the status of each answer."""
    answers: list[int] = []
    over = threading.Event()

    def call() -> None:
        while not over.is_set():
            answers.append(client.http.post("/v1/chat/completions", json=CHAT | {"model": model}).status_code)

    with ThreadPoolExecutor(1) as threads:
        calling = threads.submit(call)
        try:
            until(lambda: len(answers), lambda count: count >= 2)
            yield answers
            before = len(answers)
            until(lambda: len(answers), lambda count: count >= before + 2)
        finally:
            over.set()
        calling.result()


@pytest.fixture(scope="module")
def project(client: Client) -> str:
    return str(client.post("/v1/projects", {"name": "worker-leaves"})["id"])


def test_job_goes_on_with_the_next_worker_from_what_it_saved(platform: Platform, client: Client, project: str) -> None:
    path = f"/v1/projects/{project}/training-jobs"
    body = {"base_model": MODEL, "train_dataset_id": upload(client, project, ROWS), "parameters": TINY}
    body["parameters"] = TINY | {"num_train_epochs": 30, "save_steps": 1000}
    job = f"{path}/{client.post(path, body)['id']}"
    until(lambda: client.get(f"{job}/checkpoints"), lambda found: len(found) >= 2)
    # Midway in an epoch, where nothing but being stopped makes it save.
    until(lambda: client.get(job)["training_loss"], lambda points: points and points[-1]["step"] % 2 == 1)
    assert stop_worker() < STOP_SECONDS
    found = until(lambda: client.get(job), ended, 300)
    assert found["status"] == "Success", found["error"]
    kinds = [event["kind"] for event in client.get(f"{job}/events")]
    assert [kinds.count(kind) for kind in ("started", "resumed", "checkpoint", "failed")] == [1, 1, 30, 0]
    steps = [point["step"] for point in found["training_loss"]]
    assert steps == sorted(set(steps))


def test_no_request_to_a_deployment_fails_while_its_worker_is_replaced(
    platform: Platform, client: Client, project: str
) -> None:
    (job,) = client.get(f"/v1/projects/{project}/training-jobs")
    body = {"training_job_id": job["id"], "checkpoint": 1, "name": "worker-leaves"}
    deployment = client.post(f"/v1/projects/{project}/deployments", body)
    until_status(client, f"/v1/projects/{project}/deployments/{deployment['id']}", "Deployed")
    with calls(client, "worker-leaves") as answers:
        assert stop_worker() < STOP_SECONDS
    assert set(answers) == {200}
    client.call("DELETE", f"/v1/projects/{project}/deployments/{deployment['id']}")
