"""What a client does with an example: uploads it, trains on it and follows the job, deploys and asks."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from emissary.client import Client
from emissary.errors import EmissaryError
from emissary.settings import PROJECT_ROOT

EXAMPLES = PROJECT_ROOT / "examples"
_POLL_SECONDS = 1.0
_DEADLINE_SECONDS = 3600.0
_AT_ONCE = 32


def upload(client: Client, console: Console, project: str, file_name: str) -> str:
    """Id of a new dataset with the file of that name in `examples/`."""
    path = EXAMPLES / file_name
    with path.open("rb") as file:
        created = client.call(
            "POST", f"/v1/projects/{project}/datasets", files={"file": file}, data={"name": path.stem}
        )
    detail = client.get(f"/v1/projects/{project}/datasets/{created['id']}")
    console.print(f"Uploaded {path.stem}: {detail['profile']['rows']} rows, {detail['id']}")
    return str(created["id"])


def train(
    client: Client, console: Console, project: str, request: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, float]]:
    """The job of `request`, one of GRPO where it has a reward, at its successful end, and the seconds that it spent in
    each status.

    Raises EmissaryError when it ends otherwise.
    """
    jobs = f"/v1/projects/{project}/training-jobs"
    job: dict[str, Any] = client.post(f"{jobs}/grpo" if "reward" in request else jobs, request)
    console.print(f"Training job {job['id']} ({job['training_technique']}) on {job['base_model']}")
    stages: dict[str, float] = {}
    began, status = time.monotonic(), "Pending"
    columns = TextColumn("{task.description:32}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console) as bar:
        shown = bar.add_task(status, total=100)
        while status not in ("Success", "Failed", "TimedOut", "Cancelled"):
            job = client.get(f"{jobs}/{job['id']}")
            if job["status"] != status:
                stages[status.lower()] = round(time.monotonic() - began, 1)
                began, status = time.monotonic(), job["status"]
                bar.console.print(f"  {status}")
            loss = f"loss {job['training_loss'][-1]['loss']:.3f}" if job["training_loss"] else ""
            bar.update(shown, completed=job["progress"], description=f"{status} {loss}")
            time.sleep(_POLL_SECONDS)
    if status != "Success":
        raise EmissaryError(f"The training job {job['id']} ended as {status}: {job['error']}")
    return job, stages


def deploy(client: Client, console: Console, project: str, request: dict[str, Any]) -> dict[str, Any]:
    """The deployment of `request` when it can be called. Raises EmissaryError when it cannot."""
    path = f"/v1/projects/{project}/deployments"
    deployment: dict[str, Any] = client.post(path, request)
    deadline = time.monotonic() + _DEADLINE_SECONDS
    with console.status(f"Deploying {deployment['name']}"):
        while deployment["status"] in ("Pending", "Deploying") and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            deployment = client.get(f"{path}/{deployment['id']}")
    if deployment["status"] != "Deployed":
        raise EmissaryError(f"The deployment {deployment['name']} is {deployment['status']}: {deployment['error']}")
    console.print(f"Deployed {deployment['name']} (checkpoint {deployment['checkpoint']}) on {deployment['engine_id']}")
    return deployment


def ask_all(console: Console, model: str, ask: Callable[[Any], Any], inputs: Sequence[Any]) -> list[Any]:
    """What `ask` gives for each input, 32 at once; `model` is shown meanwhile."""
    with console.status(f"{model} answers"), ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(ask, inputs))


def chat(client: Client, model: str, messages: list[dict[str, str]]) -> str:
    """The model's greedy answer to a conversation, of at most 32 tokens."""
    body = {"model": model, "messages": messages, "temperature": 0, "max_tokens": 32}
    return str(client.post("/v1/chat/completions", body)["choices"][0]["message"]["content"])
