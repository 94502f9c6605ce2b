"""The platform's own processes are killed under a running job; nothing is lost."""

from typing import Any

import psutil
import pytest

from emissary.client import Client
from emissary.errors import Unavailable
from emissary.up import Platform
from tests.jobs import ROWS, TINY, ended, until, upload

pytestmark = pytest.mark.acceptance

PARTS = {"worker": "emissary.worker", "API": "emissary.api.server", "Prefect server": "prefect"}


def kill(module: str) -> None:
    """Kill -9 the platform's process that runs `module`, which the platform's supervisor started."""
    (found,) = [child for child in psutil.Process().children() if module in child.cmdline()]
    found.kill()


@pytest.mark.parametrize("part", PARTS)
def test_job_ends_well_when_a_part_of_the_platform_is_killed_under_it(
    client: Client, platform: Platform, part: str
) -> None:
    project = client.post("/v1/projects", {"name": f"chaos-{part.replace(' ', '-')}"})["id"]
    body = {
        "base_model": "SmolLM2-135M-Instruct",
        "train_dataset_id": upload(client, project, ROWS),
        "test_dataset_id": upload(client, project, ROWS[:2], "colours-test"),
        "test_functions": ["exact_match_shared"],
        "parameters": TINY | {"num_train_epochs": 12},
    }
    jobs = f"/v1/projects/{project}/training-jobs"
    path = f"{jobs}/{client.post(jobs, body)['id']}"
    until(lambda: client.get(f"{path}/checkpoints"), lambda found: len(found) >= 2)
    kill(PARTS[part])

    def job() -> dict[str, Any]:
        try:
            return dict(client.get(path))
        except Unavailable:
            return {"status": "away"}

    last = until(job, ended, 400)
    assert last["status"] == "Success", last["error"]
    assert [row["checkpoint"] for row in client.get(f"{path}/checkpoints")] == list(range(1, 13))
    assert all(row["test_results"] for row in client.get(f"{path}/checkpoints"))
    until(lambda: client.http.get("/healthz").status_code, lambda status: status == 200)
