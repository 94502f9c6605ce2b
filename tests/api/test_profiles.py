"""Every uploaded dataset is profiled by a flow run of its own; what is made of one content is made and kept once."""

import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from emissary.client import Client
from emissary.up import Platform
from tests.jobs import jsonl, profiled, until

ROWS = [{"prompt": f"What is {number} plus one?", "completion": float(number + 1)} for number in range(24)]


def upload(client: Client, project: str, rows: list[dict[str, Any]]) -> str:
    """Path of a new dataset."""
    files = {"file": ("sums.jsonl", jsonl(rows))}
    path = f"/v1/projects/{project}/datasets"
    return f"{path}/{client.call('POST', path, files=files)['id']}"


def made_of(sha256: str) -> set[str]:
    """Names of the artifacts that were made of this content."""
    return {path.name for path in (Path(os.environ["EMISSARY_HOME"]) / "artifacts/prepared").glob(f"{sha256}/*")}


@pytest.fixture(scope="module")
def project(client: Client) -> str:
    return str(client.post("/v1/projects", {"name": "profiles"})["id"])


@pytest.fixture(scope="module")
def dataset(client: Client, project: str) -> str:
    return upload(client, project, ROWS)


def test_uploaded_dataset_is_profiled(client: Client, platform: Platform, dataset: str) -> None:
    found = profiled(client, dataset)["profile"]
    assert (found["rows"], found["target"]["quantiles"]["max"]) == (24, 24.0)
    assert found["tokens"]["base_model"] == "SmolLM2-135M-Instruct"
    assert set(found["plots"]) == {"target", "tokens"}
    for url in found["plots"].values():
        assert httpx.get(url, trust_env=False).content.startswith(b"\x89PNG")
    key = f"profile-{dataset.rpartition('/')[2]}".lower()
    wanted = {"artifacts": {"key": {"any_": [key]}}}
    (page,) = httpx.post(f"{platform.prefect_url}/api/artifacts/filter", json=wanted, trust_env=False).json()
    assert "data:image/png;base64," in page["data"]


def test_same_content_is_prepared_once_and_kept_for_whoever_has_it(client: Client, project: str, dataset: str) -> None:
    first = profiled(client, dataset)["profile"]
    made = made_of(first["sha256"])
    assert sorted(name.partition("-")[0] for name in made) == ["profile", "rows"]
    again = upload(client, project, ROWS)
    second = profiled(client, again)["profile"]
    assert {name: value for name, value in second.items() if name != "plots"} == {
        name: value for name, value in first.items() if name != "plots"
    }
    assert made_of(first["sha256"]) == made
    client.delete(again)
    assert made_of(first["sha256"]) == made
    other = upload(client, project, ROWS[1:])
    alone = profiled(client, other)["profile"]["sha256"]
    client.delete(other)
    assert made_of(alone) == set()


def test_flow_started_in_prefect_finds_what_is_in_the_test_dataset_too(
    client: Client, platform: Platform, project: str, dataset: str
) -> None:
    profiled(client, dataset)
    test = upload(client, project, [*ROWS[5:7], {"prompt": "Is this another?", "completion": 3.5}])
    with httpx.Client(base_url=f"{platform.prefect_url}/api", trust_env=False) as prefect:
        flow = prefect.get("/deployments/name/prepare_dataset/prepare_dataset").json()["id"]
        parameters = {
            name: path.rpartition("/")[2] for name, path in (("dataset_id", dataset), ("test_dataset_id", test))
        }
        started = prefect.post(f"/deployments/{flow}/create_flow_run", json={"parameters": parameters}).json()["id"]
        run = until(
            lambda: prefect.get(f"/flow_runs/{started}").json()["state"],
            lambda state: state["type"] in ("COMPLETED", "FAILED", "CRASHED"),
        )
    assert run["type"] == "COMPLETED", run["message"]
    found = profiled(client, dataset)["profile"]
    assert found["leakage"] == {"test_dataset_id": test.rpartition("/")[2], "rows": 2, "test_rows": [1, 2]}
    assert any("2 rows of the test dataset" in said for said in found["warnings"])
