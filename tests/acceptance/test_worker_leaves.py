"""A worker that is stopped, as each deployment of a new version does: its runs save, end, and go on with the next."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psutil
import pytest

from emissary.client import Client
from emissary.up import Platform
from tests.engine_life import CHAT, MODEL, until_status
from tests.jobs import ROWS, TINY, ended, profiled, until, upload

pytestmark = pytest.mark.acceptance

STOP_SECONDS = 20
EPOCH_STEPS = 16


def worker() -> psutil.Process:
    (found,) = [child for child in psutil.Process().children() if "emissary.worker" in child.cmdline()]
    return found


def stop_worker(with_all_it_runs: bool = False) -> float:
    """Stop the worker as a service manager does; returns the seconds it took. The supervisor starts the next."""
    process, begun = worker(), time.monotonic()
    runs = process.children(recursive=True)
    for each in [*runs, process] if with_all_it_runs else [process]:
        each.terminate()
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


def stop_run() -> None:
    """Stop the process of the one run that is no engine's, and nothing else; the worker starts it again."""
    (server,) = (child for child in worker().children() if "forkserver" in str(child.cmdline()))
    (run,) = (child for child in server.children() if child.status() != psutil.STATUS_ZOMBIE)
    run.terminate()
    assert not psutil.wait_procs([run], STOP_SECONDS)[1]


STOPS: dict[str, Callable[[], object]] = {
    "worker": stop_worker,
    "worker-and-all-it-runs": lambda: stop_worker(with_all_it_runs=True),
    "run": stop_run,
}


@pytest.mark.parametrize("what", STOPS)
def test_job_goes_on_from_the_step_that_it_saved_when(
    what: str, platform: Platform, client: Client, project: str
) -> None:
    path = f"/v1/projects/{project}/training-jobs"
    rows = upload(client, project, ROWS * EPOCH_STEPS)
    profiled(client, f"/v1/projects/{project}/datasets/{rows}")  # by a run, which may be on otherwise
    parameters = TINY | {"per_device_train_batch_size": len(ROWS), "num_train_epochs": 4, "save_steps": 1000}
    body = {"base_model": MODEL, "train_dataset_id": rows, "parameters": parameters | {"logging_steps": 1}}
    job = f"{path}/{client.post(path, body)['id']}"
    # Midway in an epoch, where nothing but being stopped makes it save.
    points = until(
        lambda: client.get(job)["training_loss"],
        lambda points: points and points[-1]["step"] > EPOCH_STEPS and 1 <= points[-1]["step"] % EPOCH_STEPS <= 8,
    )
    begun = time.monotonic()
    STOPS[what]()
    assert time.monotonic() - begun < STOP_SECONDS
    found = until(lambda: client.get(job), ended, 300)
    assert found["status"] == "Success", found["error"]
    kinds = [event["kind"] for event in client.get(f"{job}/events")]
    assert [kinds.count(kind) for kind in ("started", "resumed", "checkpoint", "failed")] == [1, 1, 4, 0]
    assert [point["step"] for point in found["training_loss"]] == list(range(1, 4 * EPOCH_STEPS + 1))
    (said,) = (line["message"] for line in client.get(f"{job}/logs") if "goes on after" in line["message"])
    step = int(said.rpartition(" ")[2])
    assert step >= points[-1]["step"], "steps were done again"
    assert step % EPOCH_STEPS, f"{said}, an epoch's last, which is saved anyway"


def test_no_request_to_a_deployment_fails_while_its_worker_is_replaced(
    platform: Platform, client: Client, project: str
) -> None:
    job = client.get(f"/v1/projects/{project}/training-jobs")[0]
    body = {"training_job_id": job["id"], "checkpoint": 1, "name": "worker-leaves"}
    deployment = client.post(f"/v1/projects/{project}/deployments", body)
    until_status(client, f"/v1/projects/{project}/deployments/{deployment['id']}", "Deployed")
    with calls(client, "worker-leaves") as answers:
        assert stop_worker() < STOP_SECONDS
    assert set(answers) == {200}
    client.call("DELETE", f"/v1/projects/{project}/deployments/{deployment['id']}")
